"""The golden vision transformer of timm, written down as other programs name and store it.

Every spelling is made here by hand, from torch's arrays, without the tables under test.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from passl.checkpoint.sources import write_safetensors

GOLDEN = Path(__file__).parents[1] / "golden"
#: Both golden models; ``passl-convert`` takes the same after ``-o``.
TINY: dict[str, Any] = {
    "img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4,
    "class_num": 10, "qkv_bias": True, "epsilon": 1e-6,
}
TINY_OPTIONS = [
    "--model", "VisionTransformer", "-o", "patch_size=8", "embed_dim=48", "depth=2",
    "num_heads=4", "qkv_bias=true", "epsilon=1e-6",
]
_DIM, _HEADS = 48, 4
_QKV = ("query", "key", "value")


@cache
def golden() -> dict[str, np.ndarray]:
    """timm's arrays: ``x``, ``logits``, ``features`` and ``param/...``."""
    with np.load(GOLDEN / "vit.npz") as file:
        return {name: file[name] for name in file.files if not name.startswith("grad/")}


def timm_params() -> dict[str, np.ndarray]:
    """The golden weights under timm's names in torch's layout."""
    return {name[6:]: value for name, value in golden().items() if name.startswith("param/")}


def save(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """As safetensors, or as ``.npz`` by the suffix."""
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        write_safetensors(path, arrays, {"format": "pt"})
    return path


def parts(weight: np.ndarray) -> list[np.ndarray]:
    """Query, key and value of torch's fused rows."""
    return [weight[: _DIM], weight[_DIM : 2 * _DIM], weight[2 * _DIM :]]


def as_huggingface(params: Mapping[str, np.ndarray], prefix: str = "vit.") -> dict[str, np.ndarray]:
    """``ViTForImageClassification``."""
    p = dict(params)
    out = {
        f"{prefix}embeddings.cls_token": p["cls_token"],
        f"{prefix}embeddings.position_embeddings": p["pos_embed"],
        f"{prefix}embeddings.patch_embeddings.projection.weight": p["patch_embed.proj.weight"],
        f"{prefix}embeddings.patch_embeddings.projection.bias": p["patch_embed.proj.bias"],
        f"{prefix}embeddings.mask_token": np.zeros((1, 1, _DIM), np.float32),
        f"{prefix}layernorm.weight": p["norm.weight"],
        f"{prefix}layernorm.bias": p["norm.bias"],
        "classifier.weight": p["head.weight"],
        "classifier.bias": p["head.bias"],
    }
    for i in (0, 1):
        layer = f"{prefix}encoder.layer.{i}"
        for end in ("weight", "bias"):
            for name, part in zip(_QKV, parts(p[f"blocks.{i}.attn.qkv.{end}"])):
                out[f"{layer}.attention.attention.{name}.{end}"] = part
            out[f"{layer}.attention.output.dense.{end}"] = p[f"blocks.{i}.attn.proj.{end}"]
            out[f"{layer}.layernorm_before.{end}"] = p[f"blocks.{i}.norm1.{end}"]
            out[f"{layer}.layernorm_after.{end}"] = p[f"blocks.{i}.norm2.{end}"]
            out[f"{layer}.intermediate.dense.{end}"] = p[f"blocks.{i}.mlp.fc1.{end}"]
            out[f"{layer}.output.dense.{end}"] = p[f"blocks.{i}.mlp.fc2.{end}"]
    return out


def as_vit_pytorch(params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """jeonsworld's ``VisionTransformer``."""
    p, embed = dict(params), "transformer.embeddings"
    out = {
        f"{embed}.cls_token": p["cls_token"],
        f"{embed}.position_embeddings": p["pos_embed"],
        f"{embed}.patch_embeddings.weight": p["patch_embed.proj.weight"],
        f"{embed}.patch_embeddings.bias": p["patch_embed.proj.bias"],
        "transformer.encoder.encoder_norm.weight": p["norm.weight"],
        "transformer.encoder.encoder_norm.bias": p["norm.bias"],
        "head.weight": p["head.weight"],
        "head.bias": p["head.bias"],
    }
    for i in (0, 1):
        layer = f"transformer.encoder.layer.{i}"
        for end in ("weight", "bias"):
            for name, part in zip(_QKV, parts(p[f"blocks.{i}.attn.qkv.{end}"])):
                out[f"{layer}.attn.{name}.{end}"] = part
            out[f"{layer}.attn.out.{end}"] = p[f"blocks.{i}.attn.proj.{end}"]
            out[f"{layer}.attention_norm.{end}"] = p[f"blocks.{i}.norm1.{end}"]
            out[f"{layer}.ffn_norm.{end}"] = p[f"blocks.{i}.norm2.{end}"]
            out[f"{layer}.ffn.fc1.{end}"] = p[f"blocks.{i}.mlp.fc1.{end}"]
            out[f"{layer}.ffn.fc2.{end}"] = p[f"blocks.{i}.mlp.fc2.{end}"]
    return out


def as_lucidrains(params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """myrtle-vision's ViT: patches flattened as (row, column, channel)."""
    p = dict(params)
    kernel = p["patch_embed.proj.weight"]
    out = {
        "cls_token": p["cls_token"],
        "pos_embedding": p["pos_embed"],
        "patch_to_embedding.weight": kernel.transpose(0, 2, 3, 1).reshape(_DIM, -1),
        "patch_to_embedding.bias": p["patch_embed.proj.bias"],
        "mlp_head.0.weight": p["norm.weight"],
        "mlp_head.0.bias": p["norm.bias"],
        "mlp_head.1.weight": p["head.weight"],
        "mlp_head.1.bias": p["head.bias"],
    }
    for i in (0, 1):
        attention, mlp = f"transformer.layers.{i}.0.fn", f"transformer.layers.{i}.1.fn"
        for end in ("weight", "bias"):
            out[f"{attention}.norm.{end}"] = p[f"blocks.{i}.norm1.{end}"]
            out[f"{attention}.fn.to_qkv.{end}"] = p[f"blocks.{i}.attn.qkv.{end}"]
            out[f"{attention}.fn.to_out.0.{end}"] = p[f"blocks.{i}.attn.proj.{end}"]
            out[f"{mlp}.norm.{end}"] = p[f"blocks.{i}.norm2.{end}"]
            out[f"{mlp}.fn.net.0.{end}"] = p[f"blocks.{i}.mlp.fc1.{end}"]
            out[f"{mlp}.fn.net.3.{end}"] = p[f"blocks.{i}.mlp.fc2.{end}"]
    return out


def as_big_vision(params: Mapping[str, np.ndarray], *, scan: bool) -> dict[str, np.ndarray]:
    """big_vision's ``.npz``, one block a group of keys or all blocks along a first axis.

    Its positions are added before the class token is there, so that token brings its own along.
    """
    p = dict(params)
    out = {
        "params/cls": p["cls_token"] + p["pos_embed"][:, :1],
        "params/pos_embedding": p["pos_embed"][:, 1:],
        "params/embedding/kernel": p["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "params/embedding/bias": p["patch_embed.proj.bias"],
        "params/Transformer/encoder_norm/scale": p["norm.weight"],
        "params/Transformer/encoder_norm/bias": p["norm.bias"],
        "params/head/kernel": p["head.weight"].T,
        "params/head/bias": p["head.bias"],
        "opt/0/count": np.zeros((), np.int32),
    }
    blocks = [_flax_block(p, i) for i in (0, 1)]
    for key in blocks[0]:
        if scan:
            out[f"params/Transformer/encoderblock/{key}"] = np.stack([b[key] for b in blocks])
        else:
            for i, block in enumerate(blocks):
                out[f"params/Transformer/encoderblock_{i}/{key}"] = block[key]
    return out


def _flax_block(p: Mapping[str, np.ndarray], i: int) -> dict[str, np.ndarray]:
    heads, name = "MultiHeadDotProductAttention_0", f"blocks.{i}"
    block = {
        "LayerNorm_0/scale": p[f"{name}.norm1.weight"],
        "LayerNorm_0/bias": p[f"{name}.norm1.bias"],
        "LayerNorm_1/scale": p[f"{name}.norm2.weight"],
        "LayerNorm_1/bias": p[f"{name}.norm2.bias"],
        "MlpBlock_0/Dense_0/kernel": p[f"{name}.mlp.fc1.weight"].T,
        "MlpBlock_0/Dense_0/bias": p[f"{name}.mlp.fc1.bias"],
        "MlpBlock_0/Dense_1/kernel": p[f"{name}.mlp.fc2.weight"].T,
        "MlpBlock_0/Dense_1/bias": p[f"{name}.mlp.fc2.bias"],
        f"{heads}/out/kernel": p[f"{name}.attn.proj.weight"].T.reshape(_HEADS, -1, _DIM),
        f"{heads}/out/bias": p[f"{name}.attn.proj.bias"],
    }
    weights, biases = parts(p[f"{name}.attn.qkv.weight"]), parts(p[f"{name}.attn.qkv.bias"])
    for key, weight, bias in zip(("query", "key", "value"), weights, biases):
        block[f"{heads}/{key}/kernel"] = weight.T.reshape(_DIM, _HEADS, -1)
        block[f"{heads}/{key}/bias"] = bias.reshape(_HEADS, -1)
    return block


def as_passl2(params: Mapping[str, np.ndarray], *, separate: bool = False) -> dict[str, np.ndarray]:
    """PASSL 2 and PLSC: timm's names, Linear weights [in, out]."""
    out = {}
    for name, value in params.items():
        is_linear = value.ndim == 2
        value = value.T if is_linear else value
        if separate and ".attn.qkv." in name:
            for letter, part in zip("qkv", np.split(value, 3, axis=-1)):
                out[name.replace("qkv", f"{letter}_proj")] = part
        else:
            out[name] = value
    return out

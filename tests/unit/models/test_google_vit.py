"""Google's checkpoints, key by key, give the numbers that Google's models give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest

from passl.models import create_model

GOLDEN = Path(__file__).parents[2] / "golden"
SMALL = {
    "img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4, "class_num": 10,
    "qkv_bias": True, "epsilon": 1e-6,
}
_BLOCK = {
    "norm1": "LayerNorm_0", "norm2": "LayerNorm_2",
    "attn.proj": "MultiHeadDotProductAttention_1/out",
    "mlp.fc1": "MlpBlock_3/Dense_0", "mlp.fc2": "MlpBlock_3/Dense_1",
}
_PLAIN = {
    "cls_token": "cls", "pos_embed": "Transformer/posembed_input/pos_embedding",
    "norm.weight": "Transformer/encoder_norm/scale", "norm.bias": "Transformer/encoder_norm/bias",
    "patch_embed.proj.bias": "embedding/bias", "head.weight": "head/kernel",
    "head.bias": "head/bias", "pre_logits.fc.weight": "pre_logits/kernel",
    "pre_logits.fc.bias": "pre_logits/bias",
}


def _values(stored: dict[str, np.ndarray], name: str) -> np.ndarray:
    """The array of Google's that our parameter ``name`` takes; kernels are [in, out] in both."""
    if name in _PLAIN:
        return stored[_PLAIN[name]]
    if name == "patch_embed.proj.weight":
        return stored["embedding/kernel"].transpose(3, 2, 0, 1)
    _, index, rest = name.split(".", 2)
    layer, _, kind = rest.rpartition(".")
    prefix = f"Transformer/encoderblock_{index}"
    if layer == "attn.qkv":
        attention = f"{prefix}/MultiHeadDotProductAttention_1"
        part = "kernel" if kind == "weight" else "bias"
        arrays = [stored[f"{attention}/{word}/{part}"] for word in ("query", "key", "value")]
        width = arrays[0].shape[0] if kind == "weight" else 1
        joined = np.concatenate([array.reshape(width, -1) for array in arrays], axis=1)
        return joined if kind == "weight" else joined[0]
    part = "bias" if kind == "bias" else "scale" if "norm" in layer else "kernel"
    array = stored[f"{prefix}/{_BLOCK[layer]}/{part}"]
    return array.reshape(-1, array.shape[-1]) if array.ndim == 3 else array


@pytest.mark.parametrize(
    ("file", "representation_size", "logits"),
    [
        ("google_vit", None, "logits"),
        ("google_vit_pre_logits", None, "logits"),  # the layer left out, as for finetuning
        ("google_vit_pre_logits", 48, "logits_with_pre_logits_layer"),
    ],
)
def test_features_and_logits_equal_the_reference(
    file: str, representation_size: int | None, logits: str
):
    with np.load(GOLDEN / f"{file}.npz") as opened:
        stored = dict(opened)
    with np.load(GOLDEN / f"{file}_expected.npz") as opened:
        expected = dict(opened)
    model = create_model(
        "VisionTransformer", **SMALL, representation_size=representation_size
    )
    for name, parameter in model.named_parameters():
        parameter.set_value(np.ascontiguousarray(_values(stored, name)))
    model.eval()
    tokens = model.forward_features(paddle.to_tensor(expected["x"]))
    for found, wanted in (
        (tokens[:, 0], expected["features"]), (model.forward_head(tokens), expected[logits]),
    ):
        assert np.abs(found.numpy() - wanted).max() < 1e-5 * np.abs(wanted).max()

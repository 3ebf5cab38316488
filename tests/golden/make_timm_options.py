"""Make ``timm_options.npz`` and ``timm_names.json``: small vision transformers computed by timm.

Needs torch and timm beside PASSL, whose list of names it asks::

    python tests/golden/make_timm_options.py tests/golden

``timm_options.npz`` has one model for each option that PASSL and timm share, with gradients.  Its
weights are small whole numbers divided by a power of two, so that the file compresses.  A hybrid is
computed twice with the same weights: as timm does it, and with Google's constants.
``timm_names.json`` has, for each name that PASSL shares with timm, what timm's model of that name
consists of, and timm's layer number of every parameter of the small models.
"""

from __future__ import annotations

import hashlib
import json
import sys
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from timm.layers import HybridEmbed, LayerNorm, StdConv2dSame
from timm.models._manipulate import group_parameters
from timm.models.deit import VisionTransformerDistilled
from timm.models.resnetv2 import ResNetV2
from timm.models.vision_transformer import VisionTransformer

IMG_SIZE = 16
HYBRID_IMG_SIZE = 36  # 36 -> 18 -> 9 -> 5: the padding of the last stage is not symmetric
SIZES: dict[str, Any] = {
    "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5, "mlp_ratio": 2,
}
#: case -> what it adds to SIZES, in timm's words
CASES: dict[str, dict[str, Any]] = {
    "avg": {"global_pool": "avg"},
    "avg_no_class_token": {"global_pool": "avg", "fc_norm": False, "class_token": False},
    "registers": {"reg_tokens": 3, "no_embed_class": True, "init_values": 0.1},
    "registers_with_positions": {"reg_tokens": 2, "qkv_bias": False},
    "tanh_qk_norm": {"act_layer": "gelu_tanh", "qk_norm": True},
    "quick_gelu": {"act_layer": "quick_gelu"},
    "pre_norm": {"pre_norm": True, "norm_layer": partial(LayerNorm, eps=1e-5)},
    "distilled": {},
}
#: Gradients of these parameters are kept.
KEPT = (
    "cls_token", "dist_token", "reg_token", "pos_embed", "gamma", "norm", "patch_embed.proj.bias",
    "patch_embed.backbone.stem.conv", "stages.0.blocks.0.conv2", "blocks.0.attn.qkv", "head",
)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    arrays: dict[str, np.ndarray] = {}
    layer_ids: dict[str, dict[str, int]] = {}
    for case, options in CASES.items():
        kind = VisionTransformerDistilled if case == "distilled" else VisionTransformer
        model = kind(img_size=IMG_SIZE, **SIZES, **options)
        arrays.update(computed(case, model, IMG_SIZE))
        layer_ids[case] = numbers(model)
    for style in ("timm", "google"):
        model = hybrid()
        if style == "google":
            use_googles_constants(model)
        found = computed("hybrid", model, HYBRID_IMG_SIZE)
        arrays.update({
            key if "/param/" in key else key.replace("hybrid/", f"hybrid_{style}/"): value
            for key, value in found.items()
        })
    layer_ids["hybrid"] = numbers(model)
    np.savez_compressed(folder / "timm_options.npz", **arrays)
    table = {
        "versions": {"timm": timm.__version__, "torch": torch.__version__},
        "layer_ids": layer_ids,
        "names": {name: consists_of(name) for name in shared_names()},
    }
    text = json.dumps(table, indent=1, sort_keys=True)
    (folder / "timm_names.json").write_text(text + "\n", encoding="utf-8")


def hybrid() -> torch.nn.Module:
    """R+ViT with two stages of one bottleneck, half as wide as Google's."""
    backbone = ResNetV2(
        layers=(1, 1), num_classes=0, global_pool="", preact=False, stem_type="same",
        width_factor=0.5, conv_layer=partial(StdConv2dSame, eps=1e-8),
    )
    return VisionTransformer(
        img_size=HYBRID_IMG_SIZE,
        embed_layer=partial(HybridEmbed, backbone=backbone),
        **{**SIZES, "patch_size": 1},
    )


def use_googles_constants(model: torch.nn.Module) -> None:
    """Epsilon 1e-6 in group normalisations, and weights divided by std + 1e-5."""
    for module in model.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.eps = 1e-6
        if isinstance(module, StdConv2dSame):
            module.forward = partial(_googles_convolution, module)


def _googles_convolution(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    mean = module.weight.mean(dim=(1, 2, 3), keepdim=True)
    std = module.weight.std(dim=(1, 2, 3), keepdim=True, unbiased=False)
    kernel, stride = module.kernel_size[0], module.stride[0]
    pads = []
    for size in (x.shape[-1], x.shape[-2]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, pads), (module.weight - mean) / (std + 1e-5), stride=stride)


def computed(case: str, model: torch.nn.Module, img_size: int) -> dict[str, np.ndarray]:
    """Inputs, weights, outputs and gradients of one model, keys prefixed by the case."""
    rng = np.random.default_rng(zlib.crc32(case.encode()))
    for name, parameter in model.named_parameters():
        parameter.data = torch.from_numpy(weight_like(rng, name, tuple(parameter.shape)))
    x = torch.from_numpy(rng.integers(-128, 128, (2, 3, img_size, img_size)).astype("f4") / 64)
    y = torch.tensor([1, 3])
    model.eval()
    features = model.forward_features(x)
    logits = model.forward_head(features)
    loss = F.cross_entropy(logits, y)
    loss.backward()
    kept = {"x": x, "y": y, "features": features, "logits": logits, "loss": loss}
    if case == "distilled":
        model.set_distilled_training(True)
        model.train()
        kept["logits_cls"], kept["logits_dist"] = model.forward_head(features)
    for name, parameter in model.named_parameters():
        kept[f"param/{name}"] = parameter
        if any(part in name for part in KEPT):
            kept[f"grad/{name}"] = parameter.grad
    return {f"{case}/{key}": value.detach().numpy() for key, value in kept.items()}


def weight_like(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Whole numbers over 256; around 1 for what multiplies, of unit gain for a matrix."""
    values = rng.integers(-64, 65, shape).astype("f4")
    if len(shape) >= 2 and name.endswith("weight"):
        return values / 512
    if name.endswith(("norm.weight", "gamma")) or ("norm" in name and name.endswith("weight")):
        return 1 + values / 256
    return values / 256


def numbers(model: torch.nn.Module) -> dict[str, int]:
    """Layer of each parameter, as timm's layer-wise decay of the learning rate counts."""
    found = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    return {name: int(found[name]) for name, _ in model.named_parameters()}


def shared_names() -> list[str]:
    """The names and aliases of PASSL's models that timm has too."""
    from passl.models import list_models, model_spec

    known = {alias for name in list_models() for alias in (name, *model_spec(name).aliases)}
    return sorted(name for name in known if timm.is_model(name))


def consists_of(name: str) -> dict[str, Any]:
    """Parameters of timm's model, counted and hashed by name and shape, and its epsilon."""
    model = timm.create_model(name, num_classes=1000)
    lines = sorted(
        f"{key} {'x'.join(map(str, parameter.shape))}"
        for key, parameter in model.named_parameters()
    )
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        "epsilon": model.blocks[0].norm1.eps,
        "img_size": list(model.patch_embed.img_size),
        "pool": model.global_pool,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))

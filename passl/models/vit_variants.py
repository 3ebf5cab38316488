"""The named sizes of the vision transformer: PASSL's, Google's and timm's.

Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words" (tiny to huge); Zhai et al. 2022,
"Scaling Vision Transformers" (g, G); timm for its own names.

A name in PASSL's spelling (``ViT_base_patch16_224``) has PASSL's settings; timm's spelling
(``vit_base_patch16_224``) and Google's (``ViT-B_16``) have theirs.  Where all agree they are
aliases.  ``docs/models.md`` lists the differences.
"""

from __future__ import annotations

from typing import Any

from passl.models.vision_transformer import VisionTransformer
from passl.registry import MODELS

__all__: list[str] = []

_TINY: dict[str, Any] = {
    "embed_dim": 192, "depth": 12, "num_heads": 3,
    "qkv_bias": True, "epsilon": 1e-6,
}
_SMALL: dict[str, Any] = {
    "embed_dim": 384, "depth": 12, "num_heads": 6,
    "qkv_bias": True, "epsilon": 1e-6,
}
_BASE: dict[str, Any] = {
    "embed_dim": 768, "depth": 12, "num_heads": 12,
    "qkv_bias": True, "epsilon": 1e-6,
}
_LARGE: dict[str, Any] = {
    "embed_dim": 1024, "depth": 24, "num_heads": 16,
    "qkv_bias": True, "epsilon": 1e-6,
}
_HUGE: dict[str, Any] = {
    "embed_dim": 1280, "depth": 32, "num_heads": 16,
    "qkv_bias": True, "epsilon": 1e-6,
}
# PASSL's huge differs from its other sizes in two settings, which look like an oversight; kept,
# because its checkpoints have no such biases.
_PASSL_HUGE: dict[str, Any] = {
    "embed_dim": 1280, "depth": 32, "num_heads": 16,
    "qkv_bias": False, "epsilon": 1e-5,
}
_GIANT: dict[str, Any] = {  # hidden 6144
    "embed_dim": 1408, "depth": 40, "num_heads": 16, "mlp_ratio": 4.364,
    "qkv_bias": True, "epsilon": 1e-6,
}
_GIGANTIC: dict[str, Any] = {  # hidden 8192
    "embed_dim": 1664, "depth": 48, "num_heads": 16, "mlp_ratio": 4.9231,
    "qkv_bias": True, "epsilon": 1e-6,
}
_6B: dict[str, Any] = {  # hidden 11495
    "embed_dim": 2320, "depth": 80, "num_heads": 16, "mlp_ratio": 4.955,
    "qkv_bias": True, "epsilon": 1e-6,
}

# PASSL's, and the sizes on which everybody agrees.
MODELS.variant(
    "ViT_tiny_patch16_224", VisionTransformer, **_TINY, patch_size=16, img_size=224,
    aliases=("vit_tiny_patch16_224", "ViT-Ti_16"),
)
MODELS.variant(
    "ViT_tiny_patch16_384", VisionTransformer, **_TINY, patch_size=16, img_size=384,
    aliases=("vit_tiny_patch16_384",),
)
MODELS.variant(
    "ViT_small_patch8_224", VisionTransformer, **_SMALL, patch_size=8, img_size=224,
    aliases=("vit_small_patch8_224",),
)
MODELS.variant(
    "ViT_small_patch16_224", VisionTransformer, **_SMALL, patch_size=16, img_size=224,
    aliases=("vit_small_patch16_224", "ViT-S_16"),
)
MODELS.variant(
    "ViT_small_patch16_384", VisionTransformer, **_SMALL, patch_size=16, img_size=384,
    aliases=("vit_small_patch16_384",),
)
MODELS.variant(
    "ViT_small_patch32_224", VisionTransformer, **_SMALL, patch_size=32, img_size=224,
    aliases=("vit_small_patch32_224", "ViT-S_32"),
)
MODELS.variant(
    "ViT_small_patch32_384", VisionTransformer, **_SMALL, patch_size=32, img_size=384,
    aliases=("vit_small_patch32_384",),
)
MODELS.variant(
    "ViT_base_patch8_224", VisionTransformer, **_BASE, patch_size=8, img_size=224,
    aliases=("vit_base_patch8_224", "ViT-B_8"),
)
MODELS.variant(
    "ViT_base_patch16_224", VisionTransformer, **_BASE, patch_size=16, img_size=224,
    representation_size=768,
)
MODELS.variant(
    "ViT_base_patch16_384", VisionTransformer, **_BASE, patch_size=16, img_size=384,
    aliases=("vit_base_patch16_384",),
)
MODELS.variant(
    "ViT_base_patch32_224", VisionTransformer, **_BASE, patch_size=32, img_size=224,
    representation_size=768,
)
MODELS.variant(
    "ViT_base_patch32_384", VisionTransformer, **_BASE, patch_size=32, img_size=384,
    aliases=("vit_base_patch32_384",),
)
MODELS.variant(
    "ViT_large_patch14_224", VisionTransformer, **_LARGE, patch_size=14, img_size=224,
    aliases=("vit_large_patch14_224",),
)
MODELS.variant(
    "ViT_large_patch16_224", VisionTransformer, **_LARGE, patch_size=16, img_size=224,
    representation_size=1024,
)
MODELS.variant(
    "ViT_large_patch16_384", VisionTransformer, **_LARGE, patch_size=16, img_size=384,
    aliases=("vit_large_patch16_384",),
)
MODELS.variant(
    "ViT_large_patch32_224", VisionTransformer, **_LARGE, patch_size=32, img_size=224,
    representation_size=1024,
)
MODELS.variant(
    "ViT_large_patch32_384", VisionTransformer, **_LARGE, patch_size=32, img_size=384,
    aliases=("vit_large_patch32_384",),
)
MODELS.variant(
    "ViT_huge_patch14_224", VisionTransformer, **_PASSL_HUGE, patch_size=14, img_size=224,
    representation_size=1280,
)
# 384 pixels are 27 patches and 6 pixels, which PASSL's convolution leaves out.
MODELS.variant(
    "ViT_huge_patch14_384", VisionTransformer, **_PASSL_HUGE, patch_size=14, img_size=384,
    ignore_border=True,
)
MODELS.variant(
    "ViT_g_patch14_224", VisionTransformer, **_GIANT, patch_size=14, img_size=224,
    representation_size=1408,
)
MODELS.variant(
    "ViT_G_patch14_224", VisionTransformer, **_GIGANTIC, patch_size=14, img_size=224,
    representation_size=1664,
)
MODELS.variant(
    "ViT_6B_patch14_224", VisionTransformer, **_6B, patch_size=14, img_size=224,
    representation_size=2320,
)

# timm's and Google's, where PASSL's model of that size has a representation layer.
MODELS.variant(
    "vit_base_patch16_224", VisionTransformer, **_BASE, patch_size=16, img_size=224,
    aliases=("ViT-B_16",),
)
MODELS.variant(
    "vit_base_patch32_224", VisionTransformer, **_BASE, patch_size=32, img_size=224,
    aliases=("ViT-B_32",),
)
MODELS.variant("vit_large_patch16_224", VisionTransformer, **_LARGE, patch_size=16, img_size=224)
MODELS.variant(
    "vit_large_patch32_224", VisionTransformer, **_LARGE, patch_size=32, img_size=224,
    aliases=("ViT-L_32",),
)
MODELS.variant("vit_huge_patch14_224", VisionTransformer, **_HUGE, patch_size=14, img_size=224)
MODELS.variant("vit_giant_patch14_224", VisionTransformer, **_GIANT, patch_size=14, img_size=224)
MODELS.variant(
    "vit_gigantic_patch14_224", VisionTransformer, **_GIGANTIC, patch_size=14, img_size=224,
)

# Google's with dropout.
MODELS.variant(
    "ViT-L_16", VisionTransformer, **_LARGE, patch_size=16, img_size=224, drop_rate=0.1,
)
MODELS.variant("ViT-H_14", VisionTransformer, **_HUGE, patch_size=14, img_size=224, drop_rate=0.1)

# timm's with the average of the patches in place of a class token.
_MEDIUM_GAP: dict[str, Any] = {
    "embed_dim": 512, "depth": 12, "num_heads": 8, "patch_size": 16,
    "qkv_bias": False, "epsilon": 1e-6, "init_values": 1e-6,
    "class_token": False, "global_pool": "avg", "fc_norm": False,
}
MODELS.variant("vit_medium_patch16_gap_240", VisionTransformer, **_MEDIUM_GAP, img_size=240)
MODELS.variant("vit_medium_patch16_gap_256", VisionTransformer, **_MEDIUM_GAP, img_size=256)
MODELS.variant("vit_medium_patch16_gap_384", VisionTransformer, **_MEDIUM_GAP, img_size=384)
MODELS.variant(
    "vit_base_patch16_gap_224", VisionTransformer, patch_size=16, img_size=224,
    embed_dim=768, depth=12, num_heads=16, qkv_bias=True, epsilon=1e-6,
    class_token=False, global_pool="avg", fc_norm=False,
)

# timm's with registers and the average of the patches.
_REGISTERS_GAP: dict[str, Any] = {
    "patch_size": 16, "img_size": 256, "qkv_bias": True, "epsilon": 1e-6, "init_values": 1e-5,
    "class_token": False, "no_embed_class": True, "global_pool": "avg",
}
_WEE: dict[str, Any] = {"embed_dim": 256, "depth": 14, "num_heads": 4, "mlp_ratio": 5.0}
_LITTLE: dict[str, Any] = {"embed_dim": 320, "depth": 14, "num_heads": 5, "mlp_ratio": 5.6}
_MEDIUM: dict[str, Any] = {"embed_dim": 512, "depth": 12, "num_heads": 8}
_BETWIXT: dict[str, Any] = {"embed_dim": 640, "depth": 12, "num_heads": 10}
MODELS.variant(
    "vit_wee_patch16_reg1_gap_256", VisionTransformer, **_REGISTERS_GAP, **_WEE, reg_tokens=1,
)
MODELS.variant(
    "vit_little_patch16_reg1_gap_256", VisionTransformer, **_REGISTERS_GAP, **_LITTLE,
    reg_tokens=1,
)
MODELS.variant(
    "vit_little_patch16_reg4_gap_256", VisionTransformer, **_REGISTERS_GAP, **_LITTLE,
    reg_tokens=4,
)
MODELS.variant(
    "vit_medium_patch16_reg1_gap_256", VisionTransformer, **_REGISTERS_GAP, **_MEDIUM,
    reg_tokens=1,
)
MODELS.variant(
    "vit_medium_patch16_reg4_gap_256", VisionTransformer, **_REGISTERS_GAP, **_MEDIUM,
    reg_tokens=4,
)
MODELS.variant(
    "vit_betwixt_patch16_reg1_gap_256", VisionTransformer, **_REGISTERS_GAP, **_BETWIXT,
    reg_tokens=1,
)
MODELS.variant(
    "vit_betwixt_patch16_reg4_gap_256", VisionTransformer, **_REGISTERS_GAP, **_BETWIXT,
    reg_tokens=4,
)

# FlexiViT (Beyer et al. 2023): patches of any size, 16 as published.
MODELS.variant(
    "flexivit_small", VisionTransformer, **_SMALL, patch_size=16, img_size=240,
    no_embed_class=True,
)
MODELS.variant(
    "flexivit_base", VisionTransformer, **_BASE, patch_size=16, img_size=240, no_embed_class=True,
)
MODELS.variant(
    "flexivit_large", VisionTransformer, **_LARGE, patch_size=16, img_size=240,
    no_embed_class=True,
)

# DINOv2 (Oquab et al. 2023), and with registers (Darcet et al. 2023): features, no classes.
_DINOV2: dict[str, Any] = {
    "patch_size": 14, "img_size": 518, "class_num": 0, "init_values": 1e-5,
}
_REGISTERS: dict[str, Any] = {"reg_tokens": 4, "no_embed_class": True}
MODELS.variant("vit_small_patch14_dinov2", VisionTransformer, **_SMALL, **_DINOV2)
MODELS.variant("vit_base_patch14_dinov2", VisionTransformer, **_BASE, **_DINOV2)
MODELS.variant("vit_large_patch14_dinov2", VisionTransformer, **_LARGE, **_DINOV2)
MODELS.variant(
    "vit_small_patch14_reg4_dinov2", VisionTransformer, **_SMALL, **_DINOV2, **_REGISTERS,
)
MODELS.variant(
    "vit_base_patch14_reg4_dinov2", VisionTransformer, **_BASE, **_DINOV2, **_REGISTERS,
)
MODELS.variant(
    "vit_large_patch14_reg4_dinov2", VisionTransformer, **_LARGE, **_DINOV2, **_REGISTERS,
)

# The image towers of CLIP (Radford et al. 2021): with the exact GELU as OpenCLIP trains them, and
# with quick GELU as OpenAI did.
_CLIP_BASE: dict[str, Any] = {
    "embed_dim": 768, "depth": 12, "num_heads": 12, "img_size": 224,
    "qkv_bias": True, "epsilon": 1e-5, "pre_norm": True,
}
_CLIP_LARGE: dict[str, Any] = {
    "embed_dim": 1024, "depth": 24, "num_heads": 16, "img_size": 224,
    "qkv_bias": True, "epsilon": 1e-5, "pre_norm": True,
}
MODELS.variant("vit_base_patch32_clip_224", VisionTransformer, **_CLIP_BASE, patch_size=32)
MODELS.variant("vit_base_patch16_clip_224", VisionTransformer, **_CLIP_BASE, patch_size=16)
MODELS.variant("vit_large_patch14_clip_224", VisionTransformer, **_CLIP_LARGE, patch_size=14)
MODELS.variant(
    "vit_base_patch32_clip_quickgelu_224", VisionTransformer, **_CLIP_BASE, patch_size=32,
    act="quick_gelu",
)
MODELS.variant(
    "vit_base_patch16_clip_quickgelu_224", VisionTransformer, **_CLIP_BASE, patch_size=16,
    act="quick_gelu",
)
MODELS.variant(
    "vit_large_patch14_clip_quickgelu_224", VisionTransformer, **_CLIP_LARGE, patch_size=14,
    act="quick_gelu",
)

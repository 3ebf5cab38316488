"""The numbers behind :mod:`passl.models.known_weights`: file, model, resolution, accuracy."""

from __future__ import annotations

from typing import Optional

__all__ = [
    "AUGREG",
    "AUGREG_21K",
    "DEIT",
    "DEIT3",
    "DINOV2",
    "GOOGLE",
    "ILLAMA",
    "PASSL",
    "VIT_LLAMA",
]

_I21K, _I1K, _SAM = "imagenet21k", "imagenet21k+imagenet2012", "sam"
_ZERO_HEAD = "Its classifier is all zeros."

#: (name, model, folder, resolution, accuracy, note).  Source: google-research/vision_transformer,
#: README; the list is that of ViT-pytorch and ViT.pytorch too.  Accuracies at 384 from timm's
#: results-imagenet.csv.
GOOGLE: tuple[tuple[str, str, str, int, Optional[float], str], ...] = (
    ("ViT-B_16", "ViT_base_patch16_224", _I21K, 224, None, ""),
    ("ViT-B_32", "ViT_base_patch32_224", _I21K, 224, None, ""),
    ("ViT-L_16", "ViT_large_patch16_224", _I21K, 224, None, ""),
    ("ViT-L_32", "ViT_large_patch32_224", _I21K, 224, None, _ZERO_HEAD),
    ("ViT-H_14", "vit_huge_patch14_224", _I21K, 224, None, _ZERO_HEAD),
    ("R50+ViT-B_16", "R50_ViT_base_patch16_224", _I21K, 224, None, ""),
    ("ViT-B_16-224", "vit_base_patch16_224", _I1K, 224, 81.2, ""),
    ("ViT-B_16", "ViT_base_patch16_384", _I1K, 384, 84.212, ""),
    ("ViT-B_32", "ViT_base_patch32_384", _I1K, 384, None, ""),
    ("ViT-L_16-224", "vit_large_patch16_224", _I1K, 224, 82.7, ""),
    ("ViT-L_16", "ViT_large_patch16_384", _I1K, 384, None, ""),
    ("ViT-L_32", "ViT_large_patch32_384", _I1K, 384, 81.508, ""),
    ("ViT-B_16", "vit_base_patch16_224", _SAM, 224, 80.246, ""),
    ("ViT-B_32", "vit_base_patch32_224", _SAM, 224, None, ""),
)

_TI = "Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0"
_S32 = "S_32-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0"
_S16 = "S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0"
_S16_1K = "S_16-i1k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.0-sd_0.0"
_B32 = "B_32-i21k-300ep-lr_0.001-aug_medium1-wd_0.03-do_0.0-sd_0.0"
_B32_384 = "B_32-i21k-300ep-lr_0.001-aug_light1-wd_0.1-do_0.0-sd_0.0"
_B32_1K = "B_32-i1k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.1-sd_0.1"
_B16 = "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0"
_B16_1K = "B_16-i1k-300ep-lr_0.001-aug_strong2-wd_0.1-do_0.1-sd_0.1"
_B8 = "B_8-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0"
_L16 = "L_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1"
_R_TI = "R_Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0"
_R26 = "R26_S_32-i21k-300ep-lr_0.001-aug_light0-wd_0.03-do_0.1-sd_0.1"
_R26_384 = "R26_S_32-i21k-300ep-lr_0.001-aug_medium2-wd_0.03-do_0.0-sd_0.0"
_R50 = "R50_L_32-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1"
_R50_384 = "R50_L_32-i21k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.0-sd_0.0"

#: (file before "--", learning rate of the fine-tuning, model, resolution, accuracy).  Source: the
#: addresses of timm 1.0.31; accuracies of timm's results-imagenet.csv.
AUGREG: tuple[tuple[str, str, str, int, Optional[float]], ...] = (
    (_TI, "0.03", "ViT_tiny_patch16_224", 224, 75.452),
    (_TI, "0.03", "ViT_tiny_patch16_384", 384, 78.438),
    (_S32, "0.03", "ViT_small_patch32_224", 224, 76.010),
    (_S32, "0.03", "ViT_small_patch32_384", 384, 80.476),
    (_S16, "0.03", "ViT_small_patch16_224", 224, 81.402),
    (_S16, "0.03", "ViT_small_patch16_384", 384, 83.814),
    (_S16_1K, "0.01", "ViT_small_patch16_224", 224, 78.842),
    (_S16_1K, "0.01", "ViT_small_patch16_384", 384, None),
    (_B32, "0.03", "vit_base_patch32_224", 224, 80.732),
    (_B32_384, "0.03", "ViT_base_patch32_384", 384, 83.358),
    (_B32_1K, "0.01", "vit_base_patch32_224", 224, None),
    (_B32_1K, "0.01", "ViT_base_patch32_384", 384, None),
    (_B16, "0.01", "vit_base_patch16_224", 224, 84.534),
    (_B16, "0.01", "ViT_base_patch16_384", 384, 86.010),
    (_B16_1K, "0.01", "vit_base_patch16_224", 224, 79.154),
    (_B16_1K, "0.01", "ViT_base_patch16_384", 384, None),
    (_B8, "0.01", "ViT_base_patch8_224", 224, 85.838),
    (_L16, "0.01", "vit_large_patch16_224", 224, 85.856),
    (_L16, "0.01", "ViT_large_patch16_384", 384, 87.096),
    (_R_TI, "0.03", "R_ViT_tiny_patch16_224", 224, 71.800),
    (_R_TI, "0.03", "R_ViT_tiny_patch16_384", 384, 75.962),
    (_R26, "0.03", "R26_ViT_small_patch32_224", 224, 81.856),
    (_R26_384, "0.03", "R26_ViT_small_patch32_384", 384, 84.066),
    (_R50, "0.01", "R50_ViT_large_patch32_224", 224, 84.434),
    (_R50_384, "0.01", "R50_ViT_large_patch32_384", 384, 86.188),
)

#: (file, model); classifiers of 21843 classes.
AUGREG_21K: tuple[tuple[str, str], ...] = (
    (_TI, "ViT_tiny_patch16_224"),
    (_S32, "ViT_small_patch32_224"),
    (_S16, "ViT_small_patch16_224"),
    (_B32, "vit_base_patch32_224"),
    (_B16, "vit_base_patch16_224"),
    (_B8, "ViT_base_patch8_224"),
    (_L16, "vit_large_patch16_224"),
    (_R_TI, "R_ViT_tiny_patch16_224"),
    (_R26_384, "R26_ViT_small_patch32_224"),
    (_R50_384, "R50_ViT_large_patch32_224"),
)

#: (file, model, resolution, accuracy).  Source: facebookresearch/deit, README.
DEIT: tuple[tuple[str, str, int, Optional[float]], ...] = (
    ("deit_tiny_patch16_224-a1311bcf.pth", "DeiT_tiny_patch16_224", 224, 72.2),
    ("deit_small_patch16_224-cd65a155.pth", "DeiT_small_patch16_224", 224, 79.9),
    ("deit_base_patch16_224-b5f2ef4d.pth", "DeiT_base_patch16_224", 224, 81.8),
    ("deit_base_patch16_384-8de9b5d1.pth", "DeiT_base_patch16_384", 384, 82.9),
    ("deit_tiny_distilled_patch16_224-b40b3cf7.pth", "DeiT_tiny_distilled_patch16_224", 224, 74.5),
    ("deit_small_distilled_patch16_224-649709d9.pth", "DeiT_small_distilled_patch16_224", 224,
     81.2),
    ("deit_base_distilled_patch16_224-df68dfff.pth", "DeiT_base_distilled_patch16_224", 224, 83.4),
    ("deit_base_distilled_patch16_384-d0272ac0.pth", "DeiT_base_distilled_patch16_384", 384, 85.2),
)

#: As :data:`DEIT`.  Source: facebookresearch/deit, README_revenge.md.
DEIT3: tuple[tuple[str, str, int, Optional[float]], ...] = (
    ("deit_3_small_224_1k.pth", "deit3_small_patch16_224", 224, 81.4),
    ("deit_3_small_384_1k.pth", "deit3_small_patch16_384", 384, None),
    ("deit_3_medium_224_1k.pth", "deit3_medium_patch16_224", 224, 83.0),
    ("deit_3_base_224_1k.pth", "deit3_base_patch16_224", 224, 83.8),
    ("deit_3_base_384_1k.pth", "deit3_base_patch16_384", 384, None),
    ("deit_3_large_224_1k.pth", "deit3_large_patch16_224", 224, 84.9),
    ("deit_3_large_384_1k.pth", "deit3_large_patch16_384", 384, None),
    ("deit_3_huge_224_1k.pth", "deit3_huge_patch14_224", 224, 85.2),
    ("deit_3_small_224_21k.pth", "deit3_small_patch16_224", 224, 83.1),
    ("deit_3_small_384_21k.pth", "deit3_small_patch16_384", 384, None),
    ("deit_3_medium_224_21k.pth", "deit3_medium_patch16_224", 224, 84.5),
    ("deit_3_base_224_21k.pth", "deit3_base_patch16_224", 224, 85.7),
    ("deit_3_base_384_21k.pth", "deit3_base_patch16_384", 384, None),
    ("deit_3_large_224_21k.pth", "deit3_large_patch16_224", 224, 87.0),
    ("deit_3_large_384_21k.pth", "deit3_large_patch16_384", 384, None),
    ("deit_3_huge_224_21k_v1.pth", "deit3_huge_patch14_224", 224, 87.2),
)

#: (stem, model).  Source: facebookresearch/dinov2, README.
DINOV2: tuple[tuple[str, str], ...] = (
    ("dinov2_vits14", "vit_small_patch14_dinov2"),
    ("dinov2_vitb14", "vit_base_patch14_dinov2"),
    ("dinov2_vitl14", "vit_large_patch14_dinov2"),
    ("dinov2_vits14_reg4", "vit_small_patch14_reg4_dinov2"),
    ("dinov2_vitb14_reg4", "vit_base_patch14_reg4_dinov2"),
    ("dinov2_vitl14_reg4", "vit_large_patch14_reg4_dinov2"),
)

#: (file, model, resolution, accuracy, trained on, arguments).  Source: PASSL,
#: tasks/classification/vit/README.md.
PASSL: tuple[tuple[str, str, int, Optional[float], str, str], ...] = (
    ("imagenet2012-ViT-B_16-224.pdparams", "ViT_base_patch16_224", 224, 75.196, "ImageNet-1k", ""),
    ("imagenet2012-ViT-B_16-384.pdparams", "ViT_base_patch16_384", 384, 77.972, "ImageNet-1k", ""),
    ("imagenet21k-ViT-L_16-224.pdparams", "ViT_large_patch16_224", 224, None, "ImageNet-21k",
     "class_num=21841"),
    ("imagenet21k+imagenet2012-ViT-L_16-384.pdparams", "ViT_large_patch16_384", 384, 85.030,
     "ImageNet-21k, ImageNet-1k", ""),
)

_P21K = "ImageNet-21k-P, ImageNet-1k"

#: (name, model, resolution, accuracy, trained on).  Source: techmonsterwang/iLLaMA, README at HEAD.
ILLAMA: tuple[tuple[str, str, int, Optional[float], str], ...] = (
    ("illama-tiny-in1k-75.0", "iLLaMA_tiny_patch16_224", 224, 75.0, "ImageNet-1k"),
    ("illama-small-in1k-79.9", "iLLaMA_small_patch16_224", 224, 79.9, "ImageNet-1k"),
    ("illama-base-in1k-81.6", "iLLaMA_base_patch16_224", 224, 81.6, "ImageNet-1k"),
    ("illama-base-in1k-384-83.0", "iLLaMA_base_patch16_384", 384, 83.0, "ImageNet-1k"),
    ("illama-base-in21kin1k-224-83.6", "iLLaMA_base_patch16_224", 224, 83.6, _P21K),
    ("illama-base-in21kin1k-384-85.0", "iLLaMA_base_patch16_384", 384, 85.0, _P21K),
    ("illama-large-in21kin1k-224-84.8", "iLLaMA_large_patch16_224", 224, 84.8, _P21K),
    ("illama-large-in21kin1k-384-86.0", "iLLaMA_large_patch16_384", 384, 86.0, _P21K),
)

#: (name, model, accuracy, page, note).  Source: ziqipang/LM4VisualEncoding,
#: image_classification/README.md.
VIT_LLAMA: tuple[tuple[str, str, Optional[float], str, str], ...] = (
    ("lm4-vit-small", "ViT_small_patch16_224", 80.1,
     "https://uofi.box.com/s/qbghai9lm4ol1a94vqcrrcwzi97iauf4", ""),
    ("lm4-vit-small-llama", "ViT_LLaMA_small_patch16_224", 80.7,
     "https://uofi.box.com/s/qccs3qeny9ea52mu6pu8jdiiksa49m1s",
     " It holds the frozen block of LLaMA-7B, whose licence applies."),
)

"""The tables, one module an origin; a new origin is a new module and one line here."""

from __future__ import annotations

from passl.checkpoint.convert.families.google import GOOGLE
from passl.checkpoint.convert.families.huggingface import HUGGINGFACE, HUGGINGFACE_DINOV2
from passl.checkpoint.convert.families.llama import ILLAMA, VIT_LLAMA
from passl.checkpoint.convert.families.lucidrains import LUCIDRAINS
from passl.checkpoint.convert.families.paddle import PASSL
from passl.checkpoint.convert.families.timm import DEIT, DINOV2, TIMM
from passl.checkpoint.convert.families.torchvision import TORCHVISION_RESNET
from passl.checkpoint.convert.families.vit_pytorch import VIT_PYTORCH
from passl.checkpoint.convert.rules import Family

__all__ = ["FAMILIES"]

#: By name, in the order in which equally good matches are preferred.
FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        PASSL,
        TIMM,
        DEIT,
        DINOV2,
        GOOGLE,
        HUGGINGFACE,
        HUGGINGFACE_DINOV2,
        VIT_PYTORCH,
        LUCIDRAINS,
        ILLAMA,
        VIT_LLAMA,
        TORCHVISION_RESNET,
    )
}

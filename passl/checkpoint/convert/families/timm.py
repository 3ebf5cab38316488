"""timm's names, which are also DeiT's, DINOv2's and ours; torch's layout.

Source: timm 1.0 (``vision_transformer.py``, ``deit.py``, ``vision_transformer_hybrid.py``),
facebookresearch/deit, facebookresearch/dinov2.
"""

from __future__ import annotations

from typing import Union

from passl.checkpoint.convert.families.common import NO_HEAD, NO_MASK, NO_PRE_LOGITS
from passl.checkpoint.convert.rules import Drop, Family, Rule, linear, norm

__all__ = ["DEIT", "DINOV2", "TIMM", "vit_rows"]

_BACKBONE = "patch_embed.backbone"
_UNIT = _BACKBONE + ".stages.{s}.blocks.{b}"


def vit_rows(weight: str) -> tuple[Union[Rule, Drop], ...]:
    """The rows of a model whose names are ours already.

    Args:
        weight: the operation for the weight of a Linear layer: ``transpose`` or ``copy``.
    """
    return (
        Rule("cls_token", ("cls_token",)),
        Rule("dist_token", ("dist_token",)),
        Rule("reg_token", ("reg_token",)),
        Rule("pos_embed", ("pos_embed",)),
        *norm("patch_embed.proj", "patch_embed.proj"),
        *_backbone_rows(),
        *norm("norm_pre", "norm_pre"),
        *norm("blocks.{i}.norm1", "blocks.{i}.norm1"),
        *linear("blocks.{i}.attn.qkv", "blocks.{i}.attn.qkv", weight),
        *norm("blocks.{i}.attn.q_norm", "blocks.{i}.attn.q_norm"),
        *norm("blocks.{i}.attn.k_norm", "blocks.{i}.attn.k_norm"),
        *linear("blocks.{i}.attn.proj", "blocks.{i}.attn.proj", weight),
        Rule("blocks.{i}.ls1.gamma", ("blocks.{i}.ls1.gamma",)),
        *norm("blocks.{i}.norm2", "blocks.{i}.norm2"),
        *linear("blocks.{i}.mlp.fc1", "blocks.{i}.mlp.fc1", weight),
        *linear("blocks.{i}.mlp.fc2", "blocks.{i}.mlp.fc2", weight),
        Rule("blocks.{i}.ls2.gamma", ("blocks.{i}.ls2.gamma",)),
        *norm("norm", "norm"),
        *norm("fc_norm", "fc_norm"),
        *_optional(NO_PRE_LOGITS, *linear("pre_logits.fc", "pre_logits.fc", weight)),
        *_optional(NO_HEAD, *linear("head", "head", weight)),
        *_optional(NO_HEAD, *linear("head_dist", "head_dist", weight)),
    )


def _optional(reason: str, *rules: Rule) -> tuple[Rule, ...]:
    return tuple(
        Rule(rule.target, rule.sources, rule.operation, if_absent=reason) for rule in rules
    )


def _backbone_rows() -> tuple[Rule, ...]:
    """A hybrid's ResNet: convolutions without bias, and group norms."""
    convolutions = (
        f"{_BACKBONE}.stem.conv",
        f"{_BACKBONE}.conv",  # R+ViT-Ti has nothing but a stem
        *(f"{_UNIT}.{part}" for part in ("conv1", "conv2", "conv3", "downsample.conv")),
    )
    norms = (
        f"{_BACKBONE}.stem.norm",
        f"{_BACKBONE}.norm",
        *(f"{_UNIT}.{part}" for part in ("norm1", "norm2", "norm3", "downsample.norm")),
    )
    return (
        *(Rule(f"{name}.weight", (f"{name}.weight",)) for name in convolutions),
        *(rule for name in norms for rule in norm(name, name)),
    )


TIMM = Family(
    name="timm",
    title="timm's vision transformers, DeiT, DeiT-III and hybrids",
    rows=vit_rows("transpose"),
    pos_embed_method="bicubic_antialias",
    notes_if=(
        (f"{_BACKBONE}.",
         "timm's hybrids have other constants than Google's: give the model hybrid_style=timm for "
         "weights that were trained with timm."),
        ("norm_pre.",
         "CLIP of OpenAI, DFN and MetaCLIP (timm's names with quickgelu) was trained with "
         "x * sigmoid(1.702 x) in place of GELU, which no file says: give the model "
         "act=quick_gelu, or the name with quickgelu, for such weights and for no others of CLIP."),
    ),
    source="timm 1.0.31, state dicts of its vision transformers",
)

# DeiT-III keeps its LayerScale beside the layers instead of in one of its own.
DEIT = Family(
    name="deit",
    title="facebookresearch/deit: DeiT, distilled DeiT, DeiT-III",
    rows=(
        Rule("blocks.{i}.ls1.gamma", ("blocks.{i}.gamma_1",)),
        Rule("blocks.{i}.ls2.gamma", ("blocks.{i}.gamma_2",)),
        *vit_rows("transpose"),
    ),
    pos_embed_method="bicubic",
    source="facebookresearch/deit, models.py and models_v2.py",
)

DINOV2 = Family(
    name="dinov2",
    title="facebookresearch/dinov2, with and without registers",
    rows=(
        # With registers neither class token nor registers have a position in our model (as in
        # timm): the class token takes its own along.
        Rule("reg_token", ("register_tokens",)),
        Rule("cls_token", ("cls_token", "pos_embed"), "class_plus_position",
             when="register_tokens"),
        Rule("pos_embed", ("pos_embed",), "drop_class_position", when="register_tokens"),
        *vit_rows("transpose"),
        Drop("mask_token", NO_MASK),
    ),
    pos_embed_method="bicubic",
    source="facebookresearch/dinov2, as timm 1.0.31 reads it",
)

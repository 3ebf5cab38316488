"""Google's ``.npz`` files: the original ViT, AugReg, SAM, hybrids, and big_vision.

Flax stores a Linear kernel [in, out], as Paddle does, and keeps the heads of an attention on an
axis of their own; a convolution is [height, width, in, out]; group norms are [1, 1, 1, C].

Source: google-research/vision_transformer and google-research/big_vision, names of the released
files.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import Optional

from passl.checkpoint.convert.families.common import NO_HEAD, NO_PRE_LOGITS
from passl.checkpoint.convert.rules import Drop, Family, Rule

__all__ = ["GOOGLE"]

_BLOCK = "Transformer/encoderblock_{i}"
_STACK = "Transformer/encoderblock"  # big_vision with scan: all layers along the first axis
_BACKBONE = "patch_embed.backbone"
_FIRST_UNIT = "block1/unit1/conv1/kernel"
_UNIT = _BACKBONE + ".stages.{s-1}.blocks.{b-1}"


def _norm(target: str, source: str, stacked: bool = False) -> tuple[Rule, ...]:
    return (
        Rule(f"{target}.weight", (f"{source}/scale",), stacked=stacked),
        Rule(f"{target}.bias", (f"{source}/bias",), stacked=stacked),
    )


def _dense(
    target: str, source: str, operation: str = "copy", stacked: bool = False, if_absent: str = ""
) -> tuple[Rule, ...]:
    return (
        Rule(f"{target}.weight", (f"{source}/kernel",), operation, stacked, if_absent=if_absent),
        Rule(f"{target}.bias", (f"{source}/bias",), stacked=stacked, if_absent=if_absent),
    )


def _block(
    source: str, norm1: str, attention: str, norm2: str, mlp: str, stacked: bool = False
) -> tuple[Rule, ...]:
    """The rows of a block; flax numbered its submodules in two ways over time."""
    target, heads = "blocks.{i}", f"{source}/{attention}"
    parts = ("query", "key", "value")
    return (
        *_norm(f"{target}.norm1", f"{source}/{norm1}", stacked),
        Rule(f"{target}.attn.qkv.weight", tuple(f"{heads}/{part}/kernel" for part in parts),
             "concat_qkv_kernels", stacked),
        Rule(f"{target}.attn.qkv.bias", tuple(f"{heads}/{part}/bias" for part in parts),
             "concat_qkv_biases", stacked),
        *_dense(f"{target}.attn.proj", f"{heads}/out", "merge_heads", stacked),
        *_norm(f"{target}.norm2", f"{source}/{norm2}", stacked),
        *_dense(f"{target}.mlp.fc1", f"{source}/{mlp}/Dense_0", stacked=stacked),
        *_dense(f"{target}.mlp.fc2", f"{source}/{mlp}/Dense_1", stacked=stacked),
    )


def _group_norm(target: str, source: str) -> tuple[Rule, ...]:
    return (
        Rule(f"{target}.weight", (f"{source}/scale",), "flatten"),
        Rule(f"{target}.bias", (f"{source}/bias",), "flatten"),
    )


def _root(
    target: str, *, when: Optional[str] = None, unless: Optional[str] = None
) -> tuple[Rule, ...]:
    """What comes before the blocks; R+ViT-Ti_16 has nothing else."""
    rules = (
        Rule(f"{target}.conv.weight", ("conv_root/kernel",), "hwio_to_oihw"),
        *_group_norm(f"{target}.norm", "gn_root"),
    )
    return tuple(replace(rule, when=when, unless=unless) for rule in rules)


def _backbone() -> tuple[Rule, ...]:
    """A hybrid's ResNet; Google counts its blocks and units from one."""
    unit = "block{s}/unit{b}"
    convolutions = [(f"{_UNIT}.conv{n}", f"{unit}/conv{n}") for n in (1, 2, 3)]
    convolutions += [(f"{_UNIT}.downsample.conv", f"{unit}/conv_proj")]
    norms = [(f"{_UNIT}.norm{n}", f"{unit}/gn{n}") for n in (1, 2, 3)]
    norms += [(f"{_UNIT}.downsample.norm", f"{unit}/gn_proj")]
    return (
        *_root(f"{_BACKBONE}.stem", when=_FIRST_UNIT),
        *_root(_BACKBONE, unless=_FIRST_UNIT),
        *(Rule(f"{target}.weight", (f"{source}/kernel",), "hwio_to_oihw")
          for target, source in convolutions),
        *chain.from_iterable(_group_norm(target, source) for target, source in norms),
    )


GOOGLE = Family(
    name="google",
    title="Google's .npz: ViT, AugReg, SAM, hybrids, big_vision",
    rows=(
        Rule("cls_token", ("cls",)),
        Rule("pos_embed", ("Transformer/posembed_input/pos_embedding",)),
        # big_vision adds the positions before the class token is there; a model where it has a
        # position computes the same if that is zero.
        Rule("pos_embed", ("pos_embedding",), alternative="zero_class_position"),
        *_dense("patch_embed.proj", "embedding", "hwio_to_oihw"),
        *_backbone(),
        *_block(_BLOCK, "LayerNorm_0", "MultiHeadDotProductAttention_1", "LayerNorm_2",
                "MlpBlock_3"),
        *_block(_BLOCK, "LayerNorm_0", "MultiHeadDotProductAttention_0", "LayerNorm_1",
                "MlpBlock_0"),
        *_block(_STACK, "LayerNorm_0", "MultiHeadDotProductAttention_0", "LayerNorm_1",
                "MlpBlock_0", stacked=True),
        *_norm("norm", "Transformer/encoder_norm"),
        *_dense("pre_logits.fc", "pre_logits", if_absent=NO_PRE_LOGITS),
        *_dense("head", "head", if_absent=NO_HEAD),
        Drop("opt/*", "the state of the optimizer"),
        Drop("extra/*", "the state of a training run"),
        Drop("params/txt/*", "the text tower of an image-text model"),
        Drop("params/t", "the temperature of an image-text model"),
        Drop("params/b", "the bias of an image-text model"),
    ),
    # Training dumps of flax, big_vision, and the image tower of its image-text models.
    strip="opt/target/|params/img/|params/(?!txt/|t$|b$)",
    layout="flax",
    pos_embed_method="zoom",
    notes=(
        "Google's own code uses the tanh form of GELU; the erf form, as timm uses it, differs from "
        "it by up to 4.7e-4.",
    ),
    source="google-research/vision_transformer, google-research/big_vision",
)

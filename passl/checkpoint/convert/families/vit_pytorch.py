"""jeonsworld/ViT-pytorch and its rebuild ViT.pytorch: ``.bin`` and ``.ckpt`` files.

Source: jeonsworld/ViT-pytorch, ``models/modeling.py`` and ``models/modeling_resnet.py``.
"""

from __future__ import annotations

from passl.checkpoint.convert.families.common import NO_HEAD
from passl.checkpoint.convert.rules import Family, Rule, linear, norm

__all__ = ["VIT_PYTORCH"]

_EMBED = "transformer.embeddings"
_LAYER = "transformer.encoder.layer.{i}"
_RESNET = f"{_EMBED}.hybrid_model"
_SOURCE_UNIT = _RESNET + ".body.block{s}.unit{b}"
_BACKBONE = "patch_embed.backbone"
_UNIT = _BACKBONE + ".stages.{s-1}.blocks.{b-1}"
_QKV = ("query", "key", "value")


def _backbone() -> tuple[Rule, ...]:
    pairs = [(f"{_UNIT}.conv{n}", f"{_SOURCE_UNIT}.conv{n}") for n in (1, 2, 3)]
    pairs += [(f"{_UNIT}.downsample.conv", f"{_SOURCE_UNIT}.downsample")]
    pairs += [(f"{_BACKBONE}.stem.conv", f"{_RESNET}.root.conv")]
    norms = [(f"{_UNIT}.norm{n}", f"{_SOURCE_UNIT}.gn{n}") for n in (1, 2, 3)]
    norms += [(f"{_UNIT}.downsample.norm", f"{_SOURCE_UNIT}.gn_proj")]
    norms += [(f"{_BACKBONE}.stem.norm", f"{_RESNET}.root.gn")]
    return (
        *(Rule(f"{target}.weight", (f"{source}.weight",)) for target, source in pairs),
        *(rule for target, source in norms for rule in norm(target, source)),
    )


VIT_PYTORCH = Family(
    name="vit_pytorch",
    title="jeonsworld/ViT-pytorch and ViT.pytorch",
    rows=(
        Rule("cls_token", (f"{_EMBED}.cls_token",)),
        Rule("pos_embed", (f"{_EMBED}.position_embeddings",)),
        *norm("patch_embed.proj", f"{_EMBED}.patch_embeddings"),
        *_backbone(),
        *norm("blocks.{i}.norm1", f"{_LAYER}.attention_norm"),
        Rule("blocks.{i}.attn.qkv.weight", tuple(f"{_LAYER}.attn.{part}.weight" for part in _QKV),
             "concat_qkv_transposed"),
        Rule("blocks.{i}.attn.qkv.bias", tuple(f"{_LAYER}.attn.{part}.bias" for part in _QKV),
             "concat_qkv_biases"),
        *linear("blocks.{i}.attn.proj", f"{_LAYER}.attn.out"),
        *norm("blocks.{i}.norm2", f"{_LAYER}.ffn_norm"),
        *linear("blocks.{i}.mlp.fc1", f"{_LAYER}.ffn.fc1"),
        *linear("blocks.{i}.mlp.fc2", f"{_LAYER}.ffn.fc2"),
        *norm("norm", "transformer.encoder.encoder_norm"),
        Rule("head.weight", ("head.weight",), "transpose", if_absent=NO_HEAD),
        Rule("head.bias", ("head.bias",), if_absent=NO_HEAD),
    ),
    pos_embed_method="zoom",
    notes_if=(
        (f"{_BACKBONE}.",
         "It computes the ResNet of a hybrid in another way (padding, one norm group a channel in "
         "the shortcut), so one that was trained there gives other logits here."),
    ),
    source="jeonsworld/ViT-pytorch, modeling.py and modeling_resnet.py",
)

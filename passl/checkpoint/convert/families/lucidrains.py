"""lucidrains/vit-pytorch of 2021, as myrtle-vision's classification uses it.

Patches go through a Linear layer over (row, column, channel); the last normalisation is the first
layer of the head; query, key and value have no bias in the older form.

Source: names recorded from MyrtleSoftware/myrtle-vision at d5089bc and 2b3665d.
"""

from __future__ import annotations

from passl.checkpoint.convert.families.common import NO_HEAD
from passl.checkpoint.convert.rules import Drop, Family, Rule, linear, norm

__all__ = ["LUCIDRAINS"]

_ATTENTION = "transformer.layers.{i}.0.fn"
_MLP = "transformer.layers.{i}.1.fn"


LUCIDRAINS = Family(
    name="lucidrains",
    title="lucidrains/vit-pytorch of 2021, myrtle-vision",
    rows=(
        Rule("cls_token", ("cls_token",)),
        Rule("pos_embed", ("pos_embedding",)),
        Rule("patch_embed.proj.weight", ("patch_to_embedding.weight",), "patch_linear_to_conv"),
        Rule("patch_embed.proj.bias", ("patch_to_embedding.bias",)),
        *norm("blocks.{i}.norm1", f"{_ATTENTION}.norm"),
        *linear("blocks.{i}.attn.qkv", f"{_ATTENTION}.fn.to_qkv"),
        *linear("blocks.{i}.attn.proj", f"{_ATTENTION}.fn.to_out.0"),
        *norm("blocks.{i}.norm2", f"{_MLP}.norm"),
        *linear("blocks.{i}.mlp.fc1", f"{_MLP}.fn.net.0"),
        *linear("blocks.{i}.mlp.fc2", f"{_MLP}.fn.net.3"),
        *(rule for head_norm, head in (("mlp_head.0", "mlp_head.1"),
                                       ("decoder.norm", "decoder.linear"))
          for rule in (*norm("norm", head_norm),
                       Rule("head.weight", (f"{head}.weight",), "transpose", if_absent=NO_HEAD),
                       Rule("head.bias", (f"{head}.bias",), if_absent=NO_HEAD))),
        Drop("*detection*", "tokens of a detection head, which a classifier does not use"),
        Drop("distillation_token", "its distillation token has no position and a head of its own; "
                                   "inference does not use it"),
        Drop("distill_mlp.*", "the head of the distillation token; inference does not use it"),
    ),
    strip=r"vit\.",
    epsilon=1e-5,
    pos_embed_method="bicubic",
    notes=("Normalises with an epsilon of 1e-5: give -o epsilon=1e-5.",),
    source="MyrtleSoftware/myrtle-vision, classification",
)

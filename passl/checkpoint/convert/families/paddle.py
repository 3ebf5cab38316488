"""Our own files, and those of PASSL 2 and PLSC: timm's names in Paddle's layout.

PASSL 2 calls the representation layer ``head0``; models that were saved with separate query, key
and value projections are accepted too.  Where a file holds float32 masters of float16 weights
(``master_weights``, by the tensor's name or by Paddle's internal one), the masters are used.

Source: PASSL 2.5 and PLSC, ``vision_transformer.py``.
"""

from __future__ import annotations

from passl.checkpoint.convert.families.common import NO_PRE_LOGITS
from passl.checkpoint.convert.families.llama import illama_rows, vit_llama_rows
from passl.checkpoint.convert.families.timm import vit_rows
from passl.checkpoint.convert.rules import Family, Rule

__all__ = ["PASSL"]


def _separate(part: str, operation: str) -> Rule:
    return Rule(
        f"blocks.{{i}}.attn.qkv.{part}",
        tuple(f"blocks.{{i}}.attn.{letter}_proj.{part}" for letter in "qkv"),
        operation,
    )


PASSL = Family(
    name="passl",
    title="this package, PASSL 2 and PLSC",
    rows=(
        *vit_rows("copy"),
        *illama_rows("copy"),
        *vit_llama_rows("copy"),
        _separate("weight", "concat_qkv_columns"),
        _separate("bias", "concat_qkv_biases"),
        Rule("pre_logits.fc.weight", ("head0.weight",), if_absent=NO_PRE_LOGITS),
        Rule("pre_logits.fc.bias", ("head0.bias",), if_absent=NO_PRE_LOGITS),
    ),
    layout="paddle",
    pos_embed_method="bicubic",
    notes_if=(
        ("patch_embed.backbone.",
         "A hybrid trained with hybrid_style=google, the default, has constants that timm's models "
         "have not, so its logits differ a little there."),
    ),
    source="PASSL 2.5 and PLSC, vision_transformer.py",
)

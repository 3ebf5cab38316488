"""iLLaMA and ViT-LLaMA: timm's names with parts of LLaMA; torch's layout.

Source: techmonsterwang/iLLaMA and ziqipang/LM4VisualEncoding, names of their state dicts.
"""

from __future__ import annotations

from passl.checkpoint.convert.families.timm import vit_rows
from passl.checkpoint.convert.rules import Family, Rule

__all__ = ["ILLAMA", "VIT_LLAMA", "illama_rows", "vit_llama_rows"]

_LAYER = "llama.layers.{i}"


def illama_rows(weight: str) -> tuple[Rule, ...]:
    """What iLLaMA has beyond a vision transformer: the third matrix of SwiGLU."""
    name = "blocks.{i}.mlp.fc3.weight"
    return (Rule(name, (name,), weight),)


def vit_llama_rows(weight: str) -> tuple[Rule, ...]:
    """What ViT-LLaMA has beyond a vision transformer: a block of LLaMA between two projections.

    Args:
        weight: the operation for the weight of a Linear layer: ``transpose`` or ``copy``.
    """
    linears = (
        *(f"{_LAYER}.attention.{part}" for part in ("wq", "wk", "wv", "wo")),
        *(f"{_LAYER}.feed_forward.{part}" for part in ("w1", "w2", "w3")),
        "llama_dim_mapper1",
        "llama_dim_mapper2",
    )
    norms = (f"{_LAYER}.attention_norm", f"{_LAYER}.ffn_norm", "llama.norm")
    return (
        *(Rule(f"{name}.weight", (f"{name}.weight",), weight) for name in linears),
        *(Rule(f"{name}.weight", (f"{name}.weight",)) for name in norms),
    )


ILLAMA = Family(
    name="illama",
    title="iLLaMA",
    rows=(*vit_rows("transpose"), *illama_rows("transpose")),
    pos_embed_method="bicubic",
    source="techmonsterwang/iLLaMA, state dicts of its models",
)

VIT_LLAMA = Family(
    name="vit_llama",
    title="LM4VisualEncoding's ViT-LLaMA",
    rows=(*vit_rows("transpose"), *vit_llama_rows("transpose")),
    pos_embed_method="bicubic",
    source="ziqipang/LM4VisualEncoding, image_classification, state dicts of its models",
)

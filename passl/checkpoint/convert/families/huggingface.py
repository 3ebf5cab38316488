"""The names of Hugging Face's ``ViTModel``, ``DeiTModel`` and ``Dinov2Model``; torch's layout.

Source: transformers, ``modeling_vit.py``, ``modeling_deit.py``, ``modeling_dinov2.py``.
"""

from __future__ import annotations

from passl.checkpoint.convert.families.common import NO_HEAD, NO_MASK, NO_PRE_LOGITS
from passl.checkpoint.convert.rules import Drop, Family, Rule, linear, norm

__all__ = ["HUGGINGFACE", "HUGGINGFACE_DINOV2"]

_LAYER = "encoder.layer.{i}"
_QKV = ("query", "key", "value")


def _attention() -> tuple[Rule, ...]:
    inner = f"{_LAYER}.attention.attention"
    return (
        Rule("blocks.{i}.attn.qkv.weight", tuple(f"{inner}.{part}.weight" for part in _QKV),
             "concat_qkv_transposed"),
        Rule("blocks.{i}.attn.qkv.bias", tuple(f"{inner}.{part}.bias" for part in _QKV),
             "concat_qkv_biases"),
        *linear("blocks.{i}.attn.proj", f"{_LAYER}.attention.output.dense"),
    )


HUGGINGFACE = Family(
    name="huggingface",
    title="Hugging Face transformers: ViT and DeiT",
    rows=(
        Rule("cls_token", ("embeddings.cls_token",)),
        Rule("dist_token", ("embeddings.distillation_token",)),
        Rule("pos_embed", ("embeddings.position_embeddings",)),
        *norm("patch_embed.proj", "embeddings.patch_embeddings.projection"),
        *norm("blocks.{i}.norm1", f"{_LAYER}.layernorm_before"),
        *_attention(),
        *norm("blocks.{i}.norm2", f"{_LAYER}.layernorm_after"),
        *linear("blocks.{i}.mlp.fc1", f"{_LAYER}.intermediate.dense"),
        *linear("blocks.{i}.mlp.fc2", f"{_LAYER}.output.dense"),
        *norm("norm", "layernorm"),
        # The pooler is a Linear with tanh on the class token: the representation layer.
        Rule("pre_logits.fc.weight", ("pooler.dense.weight",), "transpose",
             if_absent=NO_PRE_LOGITS),
        Rule("pre_logits.fc.bias", ("pooler.dense.bias",), if_absent=NO_PRE_LOGITS),
        *(Rule(f"{target}.{part}", (f"{source}.{part}",), operation, if_absent=NO_HEAD)
          for target, source in (("head", "classifier"), ("head", "cls_classifier"),
                                 ("head_dist", "distillation_classifier"))
          for part, operation in (("weight", "transpose"), ("bias", "copy"))),
        Drop("embeddings.mask_token", NO_MASK),
    ),
    strip=r"vit\.|deit\.",
    # The files say 1e-12, which is as good as 0 and as 1e-6 for weights trained with 1e-6.
    epsilon=1e-12,
    pos_embed_method="bicubic",
    notes=(
        "Hugging Face's ViT normalises with an epsilon of 1e-12 (layer_norm_eps of its "
        "config.json): give -o epsilon=1e-12 for logits equal to the last digit.",
    ),
    source="transformers, modeling_vit.py and modeling_deit.py",
)

HUGGINGFACE_DINOV2 = Family(
    name="huggingface_dinov2",
    title="Hugging Face transformers: DINOv2, with and without registers",
    rows=(
        Rule("reg_token", ("embeddings.register_tokens",)),
        Rule("cls_token", ("embeddings.cls_token", "embeddings.position_embeddings"),
             "class_plus_position", when="embeddings.register_tokens"),
        Rule("pos_embed", ("embeddings.position_embeddings",), "drop_class_position",
             when="embeddings.register_tokens"),
        Rule("cls_token", ("embeddings.cls_token",)),
        Rule("pos_embed", ("embeddings.position_embeddings",)),
        *norm("patch_embed.proj", "embeddings.patch_embeddings.projection"),
        *norm("blocks.{i}.norm1", f"{_LAYER}.norm1"),
        *_attention(),
        Rule("blocks.{i}.ls1.gamma", (f"{_LAYER}.layer_scale1.lambda1",)),
        *norm("blocks.{i}.norm2", f"{_LAYER}.norm2"),
        *linear("blocks.{i}.mlp.fc1", f"{_LAYER}.mlp.fc1"),
        *linear("blocks.{i}.mlp.fc2", f"{_LAYER}.mlp.fc2"),
        Rule("blocks.{i}.ls2.gamma", (f"{_LAYER}.layer_scale2.lambda1",)),
        *norm("norm", "layernorm"),
        Drop("embeddings.mask_token", NO_MASK),
        Drop("classifier.*", "it reads the class token together with the mean of the patches, "
                             "which no model here does"),
    ),
    strip=r"dinov2\.|dinov2_with_registers\.",
    pos_embed_method="bicubic",
    source="transformers, modeling_dinov2.py and modeling_dinov2_with_registers.py",
)

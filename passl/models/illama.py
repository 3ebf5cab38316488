"""iLLaMA: LLaMA's decoder as a vision transformer.

Source: Wang et al. 2024, "Adapting LLaMA Decoder to Vision Transformer" (arXiv 2404.06773), and the
models its authors released, which mask the attention after the softmax (``docs/llama_models.md``).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Optional, Union

import paddle
from paddle import nn

from passl.layers.drop_path import DropPath, drop_path_rates
from passl.layers.errors import ModelArgumentError
from passl.layers.illama_attention import ILlamaAttention, attention_mask
from passl.layers.linear import Linear
from passl.layers.mlp import hidden_width
from passl.layers.patch_embed import PatchEmbed
from passl.layers.recompute import run_blocks
from passl.layers.rms_norm import RMSNorm
from passl.layers.rotary import Rotary
from passl.layers.swiglu import SwiGLU, gated_width
from passl.models.llama_init import initialize_like_timm
from passl.registry import MODELS, Range

__all__ = ["ILlama"]


@MODELS.register("iLLaMA")
class ILlama(nn.Layer):
    """Images [b, in_chans, height, width] float32 -> logits [b, class_num].

    Patches become tokens, the class token goes *last*, learnt positions are added, ``depth``
    blocks of RMSNorm, attention with rotary positions and a gated perceptron mix them, and the
    class token, normalised, is classified.

    Args:
        img_size: side of the images in pixels, or [height, width]; a multiple of ``patch_size``.
        patch_size: side of a patch in pixels.
        in_chans: channels of the images.
        class_num: number of classes; 0 for a model that returns features [b, embed_dim].
        embed_dim: channels of a token; a multiple of twice ``num_heads``.
        depth: number of blocks.
        num_heads: heads of each attention.
        mlp_ratio: width of an ungated perceptron as a multiple of ``embed_dim``; the gated one has
            two thirds of it, rounded up to ``multiple_of``.
        multiple_of: the hidden width of the perceptrons is a multiple of this.
        qkv_bias: add a bias to query, key and value.
        drop_rate: dropout after the positions are added; there is no other.
        drop_path_rate: part of the samples that skip a branch of the last block in training;
            grows linearly from 0 at the first block.
        epsilon: added to the mean square in every normalisation.
        rope_theta: base of the frequencies of the rotary positions.
        attention: ``released`` masks after the softmax, as the published weights need it;
            ``causal`` before it; ``modified`` is causal but every token sees the class token;
            ``bidirectional`` masks nothing.
        soft_mask_rate: how much later tokens are seen in ``released`` attention, 0 (not at all) to
            1 (as all others); a SoftMask hook changes it during training.

    Raises:
        ModelArgumentError: sizes that do not divide, no hidden channel, or a soft mask where there
            is none.

    Attributes:
        num_features: width of what the classifier sees.
        grid_size: rows and columns of patches.
        num_prefix_tokens: tokens before the patches (0).
        num_suffix_tokens: tokens after the patches (1, the class token).
        head_prefixes: beginnings of the names of parameters that belong to the classes.
        recompute_every: see :func:`passl.layers.recompute.run_blocks`.
    """

    num_prefix_tokens = 0
    num_suffix_tokens = 1
    head_prefixes = ("head.",)
    recompute_every = 0

    def __init__(
        self,
        img_size: Union[
            Annotated[int, Range(min=1)],
            tuple[Annotated[int, Range(min=1)], Annotated[int, Range(min=1)]],
        ] = 224,
        patch_size: Annotated[int, Range(min=1)] = 16,
        in_chans: Annotated[int, Range(min=1)] = 3,
        class_num: Annotated[int, Range(min=0)] = 1000,
        embed_dim: Annotated[int, Range(min=1)] = 768,
        depth: Annotated[int, Range(min=1)] = 12,
        num_heads: Annotated[int, Range(min=1)] = 12,
        mlp_ratio: Annotated[float, Range(min=0.0, min_open=True)] = 4.0,
        multiple_of: Annotated[int, Range(min=1)] = 256,
        qkv_bias: bool = True,
        drop_rate: Annotated[float, Range(min=0.0, max=1.0, max_open=True)] = 0.0,
        drop_path_rate: Annotated[float, Range(min=0.0, max=1.0, max_open=True)] = 0.0,
        epsilon: Annotated[float, Range(min=0.0, min_open=True)] = 1e-6,
        rope_theta: Annotated[float, Range(min=0.0, min_open=True)] = 10000.0,
        attention: Literal["released", "causal", "modified", "bidirectional"] = "released",
        soft_mask_rate: Annotated[float, Range(min=0.0, max=1.0)] = 0.0,
    ) -> None:
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.class_num, self.embed_dim, self.depth = class_num, embed_dim, depth
        self.num_features, self.attention = embed_dim, attention
        hidden_dim = gated_width(hidden_width(embed_dim, mlp_ratio), multiple_of)
        zero = nn.initializer.Constant(0.0)

        self.patch_embed = PatchEmbed((height, width), patch_size, in_chans, embed_dim)
        self.grid_size = self.patch_embed.grid_size
        tokens = self.patch_embed.num_patches + self.num_suffix_tokens
        self.cls_token = self.create_parameter([1, 1, embed_dim], default_initializer=zero)
        self.pos_embed = self.create_parameter([1, tokens, embed_dim], default_initializer=zero)
        self.pos_drop = nn.Dropout(drop_rate)
        self.blocks = nn.LayerList([
            _Block(
                ILlamaAttention(embed_dim, num_heads, qkv_bias=qkv_bias, mode=attention),
                SwiGLU(embed_dim, hidden_dim),
                drop_path_rate=rate,
                epsilon=epsilon,
            )
            for rate in drop_path_rates(drop_path_rate, depth)
        ])
        self.norm = RMSNorm(embed_dim, epsilon=epsilon)
        self.head = Linear(embed_dim, class_num) if class_num else nn.Identity()
        self.rotary = Rotary(embed_dim // num_heads, tokens, theta=rope_theta)
        self.mask: Optional[paddle.Tensor]
        self._set_mask(soft_mask_rate)
        initialize_like_timm(self, cls_token_std=0.02)

    def forward(self, x_bchw: paddle.Tensor) -> paddle.Tensor:
        """Logits [b, class_num], or features [b, embed_dim] if there are no classes.

        Raises:
            InputShapeError: the images are not of the size the model was built for.
        """
        return self.forward_head(self.forward_features(x_bchw))

    def forward_features(self, x_bchw: paddle.Tensor) -> paddle.Tensor:
        """All tokens after the last normalisation, class token last [b, n, embed_dim]."""
        x_bnc = self.patch_embed(x_bchw)
        cls_b1c = self.cls_token.expand([x_bnc.shape[0], -1, -1])
        x_bnc = paddle.concat([x_bnc, cls_b1c.astype(x_bnc.dtype)], axis=1) + self.pos_embed
        x_bnc = self.pos_drop(x_bnc)
        inside = (self.rotary, self.mask, self._soft_mask_rate)
        x_bnc = run_blocks(self.blocks, x_bnc, *inside, recompute_every=self.recompute_every)
        return self.norm(x_bnc)

    def forward_head(self, tokens_bnc: paddle.Tensor) -> paddle.Tensor:
        """Classify the class token of what :meth:`forward_features` returns."""
        return self.head(tokens_bnc[:, -1])

    # -- the soft mask -------------------------------------------------------------------------

    @property
    def soft_mask_rate(self) -> float:
        """How much later tokens are seen now, in training and evaluation alike, 0 to 1."""
        return self._soft_mask_rate

    def set_soft_mask_rate(self, rate: float) -> None:
        """Change the soft mask, at once and for every block.

        Raises:
            ModelArgumentError: outside of 0 to 1, or the attention has no soft mask.
        """
        if rate != self._soft_mask_rate:
            self._set_mask(rate)

    def evaluation_settings(self) -> dict[str, float]:
        """What besides the weights decides the outputs, for the log of an evaluation."""
        return {"soft_mask_rate": self.soft_mask_rate} if self.attention == "released" else {}

    def evaluation_choices(self) -> dict[str, str]:
        """What decides the outputs and leaves no trace in the weights."""
        return {"attention": self.attention}

    def _set_mask(self, rate: float) -> None:
        if not 0.0 <= rate <= 1.0:
            raise ModelArgumentError(f"a soft-mask rate is 0 to 1, found {rate}")
        if rate and self.attention != "released":
            raise ModelArgumentError(
                f"soft_mask_rate {rate:g} has no meaning with attention={self.attention}; only "
                "attention=released has a soft mask"
            )
        self._soft_mask_rate = float(rate)
        mask = attention_mask(self.attention, self.pos_embed.shape[1], rate)
        self.register_buffer(
            "mask", None if mask is None else paddle.to_tensor(mask), persistable=False
        )

    # -- parameters ----------------------------------------------------------------------------

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay should leave alone whatever the recipe's rules."""
        return {"cls_token", "pos_embed"}

    def layer_ids(self) -> dict[str, int]:
        """Depth of each parameter, 0 to depth + 1, for a learning rate that decays with depth.

        The embeddings are 0, block ``i`` is ``i + 1``, the last normalisation belongs to the last
        block, the classifier is ``depth + 1``.
        """
        ids = {}
        for name, _ in self.named_parameters():
            part, _, rest = name.partition(".")
            last = {"norm": self.depth, "head": self.depth + 1}
            in_block = part == "blocks"
            ids[name] = int(rest.partition(".")[0]) + 1 if in_block else last.get(part, 0)
        return ids


class _Block(nn.Layer):
    """``x += attn(norm1(x))``, then ``x += mlp(norm2(x))``, under one drop path."""

    def __init__(
        self, attn: ILlamaAttention, mlp: SwiGLU, *, drop_path_rate: float, epsilon: float
    ) -> None:
        super().__init__()
        dim = attn.num_heads * attn.head_dim
        self.norm1 = RMSNorm(dim, epsilon=epsilon)
        self.attn = attn
        self.norm2 = RMSNorm(dim, epsilon=epsilon)
        self.mlp = mlp
        self.drop_path = DropPath(drop_path_rate)

    def forward(
        self, x_bnc: paddle.Tensor, rotary: Rotary, mask_nn: Optional[paddle.Tensor], rate: float
    ) -> paddle.Tensor:
        mixed = self.attn(self.norm1(x_bnc), rotary, mask_nn, rate)
        x_bnc = x_bnc + self.drop_path(mixed)
        return x_bnc + self.drop_path(self.mlp(self.norm2(x_bnc)))


_TINY: dict[str, Any] = {"embed_dim": 192, "depth": 12, "num_heads": 3}
_SMALL: dict[str, Any] = {"embed_dim": 384, "depth": 12, "num_heads": 6}
_BASE: dict[str, Any] = {"embed_dim": 768, "depth": 12, "num_heads": 12}
_LARGE: dict[str, Any] = {"embed_dim": 1024, "depth": 24, "num_heads": 16}

MODELS.variant("iLLaMA_tiny_patch16_224", ILlama, **_TINY, aliases=("illama_tiny",))
MODELS.variant("iLLaMA_tiny_patch16_384", ILlama, **_TINY, img_size=384)
MODELS.variant("iLLaMA_small_patch16_224", ILlama, **_SMALL, aliases=("illama_small",))
MODELS.variant("iLLaMA_small_patch16_384", ILlama, **_SMALL, img_size=384)
MODELS.variant("iLLaMA_base_patch16_224", ILlama, **_BASE, aliases=("illama_base",))
MODELS.variant("iLLaMA_base_patch16_384", ILlama, **_BASE, img_size=384)
MODELS.variant("iLLaMA_large_patch16_224", ILlama, **_LARGE, aliases=("illama_large",))
MODELS.variant("iLLaMA_large_patch16_384", ILlama, **_LARGE, img_size=384)

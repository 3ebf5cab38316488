"""iLLaMA's self-attention: joint query, key and value with biases, rotary positions, four masks.

The class token is the last of the n tokens, so that a causal mask lets it see every patch.

Source: Wang et al. 2024, "Adapting LLaMA Decoder to Vision Transformer", section 3.
"""

from __future__ import annotations

from typing import Optional

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from passl.layers.errors import ModelArgumentError
from passl.layers.flash import has_flash_kernel
from passl.layers.linear import Linear
from passl.layers.rotary import Rotary
from passl.layers.soft_mask import (
    attention_by_kernels,
    fused_kernel,
    soft_mask,
    soft_masked_attention,
)

__all__ = ["ILlamaAttention", "attention_mask"]


class ILlamaAttention(nn.Layer):
    """``x [b, n, c] -> [b, n, c]``.

    Parameters ``qkv.weight`` [c, 3c] (query, key, value side by side), ``qkv.bias``,
    ``proj.weight`` [c, c], ``proj.bias``.  There is no dropout.

    Args:
        dim: c.
        num_heads: number of heads; divides ``dim``.
        qkv_bias: add a bias to query, key and value.
        mode: ``released``, ``causal``, ``modified`` or ``bidirectional``; see
            :func:`attention_mask`.

    Raises:
        ModelArgumentError: ``dim`` is no multiple of ``num_heads``.
    """

    def __init__(
        self, dim: int, num_heads: int, *, qkv_bias: bool = True, mode: str = "released"
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ModelArgumentError(
                f"embed_dim {dim} cannot be shared by {num_heads} heads; num_heads must divide it"
            )
        self.num_heads, self.head_dim, self.mode = num_heads, dim // num_heads, mode
        self.scale = self.head_dim**-0.5
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)

    def forward(
        self,
        x_bnc: paddle.Tensor,
        rotary: Rotary,
        mask_nn: Optional[paddle.Tensor],
        rate: float = 0.0,
    ) -> paddle.Tensor:
        """Mix the tokens.

        Args:
            x_bnc: the tokens.
            rotary: positions of queries and keys.
            mask_nn: from :func:`attention_mask`; None hides nothing.
            rate: the soft-mask rate that ``mask_nn`` was made for, in ``released`` mode.
        """
        tokens, channels = x_bnc.shape[1:]
        qkv = self.qkv(x_bnc).reshape([-1, tokens, 3, self.num_heads, self.head_dim])
        q_bhnd, k_bhnd, v_bhnd = qkv.transpose([2, 0, 3, 1, 4]).unbind(0)
        q_bhnd, k_bhnd = rotary(q_bhnd), rotary(k_bhnd)
        mixed_bnhd = self._fused(q_bhnd, k_bhnd, v_bhnd, mask_nn, rate)
        if mixed_bnhd is None:
            mixed_bnhd = self._plain(q_bhnd, k_bhnd, v_bhnd, mask_nn).transpose([0, 2, 1, 3])
        return self.proj(mixed_bnhd.reshape([-1, tokens, channels]))

    def _plain(
        self,
        q_bhnd: paddle.Tensor,
        k_bhnd: paddle.Tensor,
        v_bhnd: paddle.Tensor,
        mask_nn: Optional[paddle.Tensor],
    ) -> paddle.Tensor:
        scores_bhnn = paddle.matmul(q_bhnd * self.scale, k_bhnd, transpose_y=True)
        if self.mode == "released" and mask_nn is not None:
            return soft_masked_attention(scores_bhnn, v_bhnd, mask_nn)
        if mask_nn is not None:
            scores_bhnn = scores_bhnn.astype("float32") + mask_nn
        probs_bhnn = F.softmax(scores_bhnn.astype("float32"), axis=-1).astype(v_bhnd.dtype)
        return paddle.matmul(probs_bhnn, v_bhnd)

    def _fused(
        self,
        q_bhnd: paddle.Tensor,
        k_bhnd: paddle.Tensor,
        v_bhnd: paddle.Tensor,
        mask_nn: Optional[paddle.Tensor],
        rate: float,
    ) -> Optional[paddle.Tensor]:
        """[b, n, h, d] from Paddle's fused kernels; None where there is none for this mask."""
        if not has_flash_kernel(q_bhnd, self.head_dim):
            return None
        q, k, v = (tensor.transpose([0, 2, 1, 3]) for tensor in (q_bhnd, k_bhnd, v_bhnd))
        if mask_nn is None or self.mode == "causal":
            is_causal = mask_nn is not None
            return F.scaled_dot_product_attention(
                q, k, v, is_causal=is_causal, training=self.training
            )
        kernel = fused_kernel(q) if self.mode == "released" else None
        return None if kernel is None else attention_by_kernels(q, k, v, rate, kernel)


def attention_mask(mode: str, num_tokens: int, rate: float) -> Optional[np.ndarray]:
    """[n, n] fp32 of query (row) and key (column), or None where every token sees all.

    ============= ==========================================================================
    released      factors after the softmax: 1 for the token itself and those before it, else
                  ``rate``; None at rate 1
    causal        added to the scores: minus infinity for later tokens
    modified      the same, but every token sees the class token as well
    bidirectional None
    ============= ==========================================================================

    ``modified`` is the paper's mask for a class token that comes first (it sees all, and all see
    it), said of one that comes last; only the position that the rotary embedding gives the class
    token differs.
    """
    if mode == "bidirectional" or (mode == "released" and rate == 1.0):
        return None
    if mode == "released":
        return soft_mask(num_tokens, rate)
    hidden = np.triu(np.ones((num_tokens, num_tokens), bool), k=1)
    if mode == "modified":
        hidden[:, -1] = False
    return np.where(hidden, np.float32(-np.inf), np.float32(0.0))

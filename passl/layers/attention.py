"""Multi-head self-attention.

Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.2.
"""

from __future__ import annotations

from typing import Optional

import paddle
import paddle.nn.functional as F
from paddle import nn

from passl.layers.errors import ModelArgumentError
from passl.layers.flash import has_flash_kernel
from passl.layers.linear import Linear

__all__ = ["Attention"]


class Attention(nn.Layer):
    """``x [b, n, c] -> [b, n, c]``: softmax(q k' * scale) v, heads joined and projected.

    Parameters ``qkv.weight`` [c, 3c] (query, key, value side by side), ``qkv.bias``,
    ``proj.weight`` [c, c], ``proj.bias``; with ``qk_norm`` also ``q_norm.*`` and ``k_norm.*`` [d].

    In half precision, on a GPU that has it, the fused kernel of Paddle is used; elsewhere the
    products are written out and the softmax is in fp32 (the fused kernel has no gain on a CPU, and
    Paddle 2.6 drops there in evaluation too).

    Args:
        dim: c.
        num_heads: number of heads; divides ``dim``.
        qkv_bias: add a bias to query, key and value.
        qk_scale: factor of the scores; None is 1 / sqrt(dim / num_heads).
        attn_drop_rate: dropout of the attention probabilities.
        drop_rate: dropout after the projection.
        qk_norm: normalise the queries and keys of each head before the product.
        epsilon: added to the variance in these two normalisations.
        fused: use the fused kernel where it is exact and there is one; False to write the products
            out everywhere.
        fused_linear: let both linear layers use Paddle's fused kernel.

    Raises:
        ModelArgumentError: ``dim`` is no multiple of ``num_heads``.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        qkv_bias: bool = True,
        qk_scale: Optional[float] = None,
        attn_drop_rate: float = 0.0,
        drop_rate: float = 0.0,
        qk_norm: bool = False,
        epsilon: float = 1e-6,
        fused: bool = True,
        fused_linear: bool = False,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            options = [heads for heads in range(1, dim + 1) if dim % heads == 0]
            nearest = sorted(options, key=lambda heads: abs(heads - num_heads))[:2]
            raise ModelArgumentError(
                f"embed_dim {dim} cannot be shared by {num_heads} heads; num_heads must divide "
                f"it, for example {' or '.join(map(str, nearest))}"
            )
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.scale = qk_scale if qk_scale is not None else self.head_dim**-0.5
        # the fused kernel of Paddle 2.6 knows no other scale
        self.fusible = fused and qk_scale is None
        self.attn_drop_rate = attn_drop_rate
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias, fused=fused_linear)
        self.qk_norm = qk_norm
        if qk_norm:
            self.q_norm = nn.LayerNorm(self.head_dim, epsilon=epsilon)
            self.k_norm = nn.LayerNorm(self.head_dim, epsilon=epsilon)
        self.proj = Linear(dim, dim, fused=fused_linear)
        self.attn_drop = nn.Dropout(attn_drop_rate)
        self.proj_drop = nn.Dropout(drop_rate)

    def forward(self, x_bnc: paddle.Tensor) -> paddle.Tensor:
        """Mix the tokens."""
        tokens, channels = x_bnc.shape[1:]
        # [b, n, 3c] -> [b, n, 3, h, d]
        qkv = self.qkv(x_bnc).reshape([-1, tokens, 3, self.num_heads, self.head_dim])
        if self._fused(qkv):
            q_bnhd, k_bnhd, v_bnhd = qkv.unbind(2)
            q_bnhd, k_bnhd = self._normalised(q_bnhd, k_bnhd)
            dropout = self.attn_drop_rate if self.training else 0.0
            mixed_bnhd = F.scaled_dot_product_attention(
                q_bnhd, k_bnhd, v_bnhd, dropout_p=dropout, training=self.training
            )
        else:
            q_bhnd, k_bhnd, v_bhnd = qkv.transpose([2, 0, 3, 1, 4]).unbind(0)
            q_bhnd, k_bhnd = self._normalised(q_bhnd, k_bhnd)
            probs_bhnn = self.attn_drop(self.probabilities(q_bhnd, k_bhnd))
            mixed_bnhd = paddle.matmul(probs_bhnn, v_bhnd).transpose([0, 2, 1, 3])
        return self.proj_drop(self.proj(mixed_bnhd.reshape([-1, tokens, channels])))

    def probabilities(self, q_bhnd: paddle.Tensor, k_bhnd: paddle.Tensor) -> paddle.Tensor:
        """Attention of each token (row) to each token (column) [b, h, n, n]; rows sum to 1.

        The softmax is computed in fp32; the result has the dtype of the queries.
        """
        scores_bhnn = paddle.matmul(q_bhnd * self.scale, k_bhnd, transpose_y=True)
        return F.softmax(scores_bhnn.astype("float32"), axis=-1).astype(q_bhnd.dtype)

    def _normalised(
        self, q: paddle.Tensor, k: paddle.Tensor
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Queries and keys [..., d], each normalised over d if the layer does so."""
        if not self.qk_norm:
            return q, k
        # a normalisation kept in fp32 (AMP) must not lift the products out of half precision
        return self.q_norm(q).astype(q.dtype), self.k_norm(k).astype(k.dtype)

    def _fused(self, qkv: paddle.Tensor) -> bool:
        return self.fusible and has_flash_kernel(qkv, self.head_dim)

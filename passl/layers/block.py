"""The transformer block: attention and perceptron, each normalised before and added to its input.

Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", equations 2 and 3.
"""

from __future__ import annotations

from typing import Optional

import paddle
from paddle import nn

from passl.layers.add import Add
from passl.layers.attention import Attention
from passl.layers.drop_path import DropPath
from passl.layers.layer_norm import LayerNorm
from passl.layers.layer_scale import LayerScale
from passl.layers.mlp import Mlp

__all__ = ["Block"]


class Block(nn.Layer):
    """``x [b, n, c] -> [b, n, c]``: ``x += attn(norm1(x))``, then ``x += mlp(norm2(x))``.

    With ``init_values`` each branch is scaled, channel by channel, by ``ls1.gamma`` and
    ``ls2.gamma`` [c].

    Args:
        dim: c.
        num_heads: heads of the attention; divides ``dim``.
        hidden_dim: hidden width of the perceptron.
        qkv_bias: bias of query, key and value.
        qk_scale: factor of the attention scores; None is 1 / sqrt(dim / num_heads).
        drop_rate: dropout after the attention's projection and both layers of the perceptron.
        attn_drop_rate: dropout of the attention probabilities.
        drop_path_rate: part of the samples for which a branch is skipped in training.
        epsilon: added to the variance in the normalisations.
        act: activation of the perceptron, as :class:`~passl.layers.mlp.Mlp` has them.
        qk_norm: normalise queries and keys.
        init_values: what the scales of the branches start with; None for no scales.
        fused_attn: let the attention use Paddle's fused kernel.
        fused_linear: let the linear layers use Paddle's fused kernel.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        hidden_dim: int,
        *,
        qkv_bias: bool = True,
        qk_scale: Optional[float] = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        epsilon: float = 1e-6,
        act: str = "gelu",
        qk_norm: bool = False,
        init_values: Optional[float] = None,
        fused_attn: bool = True,
        fused_linear: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim, epsilon=epsilon)
        self.attn = Attention(
            dim,
            num_heads,
            qkv_bias=qkv_bias,
            qk_scale=qk_scale,
            attn_drop_rate=attn_drop_rate,
            drop_rate=drop_rate,
            qk_norm=qk_norm,
            epsilon=epsilon,
            fused=fused_attn,
            fused_linear=fused_linear,
        )
        self.ls1 = nn.Identity() if init_values is None else LayerScale(dim, init_values)
        self.norm2 = LayerNorm(dim, epsilon=epsilon)
        self.mlp = Mlp(
            dim, hidden_dim, act=act, drop_rate=drop_rate, fused_linear=fused_linear
        )
        self.ls2 = nn.Identity() if init_values is None else LayerScale(dim, init_values)
        self.drop_path = DropPath(drop_path_rate)
        self.add = Add()

    def forward(self, x_bnc: paddle.Tensor) -> paddle.Tensor:
        """Apply both branches."""
        x_bnc = self.add(x_bnc, self.drop_path(self.ls1(self.attn(self.norm1(x_bnc)))))
        return self.add(x_bnc, self.drop_path(self.ls2(self.mlp(self.norm2(x_bnc)))))

"""The two-layer perceptron of a transformer block, with the exact (erf) GELU."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import nn

from passl.layers.linear import Linear

__all__ = ["Mlp"]


class Mlp(nn.Layer):
    """``x [b, n, c] -> fc2(gelu(fc1(x))) [b, n, c]``, with dropout after both layers.

    Parameters ``fc1.weight`` [c, hidden_dim], ``fc1.bias``, ``fc2.weight`` [hidden_dim, c],
    ``fc2.bias``.
    """

    def __init__(self, dim: int, hidden_dim: int, *, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim)
        self.fc2 = Linear(hidden_dim, dim)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x_bnc: paddle.Tensor) -> paddle.Tensor:
        """Transform each token by itself."""
        hidden = self.drop(F.gelu(self.fc1(x_bnc)))
        return self.drop(self.fc2(hidden))

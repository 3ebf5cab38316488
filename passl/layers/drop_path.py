"""Stochastic depth: skip a residual branch for a random part of the samples.

Source: Huang et al. 2016, "Deep Networks with Stochastic Depth", per sample and rescaled so that
the expectation is kept.
"""

from __future__ import annotations

import paddle
from paddle import nn

__all__ = ["DropPath", "drop_path_rates"]


class DropPath(nn.Layer):
    """Zero ``x [b, ...]`` for each sample with probability ``rate``, else divide by ``1 - rate``.

    Does nothing in evaluation.  Draws one number per sample from Paddle's global generator.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Same shape and dtype as ``x``."""
        if self.rate == 0.0 or not self.training:
            return x
        keep = 1.0 - self.rate
        drawn = paddle.rand([x.shape[0]] + [1] * (x.ndim - 1))  # fp32, also under AMP
        mask = (drawn < keep).astype(x.dtype)
        return x * (mask / keep)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"rate={self.rate:.4g}"


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Rates growing linearly from 0 at the first block to ``rate`` at the last.

    A single block gets 0, as ``linspace(0, rate, 1)`` does.
    """
    return [rate * index / max(1, depth - 1) for index in range(depth)]

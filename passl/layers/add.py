"""The sum of a residual connection, as a layer: a place where its result can be looked at."""

from __future__ import annotations

import paddle
from paddle import nn

__all__ = ["Add"]


class Add(nn.Layer):
    """``x + y``; it has no parameters."""

    def forward(self, x: paddle.Tensor, y: paddle.Tensor) -> paddle.Tensor:
        """The sum of two tensors of one shape."""
        return x + y

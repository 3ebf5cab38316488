"""The representation layer between the class token and the classifier: Linear, then tanh.

Source: the "pre-logits" of Dosovitskiy et al. 2021, section 3.1 (a hidden layer at pre-training).
"""

from __future__ import annotations

import paddle
from paddle import nn

from passl.layers.linear import Linear

__all__ = ["PreLogits"]


class PreLogits(nn.Layer):
    """``x [b, dim] -> tanh(fc(x)) [b, representation_size]``."""

    def __init__(self, dim: int, representation_size: int) -> None:
        super().__init__()
        self.fc = Linear(dim, representation_size)

    def forward(self, x_bc: paddle.Tensor) -> paddle.Tensor:
        """Values in (-1, 1)."""
        return paddle.tanh(self.fc(x_bc))

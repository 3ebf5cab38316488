"""Root-mean-square normalisation: LayerNorm without the mean and without a bias.

Source: Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", equation 4, as LLaMA uses
it.
"""

from __future__ import annotations

import paddle
from paddle import nn

__all__ = ["RMSNorm"]


class RMSNorm(nn.Layer):
    """``x [..., c] -> x / sqrt(mean(x^2) + epsilon) * weight``.

    Computed in fp32 and cast back to the dtype of ``x`` before the product with ``weight`` [c],
    which starts at one.

    Args:
        dim: c.
        epsilon: added to the mean square.
        trainable: False freezes the weight.
    """

    keep_fp32 = True  # the weight, at every level of mixed precision

    def __init__(self, dim: int, *, epsilon: float = 1e-6, trainable: bool = True) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = self.create_parameter(
            [dim],
            attr=paddle.ParamAttr(trainable=trainable),
            default_initializer=nn.initializer.Constant(1.0),
        )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Same shape and dtype as ``x``."""
        wide = x.astype("float32")
        scale = paddle.rsqrt((wide * wide).mean(axis=-1, keepdim=True) + self.epsilon)
        return (wide * scale).astype(x.dtype) * self.weight.astype(x.dtype)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"{self.weight.shape[0]}, epsilon={self.epsilon:g}"

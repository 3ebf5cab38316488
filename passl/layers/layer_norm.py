"""LayerNorm with a faster gradient on the CPU (:mod:`passl.layers.cpu_kernels`)."""

from __future__ import annotations

import paddle
from paddle import nn

from passl.layers.cpu_kernels import CpuLayerNorm, fits_training

__all__ = ["LayerNorm"]


class LayerNorm(nn.LayerNorm):
    """``x [..., dim]``: each vector brought to mean 0, variance 1, then times weight plus bias.

    Parameters ``weight`` and ``bias`` [dim].

    Args:
        dim: length of the vectors.
        epsilon: added to the variance.
    """

    def __init__(self, dim: int, *, epsilon: float = 1e-5) -> None:
        super().__init__(dim, epsilon=epsilon)
        self._added = epsilon

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Same shape and dtype as ``x``."""
        if x.dtype == paddle.float32 and fits_training(x, self.weight, self.bias):
            return CpuLayerNorm.apply(x, self.weight, self.bias, self._added)
        return nn.LayerNorm.forward(self, x)  # super() is lost in Paddle 2.6's static graphs

"""Linear layer ``y = x W + b``, faster on the CPU by :mod:`passl.layers.cpu_kernels`.

``cpu_kernels`` and ``CPU_KERNELS_VARIABLE`` are importable from here as well.
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import nn

from passl.layers.cpu_kernels import (
    CPU_KERNELS_VARIABLE,
    CpuLinear,
    cpu_kernels,
    fits_inference,
    fits_training,
)
from passl.layers.fused import fused_linear_works, takes_fused_linear

__all__ = ["CPU_KERNELS_VARIABLE", "Linear", "cpu_kernels"]


class Linear(nn.Layer):
    """``x [..., in] -> x W + b [..., out]``.

    Parameters ``weight`` [in_features, out_features] and ``bias`` [out_features] start at zero.

    Args:
        in_features, out_features: widths.
        bias: add one.
        fused: in half precision on a GPU, let Paddle's fused kernel compute it, where both widths
            are multiples of 8 (:mod:`passl.layers.fused`).
    """

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool = True, fused: bool = False
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        aligned = in_features % 8 == 0 and out_features % 8 == 0  # what tensor cores want
        self.fused = fused and bias and aligned and fused_linear_works()
        zero = nn.initializer.Constant(0.0)
        self.weight = self.create_parameter([in_features, out_features], default_initializer=zero)
        self.bias = None
        if bias:
            self.bias = self.create_parameter(
                [out_features], is_bias=True, default_initializer=zero
            )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Apply the layer to the last axis of ``x``."""
        if self.bias is not None:
            if self.fused and takes_fused_linear(x, self.weight, self.bias):
                return paddle.incubate.nn.functional.fused_linear(x, self.weight, self.bias)
            if fits_training(x, self.weight, self.bias):
                return CpuLinear.apply(x, self.weight, self.bias)
            if fits_inference(x) and x.dtype == self.weight.dtype:  # the bias in the same pass
                rows = x.reshape([-1, self.in_features])
                out = paddle.addmm(self.bias, rows, self.weight)
                return out.reshape([*x.shape[:-1], self.out_features])
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"{self.in_features} -> {self.out_features}, bias={self.bias is not None}"

"""Linear layer ``y = x W + b``, with a faster gradient on the CPU.

Paddle sums the bias gradient over the batch with a reduction kernel that takes ten to forty times
as long as multiplying by a row of ones (``docs/models.md``, "Speed on a CPU").  On a CPU,
while training, the layer therefore brings its own backward pass: three matrix products.  The maths
is the same; only the order of the additions differs, so values agree to fp32 rounding.

``PASSL_CPU_KERNELS=0`` in the environment, or :func:`cpu_kernels`, switches it off.  On other
devices, in static graphs and without gradients, ``paddle.nn.functional.linear`` runs as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.autograd import PyLayer

__all__ = ["CPU_KERNELS_VARIABLE", "Linear", "cpu_kernels"]

CPU_KERNELS_VARIABLE = "PASSL_CPU_KERNELS"

_ENABLED: ContextVar[bool] = ContextVar(
    "passl_cpu_kernels", default=os.environ.get(CPU_KERNELS_VARIABLE, "1") != "0"
)


@contextmanager
def cpu_kernels(enabled: bool) -> Iterator[None]:
    """Use the CPU backward pass of this module, or Paddle's own, inside the block."""
    token = _ENABLED.set(enabled)
    try:
        yield
    finally:
        _ENABLED.reset(token)


class Linear(nn.Layer):
    """``x [..., in] -> x W + b [..., out]``.

    Parameters ``weight`` [in_features, out_features] and ``bias`` [out_features] start at zero.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        zero = nn.initializer.Constant(0.0)
        self.weight = self.create_parameter([in_features, out_features], default_initializer=zero)
        self.bias = None
        if bias:
            self.bias = self.create_parameter(
                [out_features], is_bias=True, default_initializer=zero
            )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Apply the layer to the last axis of ``x``."""
        if self.bias is not None and _use_cpu_kernel(x, self.weight, self.bias):
            return _CpuLinear.apply(x, self.weight, self.bias)
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"{self.in_features} -> {self.out_features}, bias={self.bias is not None}"


class _CpuLinear(PyLayer):
    """Linear whose bias gradient is a matrix product."""

    @staticmethod
    def forward(
        ctx: Any, x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor
    ) -> paddle.Tensor:
        rows = x.reshape([-1, x.shape[-1]])  # [rows, in]
        ctx.save_for_backward(rows, weight)
        ctx.x_shape, ctx.x_stop_gradient = list(x.shape), x.stop_gradient
        return paddle.addmm(bias, rows, weight).reshape([*x.shape[:-1], weight.shape[1]])

    @staticmethod
    def backward(ctx: Any, grad: paddle.Tensor) -> tuple[Any, paddle.Tensor, paddle.Tensor]:
        rows, weight = ctx.saved_tensor()
        grad = grad.reshape([-1, grad.shape[-1]])  # [rows, out]
        ones = paddle.ones([1, grad.shape[0]], grad.dtype)
        grad_bias = paddle.matmul(ones, grad).reshape([-1])
        grad_weight = paddle.matmul(rows, grad, transpose_x=True)
        grad_x = None
        if not ctx.x_stop_gradient:
            grad_x = paddle.matmul(grad, weight, transpose_y=True).reshape(ctx.x_shape)
        return grad_x, grad_weight, grad_bias


def _use_cpu_kernel(x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor) -> bool:
    return (
        _ENABLED.get()
        and paddle.in_dynamic_mode()
        and paddle.is_grad_enabled()
        and not weight.stop_gradient  # Paddle skips the gradients of what is frozen
        and not bias.stop_gradient
        and x.place.is_cpu_place()
    )

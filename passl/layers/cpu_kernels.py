"""Forward and backward passes for the CPU where Paddle's own take several times as long as need be.

Three of Paddle's CPU kernels cost a training step more than their arithmetic does
(``docs/models.md``, "Speed on a CPU"): the sums of a bias gradient, the gradient of LayerNorm and
that of GELU.  Here each is written with matrix products and whole-tensor operations.  The maths is
the same; only the order of the additions differs, so values agree to fp32 rounding, and gradients
are tested against Paddle's at 1e-6 of the largest.

``PASSL_CPU_KERNELS=0`` in the environment, or :func:`cpu_kernels`, switches all of it off.  On
other devices and in static graphs the layers call Paddle's functions as they are.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer

__all__ = [
    "CPU_KERNELS_VARIABLE",
    "CpuGelu",
    "CpuLayerNorm",
    "CpuLinear",
    "cpu_kernels",
    "fits_inference",
    "fits_training",
]

CPU_KERNELS_VARIABLE = "PASSL_CPU_KERNELS"

_ENABLED: ContextVar[bool] = ContextVar(
    "passl_cpu_kernels", default=os.environ.get(CPU_KERNELS_VARIABLE, "1") != "0"
)


@contextmanager
def cpu_kernels(enabled: bool) -> Iterator[None]:
    """Use the kernels of this module, or Paddle's own, inside the block."""
    token = _ENABLED.set(enabled)
    try:
        yield
    finally:
        _ENABLED.reset(token)


def fits_training(x: paddle.Tensor, *parameters: paddle.Tensor) -> bool:
    """Whether a forward pass on ``x`` should bring its own backward pass.

    Not with frozen parameters, whose gradients Paddle skips, and not where no gradient is wanted.
    """
    if not (_applies(x) and paddle.is_grad_enabled()):
        return False
    if parameters:
        return not any(parameter.stop_gradient for parameter in parameters)
    return not x.stop_gradient


def fits_inference(x: paddle.Tensor) -> bool:
    """Whether ``x`` is on the CPU and no gradient will be asked for."""
    return _applies(x) and not paddle.is_grad_enabled()


def _applies(x: paddle.Tensor) -> bool:
    return _ENABLED.get() and paddle.in_dynamic_mode() and x.place.is_cpu_place()


class CpuLinear(PyLayer):
    """``x [..., in] -> x W + b [..., out]`` whose bias gradient is a matrix product."""

    @staticmethod
    def forward(
        ctx: Any, x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor
    ) -> paddle.Tensor:
        """Compute it, and keep what the backward pass needs."""
        rows = x.reshape([-1, x.shape[-1]])  # [rows, in]
        ctx.save_for_backward(rows, weight)
        ctx.x_shape, ctx.x_stop_gradient = list(x.shape), x.stop_gradient
        return paddle.addmm(bias, rows, weight).reshape([*x.shape[:-1], weight.shape[1]])

    @staticmethod
    def backward(ctx: Any, grad: paddle.Tensor) -> tuple[Any, paddle.Tensor, paddle.Tensor]:
        """The gradients, in the order of the arguments."""
        rows, weight = ctx.saved_tensor()
        grad = grad.reshape([-1, grad.shape[-1]])  # [rows, out]
        grad_bias = _column_sums(grad)
        grad_weight = paddle.matmul(rows, grad, transpose_x=True)
        grad_x = None
        if not ctx.x_stop_gradient:
            grad_x = paddle.matmul(grad, weight, transpose_y=True).reshape(ctx.x_shape)
        return grad_x, grad_weight, grad_bias


class CpuLayerNorm(PyLayer):
    """LayerNorm over the last axis whose gradient is made of matrix products.

    With ``h`` the normalised input, ``g`` the gradient times the weight and means over channels::

        dx = (g - mean(g) - h mean(g h)) / sigma,    dw = sum(dy h),    db = sum(dy)

    ``h`` is computed again from the input, which is all that is kept.

    Source: Ba et al. 2016, arXiv:1607.06450.
    """

    @staticmethod
    def forward(
        ctx: Any, x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor, epsilon: float
    ) -> paddle.Tensor:
        """Compute it, and keep what the backward pass needs."""
        ctx.save_for_backward(x, weight)
        ctx.epsilon, ctx.x_stop_gradient = epsilon, x.stop_gradient
        return F.layer_norm(x, x.shape[-1:], weight, bias, epsilon)

    @staticmethod
    def backward(ctx: Any, grad: paddle.Tensor) -> tuple[Any, paddle.Tensor, paddle.Tensor]:
        """The gradients, in the order of the arguments."""
        x, weight = ctx.saved_tensor()
        shape, channels = list(x.shape), x.shape[-1]
        x, grad = x.reshape([-1, channels]), grad.reshape([-1, channels])
        mean_of = paddle.full([channels, 1], 1.0 / channels, grad.dtype)
        ones = paddle.ones([1, channels], grad.dtype)

        normal = paddle.addmm(x, paddle.matmul(x, mean_of), ones, alpha=-1.0)  # x - mean
        variance = paddle.matmul(normal * normal, mean_of)
        inverse = paddle.rsqrt(variance + ctx.epsilon)  # [rows, 1]
        normal.multiply_(inverse)

        product = grad * normal
        grad_weight, grad_bias = _column_sums(product), _column_sums(grad)
        if ctx.x_stop_gradient:
            return None, grad_weight, grad_bias
        weighted_mean = (weight * (1.0 / channels)).reshape([channels, 1])
        normal.multiply_(paddle.matmul(product, weighted_mean))
        grad_x = (grad * weight).subtract_(normal)
        grad_x = paddle.addmm(grad_x, paddle.matmul(grad, weighted_mean), ones, alpha=-1.0)
        return grad_x.multiply_(inverse).reshape(shape), grad_weight, grad_bias


class CpuGelu(PyLayer):
    """Exact GELU that computes its derivative on the way and keeps that in place of the input.

    ``y = x P(x)`` and ``y' = P(x) + x p(x)`` with ``P(x) = (1 + erf(x / sqrt 2)) / 2`` and ``p``
    the normal density: the backward pass is one product.

    Source: Hendrycks and Gimpel 2016, arXiv:1606.08415.
    """

    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor) -> paddle.Tensor:
        """Compute it, and keep what the backward pass needs."""
        scaled = x * math.sqrt(0.5)
        cumulative = paddle.erf(scaled).scale_(0.5, 0.5)
        y = x * cumulative
        # p(x) x = exp(-x^2 / 2) x / sqrt(2 pi); scaled * scaled is x^2 / 2
        density = paddle.exp((scaled.multiply_(scaled)).scale_(-1.0))
        slope = density.multiply_(x).scale_(1.0 / math.sqrt(2.0 * math.pi)).add_(cumulative)
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    def backward(ctx: Any, grad: paddle.Tensor) -> paddle.Tensor:
        """The gradients, in the order of the arguments."""
        (slope,) = ctx.saved_tensor()
        return grad * slope

    @staticmethod
    def value(x: paddle.Tensor) -> paddle.Tensor:
        """GELU alone, where no gradient will be asked for."""
        return paddle.erf(x * math.sqrt(0.5)).scale_(0.5, 0.5).multiply_(x)


def _column_sums(rows: paddle.Tensor) -> paddle.Tensor:
    """``[rows, n] -> [n]``."""
    ones = paddle.ones([1, rows.shape[0]], rows.dtype)
    return paddle.matmul(ones, rows).reshape([-1])

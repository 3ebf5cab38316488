"""Eight-bit integers: a scale for each channel of a weight, a range for each tensor of activations.

A weight channel is symmetric, ``q = round(w / s)`` in [-127, 127] with ``s = max|w| / 127``.  An
activation has a range [lo, hi] that contains 0: ``s = (hi - lo) / 255``, ``q = round(x / s) + z``
in [0, 255] with ``z = round(-lo / s)``.  Halves go to even.  Everything is float32, as in ONNX's
QuantizeLinear and DequantizeLinear, so that an exported model computes the same numbers.

Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference"; Wu et al. 2020, "Integer Quantization for Deep Learning
Inference" for percentile and squared error.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
from paddle import Tensor
from paddle.autograd import PyLayer

__all__ = [
    "BINS",
    "choose_range",
    "grids",
    "quantize_activation",
    "quantize_weight",
    "weight_scale",
]

#: Cells of the histogram of an activation.
BINS = 2048
#: Added to a float32 below 2^22 and taken away again, it leaves a whole number, halves to even.
_MAGIC = 1.5 * 2.0**23
#: The least scale, that of PyTorch: a tensor that is 0 throughout stays 0.
_LEAST_SCALE = 2.0**-23


def weight_scale(weight: Tensor, channel_axis: int) -> Tensor:
    """The scale of each channel, float32, in the shape that multiplies ``weight``."""
    axes = [axis for axis in range(len(weight.shape)) if axis != channel_axis]
    # Divided by a tensor: by a number Paddle multiplies with its reciprocal.
    scale = weight.astype("float32").abs().amax(axis=axes, keepdim=True) / paddle.full([1], 127.0)
    return paddle.where(scale > 0, scale, paddle.ones_like(scale))


def quantize_weight(weight: Tensor, channel_axis: int) -> Tensor:
    """The nearest values that int8 has, channel by channel; the dtype of ``weight``."""
    scale = weight_scale(weight, channel_axis)
    return (_whole(weight.astype("float32") / scale) * scale).astype(weight.dtype)


def grids(ends: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero point, float32 [n] each, of ranges [n, 2], which are widened to contain 0."""
    nought = paddle.zeros([1])
    lowest, highest = paddle.minimum(ends[:, 0], nought), paddle.maximum(ends[:, 1], nought)
    scale = (highest - lowest) / paddle.full([1], 255.0)
    scale = paddle.maximum(scale, paddle.full([1], _LEAST_SCALE))
    return scale, _whole(paddle.clip((nought - lowest) / scale, 0.0, 255.0))


def quantize_activation(x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """The nearest of the 256 values of a grid; the dtype of ``x``.

    The gradient of what lies on the grid passes as it is; beyond the ends it is that of a constant,
    0, as for PyTorch's ``fake_quantize_per_tensor_affine``.

    Args:
        x: any shape.
        scale, zero: float32 [1] each.
    """
    if x.stop_gradient or not paddle.is_grad_enabled():
        return _on_grid(x, scale, zero)[0]
    return _OnGrid.apply(x, scale, zero)


class _OnGrid(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        values, is_inside = _on_grid(x, scale, zero)
        ctx.save_for_backward(is_inside)
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (is_inside,) = ctx.saved_tensor()
        return grad * is_inside.astype(grad.dtype), None, None


def _on_grid(x: Tensor, scale: Tensor, zero: Tensor) -> tuple[Tensor, Tensor]:
    """The values, and which of them the ends of the grid did not hold back."""
    steps = x.astype("float32") / scale
    # Half a step beyond an end still rounds to it.
    is_inside = (steps > -zero - 0.5) & (steps < 255.5 - zero)
    steps = paddle.minimum(paddle.maximum(steps, -zero), 255.0 - zero)
    return (_whole(steps) * scale).astype(x.dtype), is_inside


def _whole(x: Tensor) -> Tensor:
    return (x + _MAGIC) - _MAGIC


def choose_range(
    counts: np.ndarray, lowest: float, highest: float, method: str, percentile: float
) -> tuple[float, float]:
    """The range of an activation whose values fell so into cells of [lowest, highest].

    Args:
        counts: values in each of the equal cells.
        lowest, highest: of all values.
        method: ``minmax``, ``percentile`` or ``mse``.
        percentile: share of the values that is to be inside, in percent.
    """
    if method == "minmax" or highest <= lowest:
        return lowest, highest
    edges = np.linspace(lowest, highest, len(counts) + 1)
    if method == "percentile":
        share = np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
        outside = (1.0 - percentile / 100.0) / 2.0
        first = int(np.searchsorted(share, outside, side="right")) - 1
        last = int(np.searchsorted(share, 1.0 - outside, side="left"))
        return float(edges[first]), float(edges[last])
    centres = (edges[1:] + edges[:-1]) / 2.0
    factors = np.linspace(0.2, 1.0, 81)
    errors = [_error(centres, counts, lowest * f, highest * f) for f in factors]
    best = float(factors[int(np.argmin(errors))])
    return lowest * best, highest * best


def _error(values: np.ndarray, counts: np.ndarray, lowest: float, highest: float) -> float:
    lowest, highest = min(lowest, 0.0), max(highest, 0.0)
    scale = (highest - lowest) / 255.0
    zero = np.rint(-lowest / scale)
    steps = np.clip(np.rint(values / scale) + zero, 0, 255)
    return float((counts * (values - (steps - zero) * scale) ** 2).sum())

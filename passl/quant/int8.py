"""Eight-bit integers: a scale for each channel of a weight, a range for each tensor of activations.

A weight channel is symmetric, ``q = round(w / s)`` in [-127, 127] with ``s = max|w| / 127``.  An
activation has a range [lo, hi] that contains 0: ``s = (hi - lo) / 255``, ``q = round(x / s) + z``
in [0, 255] with ``z = round(-lo / s)``.  Halves go to even.

Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference"; Wu et al. 2020, "Integer Quantization for Deep Learning
Inference" for percentile and squared error.
"""

from __future__ import annotations

import numpy as np
import paddle
from paddle import Tensor

from passl.quant.rounding import round_half_even

__all__ = ["BINS", "choose_range", "quantize_activation", "quantize_weight"]

#: Cells of the histogram of an activation.
BINS = 2048


def quantize_weight(weight: Tensor, channel_axis: int) -> Tensor:
    """The nearest values that int8 has, channel by channel; the dtype of ``weight``."""
    axes = [axis for axis in range(len(weight.shape)) if axis != channel_axis]
    wide = weight.astype("float64")
    scale = wide.abs().amax(axis=axes, keepdim=True) / 127.0
    scale = paddle.where(scale > 0, scale, paddle.ones_like(scale))
    return (round_half_even(wide / scale) * scale).astype(weight.dtype)


def quantize_activation(x: Tensor, lowest: float, highest: float) -> Tensor:
    """The nearest values that uint8 has over [lowest, highest], widened to contain 0."""
    lowest, highest = min(lowest, 0.0), max(highest, 0.0)
    if highest == lowest:
        return x * 0.0
    scale = (highest - lowest) / 255.0
    zero = float(np.rint(-lowest / scale))
    steps = paddle.clip(round_half_even(x.astype("float64") / scale) + zero, 0.0, 255.0)
    return ((steps - zero) * scale).astype(x.dtype)


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

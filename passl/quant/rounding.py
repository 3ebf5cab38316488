"""Rounding float32 to fewer bits, exactly, on any device and version of Paddle.

A number is divided by the step of its binade, rounded to a whole number and multiplied again, all
in float64, where each of these operations is exact or correctly rounded.  Paddle's own cast to
float16 does the same in one pass where it can be trusted; on a CPU, Paddle 2.6's does not round to
nearest.

Source: IEEE 754-2019, sections 3.4 and 4.3.1; NVIDIA's TF32 has 8 bits of exponent and 10 of
mantissa; QPyTorch's ``float_quantize`` for the second way of rounding, as myrtle-vision uses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Literal

import numpy as np
import paddle
from paddle import Tensor
from paddle.autograd import PyLayer

__all__ = ["FP16", "TF32", "Format", "Rounder", "round_half_even", "straight_through"]

Rounding = Literal["ieee", "qpytorch"]
Rounder = Callable[[Tensor], Tensor]

#: Added and taken away again, it leaves a float64 below 2^51 a whole number, halves to even.
_MAGIC = 1.5 * 2.0**52
#: Half of the smallest fp16: it and what is below become 0.
_TO_ZERO = 2.0**-25
_LOWEST = -160
#: 2^-160 to 2^160, looked up instead of computed.
_POWERS = 2.0 ** np.arange(_LOWEST, -_LOWEST + 1, dtype=np.float64)


@dataclass(frozen=True)
class Format:
    """A binary floating-point format.

    Attributes:
        name: for people.
        mantissa: bits of the mantissa that are stored.
        min_exponent: of the smallest normal number; subnormals below have its step.
        max_exponent: of the largest numbers; IEEE overflows to infinity beyond them.
    """

    name: str
    mantissa: int
    min_exponent: int
    max_exponent: int

    def round(self, x: Tensor, rounding: Rounding = "ieee") -> Tensor:
        """The nearest number of the format to each of ``x``; the dtype of ``x``.

        Args:
            x: floating-point tensor.
            rounding: ``ieee``: half to even, infinity beyond the largest; ``qpytorch``: half away
                from zero, the exponent of infinity used for numbers (131008 for fp16), nothing
                beyond it.
        """
        if rounding == "ieee" and self is FP16 and _casts_exactly(str(x.place)):
            # A tensor of 0: with a number Paddle adds another 0, which ends the sign.
            settled = paddle.where(x.abs() > _TO_ZERO, x, x * paddle.zeros([1], x.dtype))
            return settled.astype("float16").astype(x.dtype)
        wide = x.astype("float64")
        step = self._step(wide)
        ratio = wide / step
        if rounding == "ieee":
            result = round_half_even(ratio) * step
            limit = 2.0 ** (self.max_exponent + 1)
            infinity = paddle.sign(wide) * float("inf")
            result = paddle.where(result.abs() >= limit, infinity, result)
        else:
            result = paddle.sign(ratio) * paddle.floor(ratio.abs() + 0.5) * step
            largest = (2.0 - 2.0**-self.mantissa) * 2.0 ** min(self.max_exponent + 1, 127)
            result = paddle.clip(result, -largest, largest)
        one = paddle.ones([1], wide.dtype)
        # The magic number and sign() lose the sign of what becomes 0.
        result = result.abs() * paddle.where(wide < 0, -one, one)
        # Infinities and NaN have no binade, and -0 is what it is. (To Paddle 1e-9 equals 0.)
        has_binade = paddle.logical_and(paddle.isfinite(wide), wide.abs() > 0)
        return paddle.where(has_binade, result, wide).astype(x.dtype)

    def _step(self, wide: Tensor) -> Tensor:
        """The distance of neighbours of the format around each number."""
        magnitude = paddle.where(paddle.isfinite(wide), wide, paddle.ones_like(wide)).abs()
        exponent = paddle.floor(paddle.log2(paddle.clip(magnitude, min=2.0**-150)))
        exponent = paddle.clip(exponent, self.min_exponent, 127)
        index = (exponent - float(self.mantissa + _LOWEST)).astype("int64")
        table = paddle.to_tensor(_POWERS, place=wide.place)
        return paddle.gather(table, index.reshape([-1])).reshape(wide.shape)


FP16 = Format("fp16", mantissa=10, min_exponent=-14, max_exponent=15)
TF32 = Format("tf32", mantissa=10, min_exponent=-126, max_exponent=127)


def round_half_even(x: Tensor) -> Tensor:
    """Whole numbers of float64 below 2^51 in magnitude, halves to even."""
    return (x + _MAGIC) - _MAGIC


def straight_through(rounder: Rounder, x: Tensor) -> Tensor:
    """``rounder(x)``, whose gradient is taken for that of ``x``.

    Source: Bengio et al. 2013, "Estimating or Propagating Gradients Through Stochastic Neurons".
    """
    if x.stop_gradient or not paddle.is_grad_enabled():
        return rounder(x)
    return _StraightThrough.apply(x, rounder)


class _StraightThrough(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rounder: Rounder) -> Tensor:  # noqa: ARG004
        return rounder(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: ARG004
        return grad


#: Numbers on which a cast that does not round to nearest, half to even, gives itself away.
_PROBE = np.array(
    [1 + 2.0**-11, 1 + 3 * 2.0**-11, 1 + 2.0**-11 + 2.0**-20, 3 * 2.0**-26, 65519.0, 65520.0],
    np.float32,
)
_EXACT: dict[str, bool] = {}


def _casts_exactly(place: str) -> bool:
    """Whether Paddle's cast to float16 on this device is IEEE's; asked once a device."""
    if place not in _EXACT:
        found = paddle.to_tensor(_PROBE).astype("float16").astype("float32").numpy()
        with np.errstate(over="ignore"):
            wanted = _PROBE.astype(np.float16).astype(np.float32)
        _EXACT[place] = bool((found == wanted).all())
    return _EXACT[place]

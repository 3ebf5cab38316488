"""A sum that does not depend on the order of its terms, nor on how they are shared out.

Floating-point addition rounds after each term, so another batch size or number of processes gives
other last digits.  Here the terms are added as integers: one counter for each power of two, into
which float32 numbers of that size are added as whole multiples of it.  The counters of several
processes add up exactly as well, and the total is rounded once, in the end.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

__all__ = ["ExactSum"]

# float32 is m * 2**(e - 24) with a whole |m| < 2**24 and -148 <= e <= 128 (subnormals included).
_LOWEST, _HIGHEST, _DIGITS = -148, 128, 24
_POWERS = _HIGHEST - _LOWEST + 1


class ExactSum:
    """The exact sum of up to 2**39 float32 numbers.

    Attributes:
        counters: int64 [:attr:`SIZE`]; those of two sums may be added.
    """

    #: One counter a power of two, then NaNs, +inf and -inf.
    SIZE = _POWERS + 3

    def __init__(self) -> None:
        self.counters = np.zeros(self.SIZE, dtype=np.int64)

    def add(self, values: np.ndarray) -> None:
        """Add all of ``values``, rounded to float32."""
        values = np.asarray(values).astype(np.float32).reshape(-1)
        finite = np.isfinite(values)
        if not finite.all():
            self.counters[-3:] += [
                np.isnan(values).sum(), np.isposinf(values).sum(), np.isneginf(values).sum()
            ]  # fmt: skip
            values = values[finite]
        parts, exponents = np.frexp(values.astype(np.float64))
        whole = np.round(np.ldexp(parts, _DIGITS)).astype(np.int64)
        np.add.at(self.counters, np.maximum(exponents, _LOWEST) - _LOWEST, whole)

    def value(self) -> float:
        """The sum, rounded to float64 once; NaN or infinite as floating-point addition has it."""
        nan, plus, minus = (int(count) for count in self.counters[-3:])
        if nan or (plus and minus):
            return math.nan
        if plus or minus:
            return math.inf if plus else -math.inf
        total = sum(int(count) << power for power, count in enumerate(self.counters[:-3]))
        return float(Fraction(total) * Fraction(2) ** (_LOWEST - _DIGITS))

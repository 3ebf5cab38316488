"""Lengths of time as people write them: seconds, or text such as ``1h30m``."""

from __future__ import annotations

import math
import re
from typing import Union

__all__ = ["parse_duration"]

_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_PARTS = re.compile(
    r"\s*".join(rf"(?:(?P<{unit}>\d+(?:\.\d+)?)\s*{unit})?" for unit in _SECONDS), re.IGNORECASE
)


def parse_duration(value: Union[int, float, str]) -> float:
    """The length of time in seconds.

    Args:
        value: seconds, or days, hours, minutes and seconds in this order, any of them left out:
            ``90``, ``"90s"``, ``"1h30m"``, ``"1.5h"``, ``"2d 12h"``.

    Raises:
        ValueError: it is neither, or it is not above zero; the text says what would be right.
    """
    if isinstance(value, str):
        found = _PARTS.fullmatch(value.strip())
        parts = {k: v for k, v in found.groupdict().items() if v} if found is not None else {}
        if not parts:
            raise ValueError(f"{value!r} is no length of time; write seconds, or 45m, 1h30m, 2d")
        seconds = sum(float(number) * _SECONDS[unit] for unit, number in parts.items())
    else:
        seconds = float(value)
    if not (seconds > 0 and math.isfinite(seconds)):
        raise ValueError(f"{value!r} is not above zero; write seconds, or 45m, 1h30m, 2d")
    return seconds

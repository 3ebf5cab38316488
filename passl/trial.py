"""What Paddle has and nobody could try on every device: tried once there, before it is used.

A kernel may be missing in a build, want its numbers in other dtypes, or be wrong.  Whoever has a
slower way to the same numbers tries the faster one on a few small tensors first, and takes the
slower one where that fails, with one warning.
"""

from __future__ import annotations

import warnings
from typing import Callable, Optional

import paddle

__all__ = ["works_here"]

#: What was tried, and the device it was tried on -> whether it works.
_FOUND: dict[tuple[str, str], bool] = {}


def works_here(what: str, trial: Callable[[], Optional[str]], instead: str) -> bool:
    """Whether something of Paddle works on the current device; tried there the first time only.

    Args:
        what: its name, by which it is remembered and which begins the warning.
        trial: says what is wrong, None if nothing is; it may raise anything.
        instead: what is done where it does not work, the end of the warning.
    """
    device = str(paddle.device.get_device())
    key = what, device
    if key not in _FOUND:
        try:
            problem = trial()
        except Exception as error:  # whatever a kernel says about itself: another way goes on
            problem = f"it failed with {type(error).__name__}: {str(error).strip()[:200]}"
        if problem:
            warnings.warn(f"{what} is not used on {device}: {problem}; {instead}", stacklevel=3)
        _FOUND[key] = problem is None
    return _FOUND[key]

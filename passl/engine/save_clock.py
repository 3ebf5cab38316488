"""When a checkpoint is due by the clock instead of by steps (``Global.save_unit: minute``)."""

from __future__ import annotations

import time
from typing import Callable, Optional

__all__ = ["SaveClock"]


class SaveClock:
    """Says that so much time has passed since the last checkpoint; once, until the next one.

    It counts by a clock that nobody can set back.

    Args:
        every_s: seconds; None: never.
        now: the clock, in seconds.
    """

    def __init__(self, every_s: Optional[float], now: Callable[[], float] = time.monotonic) -> None:
        self._every_s, self._now = every_s, now
        self._next = now() + (every_s or 0.0)

    def is_due(self) -> bool:
        """Whether it is time; having said so it waits as long again, as the answer comes later."""
        if self._every_s is None or self._now() < self._next:
            return False
        self.restart()
        return True

    def restart(self) -> None:
        """A checkpoint was made: count from now."""
        if self._every_s is not None:
            self._next = self._now() + self._every_s

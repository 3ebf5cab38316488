"""How long a step takes and how much of it is waiting for data.

Only clocks of the host are read: nothing here waits for the device.  Over a window of steps the
figures are right nevertheless, because the loop waits for the device when a line is logged.
"""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Callable, Optional

__all__ = ["Throughput", "host_memory_gb"]


class Throughput:
    """Mean seconds a step, seconds of waiting for data, and images a second, over the last steps.

    The loop calls, in this order::

        speed.restart()                        # before the first step and after every pause
        for batch in loader:
            speed.data_ready()                 # the batch is here
            ...                                # the step
            speed.step_done(batch.global_size)

    Args:
        window: number of steps to average over.
        warm_up: steps at the start of the run that are not counted: caches fill, memory is
            allocated.
        clock: seconds that only grow.
    """

    def __init__(
        self, window: int = 10, warm_up: int = 1, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._clock = clock
        self._warm_up = warm_up
        self._last_warm_up: Optional[tuple[float, float, int]] = None
        self._steps: deque[tuple[float, float, int]] = deque(maxlen=max(window, 1))
        self._began = self._ready = clock()
        #: Sums over all counted steps.
        self.total_s = 0.0
        self.total_images = 0
        self.num_steps = 0

    def restart(self) -> None:
        """Begin a step now: what came since the last (evaluation, a checkpoint) is not counted."""
        self._began = self._ready = self._clock()

    def data_ready(self) -> None:
        """The batch has arrived; waiting for it ends."""
        self._ready = self._clock()

    def step_done(self, num_images: int) -> None:
        """The step ends and the next begins.

        Args:
            num_images: images of the step over all ranks.
        """
        now = self._clock()
        step = (now - self._began, self._ready - self._began, num_images)
        if self._warm_up > 0:
            self._warm_up -= 1
            self._last_warm_up = step
        else:
            self._steps.append(step)
            self.total_s += step[0]
            self.total_images += num_images
            self.num_steps += 1
        self._began = self._ready = now

    @property
    def batch_cost_s(self) -> float:
        """Mean seconds a step, data included; 0 before the first."""
        return self._mean(0)

    @property
    def reader_cost_s(self) -> float:
        """Mean seconds of a step spent waiting for data; 0 before the first."""
        return self._mean(1)

    @property
    def ips(self) -> float:
        """Images a second over the window; 0 before the first step."""
        steps = self._window()
        seconds = sum(step[0] for step in steps)
        return sum(step[2] for step in steps) / seconds if seconds > 0 else 0.0

    @property
    def average_ips(self) -> float:
        """Images a second over all counted steps; 0 before the first."""
        return self.total_images / self.total_s if self.total_s > 0 else 0.0

    def eta_s(self, steps_left: int) -> float:
        """Seconds that ``steps_left`` more steps will take at the speed of the window."""
        return self.batch_cost_s * steps_left

    def _mean(self, place: int) -> float:
        steps = self._window()
        return sum(step[place] for step in steps) / len(steps) if steps else 0.0

    def _window(self) -> list[tuple[float, float, int]]:
        """The counted steps; before there are any, the last of the warm-up."""
        if self._steps:
            return list(self._steps)
        return [self._last_warm_up] if self._last_warm_up else []


def host_memory_gb() -> float:
    """Memory that this process holds now, in GB; 0 where the system does not tell."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**30
    return 0.0

"""What all schedules share: a clock in updates or epochs, and the warm-up ramp.

The convention, once for all of them: update ``k`` (0-based) is made with ``f(k)``.  With a warm-up
from 0 the very first update therefore has rate 0 exactly, as in Optax and in PASSL.  Per-epoch
schedules use ``f(e)`` with ``e`` the 0-based epoch the update belongs to, so a rate holds for a
whole epoch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated, Union

from passl.registry import Runtime

__all__ = ["Schedule"]


class Schedule(ABC):
    """A learning rate that depends on the update number and nothing else.

    A sub-class says what happens after the warm-up in :meth:`decay`.

    Args:
        total_steps: updates of the whole run, at least 1.
        steps_per_epoch: updates of one epoch, at least 1.
        unit: ``step`` for a new rate at each update, ``epoch`` for one rate a whole epoch.
        warmup_steps: length of the warm-up in updates.
        warmup_epochs: length of the warm-up in epochs, fractions allowed; give one of the two.
        warmup_start_lr: rate of the first update of the warm-up.
        warmup_end_lr: rate the warm-up leads to.
        warmup_inclusive: reach ``warmup_end_lr`` with the last update of the warm-up, as
            ``numpy.linspace`` does, and not with the first one after it.

    Attributes:
        total: length of the run in ``unit``.
        warmup: length of the warm-up in ``unit``, never longer than ``total``.
        notes: sentences for the log, such as a warm-up that was shortened to the run.

    Raises:
        ValueError: an argument has no meaning (a run of no steps, two warm-up lengths, ...).
    """

    def __init__(
        self,
        *,
        total_steps: Annotated[int, Runtime()],
        steps_per_epoch: Annotated[int, Runtime()],
        unit: str,
        warmup_steps: int = 0,
        warmup_epochs: float = 0.0,
        warmup_start_lr: float = 0.0,
        warmup_end_lr: float = 0.0,
        warmup_inclusive: bool = False,
    ) -> None:
        name = type(self).__name__
        if total_steps < 1 or steps_per_epoch < 1:
            raise ValueError(
                f"{name}: a schedule needs a run of at least 1 step and epochs of at least 1 step, "
                f"found total_steps={total_steps} and steps_per_epoch={steps_per_epoch}"
            )
        if warmup_steps < 0 or warmup_epochs < 0:
            raise ValueError(f"{name}: a warm-up cannot be negative; 0 turns it off")
        if warmup_steps and warmup_epochs:
            raise ValueError(
                f"{name}: warmup_steps={warmup_steps} and warmup_epochs={warmup_epochs:g} are two "
                "lengths for one warm-up; keep one of them"
            )
        self.unit = unit
        self.steps_per_epoch = steps_per_epoch
        self.total = total_steps if unit == "step" else math.ceil(total_steps / steps_per_epoch)
        self.warmup_start_lr = warmup_start_lr
        self.warmup_end_lr = warmup_end_lr
        self.notes: list[str] = []
        self.warmup = self._warmup_in_units(warmup_steps, warmup_epochs)
        if unit == "epoch" and self.warmup and not warmup_start_lr:
            self.notes.append(
                f"{name}: the rate is 0 for the whole first epoch, which trains nothing, as the "
                "warm-up starts from 0 and moves once an epoch; write unit: step, or a "
                "warmup_start_lr above 0"
            )
        self._ramp = self.warmup - 1 if warmup_inclusive and self.warmup > 1 else self.warmup

    def __call__(self, step: int) -> float:
        """The learning rate of update number ``step`` (0-based); at the end's value beyond it."""
        now = self.time(step)
        if now < self.warmup:
            part = min(1.0, now / self._ramp)
            return self.warmup_start_lr + (self.warmup_end_lr - self.warmup_start_lr) * part
        return self.decay(now)

    def time(self, step: int) -> int:
        """Where update ``step`` is, in this schedule's unit."""
        return step if self.unit == "step" else step // self.steps_per_epoch

    def progress(self, now: float) -> float:
        """The part of the time after the warm-up that has passed, 0 to 1."""
        length = self.total - self.warmup
        if length <= 0:  # the whole run is warm-up: the decay is only ever met at its end
            return 0.0 if now <= self.warmup else 1.0
        return min(1.0, max(0.0, (now - self.warmup) / length))

    @abstractmethod
    def decay(self, now: int) -> float:
        """The rate at time ``now`` (in units), for ``now`` not before the end of the warm-up."""

    def _warmup_in_units(self, warmup_steps: int, warmup_epochs: float) -> Union[int, float]:
        if self.unit == "step":
            wanted: Union[int, float] = warmup_steps or round(warmup_epochs * self.steps_per_epoch)
        else:
            wanted = warmup_epochs or warmup_steps / self.steps_per_epoch
        if wanted <= self.total:
            return wanted
        self.notes.append(
            f"{type(self).__name__}: a warm-up of {wanted:g} {self.unit}s is longer than the run "
            f"of {self.total} {self.unit}s; the rate rises until the last of them"
        )
        return self.total


def half_cosine(progress: float) -> float:
    """1 at ``progress`` 0, 0 at 1, along half a cosine."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))

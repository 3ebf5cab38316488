"""The cosine of timm and DeiT, whose cosine runs underneath the warm-up."""

from __future__ import annotations

from typing import Annotated, Literal

from passl.registry import SCHEDULES, Range, Runtime
from passl.schedules.base import Schedule, half_cosine

__all__ = ["TimmCosine"]


@SCHEDULES.register()
class TimmCosine(Schedule):
    """Warm-up, then one half cosine from ``learning_rate`` to ``eta_min``.

    Without ``warmup_prefix`` the cosine counts from the start of the run, so the rate just after
    the warm-up is already a little below ``learning_rate`` (and far below it when the warm-up takes
    most of the run); with it, the cosine starts when the warm-up ends.

    Args:
        learning_rate: the highest rate.
        unit: a new rate at each update, or one a whole epoch (timm's default).
        eta_min: the lowest rate, at the end.
        warmup_epoch: length of the warm-up in epochs, also where the unit is ``step``.
        warmup_start_lr: rate of the first update.
        warmup_prefix: start the cosine after the warm-up instead of under it.
        lag_epochs: be so many epochs late, where the unit is ``epoch``: the first ones all have the
            first rate.  1 is what DeiT's training code does, and LM4VisualEncoding's after it.
        last_epoch: accepted because PASSL's configs need it to avoid a division by zero.

    Source: timm ``CosineLRScheduler`` with one cycle (SGDR, arXiv:1608.03983); PASSL's
        ``TimmCosine``.  At and after the end the rate is ``eta_min`` (PASSL's starts again).
    """

    def __init__(
        self,
        *,
        learning_rate: Annotated[float, Range(min=0.0)],
        unit: Literal["step", "epoch"] = "epoch",
        eta_min: Annotated[float, Range(min=0.0)] = 0.0,
        warmup_epoch: Annotated[float, Range(min=0.0)] = 0.0,
        warmup_start_lr: Annotated[float, Range(min=0.0)] = 0.0,
        warmup_prefix: bool = False,
        lag_epochs: Annotated[int, Range(min=0)] = 0,
        last_epoch: Annotated[int, Range(min=-1, max=0)] = -1,
        total_steps: Annotated[int, Runtime()],
        steps_per_epoch: Annotated[int, Runtime()],
    ) -> None:
        del last_epoch
        if lag_epochs and unit != "epoch":
            raise ValueError(
                f"TimmCosine: lag_epochs={lag_epochs} goes with unit epoch, not with unit {unit}"
            )
        self.learning_rate = learning_rate
        self.eta_min = eta_min
        self.warmup_prefix = warmup_prefix
        self.lag_epochs = lag_epochs
        super().__init__(
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
            unit=unit,
            warmup_epochs=warmup_epoch,
            warmup_start_lr=warmup_start_lr,
            warmup_end_lr=learning_rate,
        )

    def time(self, step: int) -> int:
        """Where update ``step`` is, in this schedule's unit."""
        return max(0, super().time(step) - self.lag_epochs)

    def decay(self, now: int) -> float:
        """The rate at time ``now``."""
        passed = self.progress(now) if self.warmup_prefix else min(1.0, now / self.total)
        return self.eta_min + (self.learning_rate - self.eta_min) * half_cosine(passed)

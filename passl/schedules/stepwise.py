"""Schedules in stairs: values between boundaries, or a factor at each milestone."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Annotated, Literal, Optional

from passl.registry import SCHEDULES, Range, Runtime
from passl.schedules.base import Schedule

__all__ = ["MultiStepDecay", "Step"]


@SCHEDULES.register()
class Step(Schedule):
    """``values[i]`` until ``boundaries[i]``, the last value after the last boundary.

    Args:
        boundaries: times at which the rate changes, rising, in ``unit``, counted from the start of
            the run (the warm-up included).
        values: the rates, one more than there are boundaries.
        unit: whether boundaries are updates or epochs.
        warmup_steps: length of the warm-up in updates.
        warmup_epochs: length of the warm-up in epochs; give one of the two.
        warmup_start_lr: rate of the first update.
        warmup_end_lr: rate the warm-up leads to; null is the value that follows the warm-up
            (PASSL's default of 0 would keep the rate at 0 and then let it jump).
        last_epoch: accepted because PASSL has it.

    Source: PASSL's ``Step``.

    Raises:
        ValueError: the number of values does not fit, or boundaries do not rise.
    """

    def __init__(
        self,
        *,
        boundaries: list[Annotated[int, Range(min=0)]],
        values: list[Annotated[float, Range(min=0.0)]],
        unit: Literal["step", "epoch"] = "epoch",
        warmup_steps: Annotated[int, Range(min=0)] = 0,
        warmup_epochs: Annotated[float, Range(min=0.0)] = 0.0,
        warmup_start_lr: Annotated[float, Range(min=0.0)] = 0.0,
        warmup_end_lr: Optional[Annotated[float, Range(min=0.0)]] = None,
        last_epoch: Annotated[int, Range(min=-1, max=0)] = -1,
        total_steps: Annotated[int, Runtime()],
        steps_per_epoch: Annotated[int, Runtime()],
    ) -> None:
        del last_epoch  # the state of a run is its step
        _check_rising("Step.boundaries", boundaries)
        if len(values) != len(boundaries) + 1:
            raise ValueError(
                f"Step: {len(boundaries)} boundaries separate {len(boundaries) + 1} values, "
                f"found {len(values)}"
            )
        self.boundaries = list(boundaries)
        self.values = list(values)
        super().__init__(
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
            unit=unit,
            warmup_steps=warmup_steps,
            warmup_epochs=warmup_epochs,
            warmup_start_lr=warmup_start_lr,
        )
        follows = self.decay(round(self.warmup))
        self.warmup_end_lr = follows if warmup_end_lr is None else warmup_end_lr

    def decay(self, now: int) -> float:
        """The rate at time ``now``; a boundary belongs to the value after it."""
        return self.values[bisect_right(self.boundaries, now)]


@SCHEDULES.register()
class MultiStepDecay(Schedule):
    """``learning_rate`` times ``gamma`` for each milestone passed.

    Args:
        learning_rate: the first rate.
        milestones: times at which the rate is multiplied, rising, in ``unit``.
        gamma: the factor.
        unit: whether milestones are updates or epochs.
        warmup_steps: length of the warm-up in updates.
        warmup_epochs: length of the warm-up in epochs; give one of the two.
        warmup_start_lr: rate of the first update.
        last_epoch: accepted because PASSL has it.

    Source: PASSL's and Paddle's ``MultiStepDecay``.

    Raises:
        ValueError: milestones do not rise.
    """

    def __init__(
        self,
        *,
        learning_rate: Annotated[float, Range(min=0.0)],
        milestones: list[Annotated[int, Range(min=0)]],
        gamma: Annotated[float, Range(min=0.0)] = 0.1,
        unit: Literal["step", "epoch"] = "step",
        warmup_steps: Annotated[int, Range(min=0)] = 0,
        warmup_epochs: Annotated[float, Range(min=0.0)] = 0.0,
        warmup_start_lr: Annotated[float, Range(min=0.0)] = 0.0,
        last_epoch: Annotated[int, Range(min=-1, max=0)] = -1,
        total_steps: Annotated[int, Runtime()],
        steps_per_epoch: Annotated[int, Runtime()],
    ) -> None:
        del last_epoch  # the state of a run is its step
        _check_rising("MultiStepDecay.milestones", milestones)
        self.learning_rate = learning_rate
        self.milestones = list(milestones)
        self.gamma = gamma
        super().__init__(
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
            unit=unit,
            warmup_steps=warmup_steps,
            warmup_epochs=warmup_epochs,
            warmup_start_lr=warmup_start_lr,
        )
        self.warmup_end_lr = self.decay(round(self.warmup))

    def decay(self, now: int) -> float:
        """The rate at time ``now``; a milestone belongs to the rate after it."""
        return self.learning_rate * self.gamma ** bisect_right(self.milestones, now)


def _check_rising(name: str, times: Sequence[int]) -> None:
    if any(late <= early for early, late in zip(times, times[1:])):
        raise ValueError(f"{name}: must rise from one to the next, found {list(times)}")

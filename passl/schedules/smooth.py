"""Schedules that fall steadily after the warm-up: cosine, line, power; and one that does not fall.

All four start their fall where the warm-up ends and arrive at the last value when the run ends.
"""

from __future__ import annotations

from typing import Annotated, Literal, Optional

from passl.registry import SCHEDULES, Range, Runtime
from passl.schedules.base import Schedule, half_cosine

__all__ = ["Constant", "Cosine", "Linear", "Poly"]


@SCHEDULES.register()
class Cosine(Schedule):
    """Half a cosine from ``learning_rate`` to ``eta_min``.

    Args:
        learning_rate: the highest rate.
        eta_min: the rate at the end.
        unit: a new rate at each update, or one a whole epoch.
        warmup_steps: length of the warm-up in updates.
        warmup_epochs: length of the warm-up in epochs; give one of the two.
        warmup_start_lr: rate of the first update.
        warmup_inclusive: the last update of the warm-up has ``learning_rate`` already, as in
            ConvNeXt's code and its descendants; else the first one after it.

    Source: SGDR, arXiv:1608.03983, equation 5 without restarts.
    """

    def __init__(
        self,
        *,
        learning_rate: Annotated[float, Range(min=0.0)],
        eta_min: Annotated[float, Range(min=0.0)] = 0.0,
        unit: Literal["step", "epoch"] = "step",
        warmup_steps: Annotated[int, Range(min=0)] = 0,
        warmup_epochs: Annotated[float, Range(min=0.0)] = 0.0,
        warmup_start_lr: Annotated[float, Range(min=0.0)] = 0.0,
        warmup_inclusive: bool = False,
        total_steps: Annotated[int, Runtime()],
        steps_per_epoch: Annotated[int, Runtime()],
    ) -> None:
        self.learning_rate = learning_rate
        self.eta_min = eta_min
        super().__init__(
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
            unit=unit,
            warmup_steps=warmup_steps,
            warmup_epochs=warmup_epochs,
            warmup_start_lr=warmup_start_lr,
            warmup_end_lr=learning_rate,
            warmup_inclusive=warmup_inclusive,
        )

    def decay(self, now: int) -> float:
        """The rate at time ``now``."""
        fall = half_cosine(self.progress(now))
        return self.eta_min + (self.learning_rate - self.eta_min) * fall


@SCHEDULES.register()
class Linear(Schedule):
    """A straight line from ``learning_rate`` to ``end_lr``.

    Args:
        learning_rate: the highest rate.
        end_lr: the rate at the end.
        unit: a new rate at each update, or one a whole epoch.
        warmup_steps: length of the warm-up in updates.
        warmup_epochs: length of the warm-up in epochs; give one of the two.
        warmup_start_lr: rate of the first update.
    """

    def __init__(
        self,
        *,
        learning_rate: Annotated[float, Range(min=0.0)],
        end_lr: Annotated[float, Range(min=0.0)] = 0.0,
        unit: Literal["step", "epoch"] = "step",
        warmup_steps: Annotated[int, Range(min=0)] = 0,
        warmup_epochs: Annotated[float, Range(min=0.0)] = 0.0,
        warmup_start_lr: Annotated[float, Range(min=0.0)] = 0.0,
        total_steps: Annotated[int, Runtime()],
        steps_per_epoch: Annotated[int, Runtime()],
    ) -> None:
        self.learning_rate = learning_rate
        self.end_lr = end_lr
        super().__init__(
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
            unit=unit,
            warmup_steps=warmup_steps,
            warmup_epochs=warmup_epochs,
            warmup_start_lr=warmup_start_lr,
            warmup_end_lr=learning_rate,
        )

    def decay(self, now: int) -> float:
        """The rate at time ``now``."""
        return self.end_lr + (self.learning_rate - self.end_lr) * (1.0 - self.progress(now))


@SCHEDULES.register()
class Poly(Schedule):
    """``end_lr + (learning_rate - end_lr) (1 - p) ** power``.

    Args:
        learning_rate: the highest rate.
        power: 1 is a line; PASSL's value is 2.
        last_epoch: of PASSL; ignored, as the state of a run is its step.
        end_lr: the rate at the end.
        unit: a new rate at each update, or one a whole epoch.
        warmup_steps: length of the warm-up in updates.
        warmup_epochs: length of the warm-up in epochs; give one of the two.
        warmup_start_lr: rate of the first update.
        warmup_end_lr: rate the warm-up leads to; null is ``learning_rate`` (PASSL's default of 0
            would keep the rate at 0 and then let it jump).

    Source: PASSL's ``Poly``.
    """

    def __init__(
        self,
        *,
        learning_rate: Annotated[float, Range(min=0.0)],
        power: Annotated[float, Range(min=0.0)] = 2.0,
        end_lr: Annotated[float, Range(min=0.0)] = 0.0,
        unit: Literal["step", "epoch"] = "epoch",
        warmup_steps: Annotated[int, Range(min=0)] = 0,
        warmup_epochs: Annotated[float, Range(min=0.0)] = 0.0,
        warmup_start_lr: Annotated[float, Range(min=0.0)] = 0.0,
        warmup_end_lr: Optional[Annotated[float, Range(min=0.0)]] = None,
        last_epoch: Annotated[int, Range(min=-1, max=0)] = -1,
        total_steps: Annotated[int, Runtime()],
        steps_per_epoch: Annotated[int, Runtime()],
    ) -> None:
        del last_epoch  # PASSL's; the state of a run is its step
        self.learning_rate = learning_rate
        self.power = power
        self.end_lr = end_lr
        super().__init__(
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
            unit=unit,
            warmup_steps=warmup_steps,
            warmup_epochs=warmup_epochs,
            warmup_start_lr=warmup_start_lr,
            warmup_end_lr=learning_rate if warmup_end_lr is None else warmup_end_lr,
        )

    def decay(self, now: int) -> float:
        """The rate at time ``now``."""
        fall = (1.0 - self.progress(now)) ** self.power
        return self.end_lr + (self.learning_rate - self.end_lr) * fall


@SCHEDULES.register()
class Constant(Schedule):
    """One rate for the whole run, after an optional warm-up.

    Args:
        learning_rate: the rate.
        unit: whether the warm-up moves at each update or each epoch.
        warmup_steps: length of the warm-up in updates.
        warmup_epochs: length of the warm-up in epochs; give one of the two.
        warmup_start_lr: rate of the first update.
    """

    def __init__(
        self,
        *,
        learning_rate: Annotated[float, Range(min=0.0)],
        unit: Literal["step", "epoch"] = "step",
        warmup_steps: Annotated[int, Range(min=0)] = 0,
        warmup_epochs: Annotated[float, Range(min=0.0)] = 0.0,
        warmup_start_lr: Annotated[float, Range(min=0.0)] = 0.0,
        total_steps: Annotated[int, Runtime()],
        steps_per_epoch: Annotated[int, Runtime()],
    ) -> None:
        self.learning_rate = learning_rate
        super().__init__(
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
            unit=unit,
            warmup_steps=warmup_steps,
            warmup_epochs=warmup_epochs,
            warmup_start_lr=warmup_start_lr,
            warmup_end_lr=learning_rate,
        )

    def decay(self, now: int) -> float:  # noqa: ARG002 - constant in time
        """The rate."""
        return self.learning_rate

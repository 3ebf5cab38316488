"""What hooks that change a setting of the model with the step have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from passl.engine.hooks.base import Hook
from passl.schedules.phases import cutoff_in_steps

if TYPE_CHECKING:
    from passl.engine.trainer import Trainer

__all__ = ["ScheduledSetting"]


class ScheduledSetting(Hook):
    """Gives the model the setting of a step before the step.

    The setting is a function of the step, so nothing of it is in a checkpoint.  An evaluation after
    step ``k`` uses the setting that step ``k`` was trained with, after a resume as well.

    Args:
        cutoff_epochs: length of a phase in epochs.
        cutoff_steps: the same in steps; give one of the two.

    Raises:
        ValueError: both are given.

    Attributes:
        setting: its name in logs.
        cutoff: length of the phase in steps; known once the run is.
    """

    setting = ""

    def __init__(self, cutoff_epochs: float, cutoff_steps: int) -> None:
        if cutoff_epochs and cutoff_steps:
            raise ValueError(
                f"{type(self).__name__}: cutoff_epochs={cutoff_epochs:g} and "
                f"cutoff_steps={cutoff_steps} are two lengths for one phase; keep one of them"
            )
        self._cutoff_epochs, self._cutoff_steps = cutoff_epochs, cutoff_steps
        self.cutoff = cutoff_steps
        self._now = 0.0

    @abstractmethod
    def value(self, step: int) -> float:
        """The setting of step number ``step``, from 0."""

    @abstractmethod
    def check(self, model: Any) -> None:
        """Refuse a model that has no such setting.

        Raises:
            ConfigError: it has none.
        """

    @abstractmethod
    def apply(self, model: Any, value: float) -> None:
        """Give the model the setting."""

    def plan(self, steps_per_epoch: int) -> None:
        """Learn how long the phase is in steps; :meth:`value` is right from then on."""
        self.cutoff = cutoff_in_steps(self._cutoff_epochs, self._cutoff_steps, steps_per_epoch)

    def on_start(self, trainer: Trainer) -> None:
        """Put the setting of the last step in place, for an evaluation that is still due."""
        self.check(trainer.parts.model)
        self.plan(trainer.plan.steps_per_epoch)
        self._apply(trainer, max(trainer.state.step - 1, 0))

    def on_step_start(self, trainer: Trainer) -> None:
        """Put the setting of this step in place."""
        self._apply(trainer, trainer.state.step)

    def settings(self) -> dict[str, float]:
        """The setting in force, for the log."""
        return {self.setting: self._now}

    def _apply(self, trainer: Trainer, step: int) -> None:
        self._now = self.value(step)
        self.apply(trainer.parts.model, self._now)

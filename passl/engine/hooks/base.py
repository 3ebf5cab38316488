"""The seven moments of a run at which hooks are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from passl.engine.evaluator import EvalResult
    from passl.engine.trainer import Trainer

__all__ = ["Hook", "hooks_by_name"]


class Hook:
    """Base of hooks; override what is needed.

    A hook may ask the run to stop after the current step with ``trainer.request_stop(reason)``.
    What it must remember across a resume goes through :meth:`state_dict`.
    """

    def on_start(self, trainer: Trainer) -> None:
        """Before the first step of this start of the run."""

    def on_step_start(self, trainer: Trainer) -> None:
        """Before each optimizer step; ``trainer.state.step`` is its number, from 0."""

    def on_step_end(self, trainer: Trainer) -> None:
        """After each optimizer step; reading a tensor here waits for the device."""

    def on_eval_end(self, trainer: Trainer, result: EvalResult) -> None:
        """After each evaluation."""

    def on_epoch_end(self, trainer: Trainer) -> None:
        """After the last step of an epoch."""

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        """When the loop is left by an exception, which goes on afterwards."""

    def on_finish(self, trainer: Trainer) -> None:
        """After the final evaluation and checkpoint."""

    def settings(self) -> dict[str, float]:
        """Numbers that the hook sets, by name, for the log lines of training."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What to save in checkpoints: JSON-able."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""


def hooks_by_name(hooks: Sequence[Hook]) -> dict[str, Hook]:
    """Each hook under its class's name, the second of a class with ``_2`` and so on.

    The names under which states are saved: they survive that other hooks are added or removed.
    """
    named: dict[str, Hook] = {}
    for hook in hooks:
        name, number = type(hook).__name__, 1
        while (key := name if number == 1 else f"{name}_{number}") in named:
            number += 1
        named[key] = hook
    return named

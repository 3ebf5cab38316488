"""Stop when the evaluation no longer improves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from passl.engine.hooks.base import Hook
from passl.errors import ConfigError
from passl.registry import HOOKS, Range

if TYPE_CHECKING:
    from passl.engine.evaluator import EvalResult
    from passl.engine.trainer import Trainer

__all__ = ["EarlyStop"]


@HOOKS.register()
class EarlyStop(Hook):
    """End the run after evaluations without improvement, with its state saved.

    Args:
        patience: evaluations in a row without a new best before the run ends.
        min_delta: by how much the criterion must grow to count as better, a fraction for
            accuracies.
    """

    def __init__(
        self,
        *,
        patience: Annotated[int, Range(min=1)] = 5,
        min_delta: Annotated[float, Range(min=0.0)] = 0.0,
    ) -> None:
        self.patience, self.min_delta = patience, min_delta
        self.best = float("-inf")
        self.waited = 0

    def on_start(self, trainer: Trainer) -> None:
        """A run that had already lost its patience does not go on when it is started again.

        Raises:
            ConfigError: nothing is evaluated during training.
        """
        if trainer.parts.evaluator is None:
            raise ConfigError(
                "Hooks: EarlyStop compares evaluations during training, but there are none; set "
                "Global.eval_during_train=true or remove the hook"
            )
        if trainer.state.best is None and self.best != float("-inf"):
            self.best, self.waited = float("-inf"), 0  # it was of another criterion
        self._check(trainer)

    def on_eval_end(self, trainer: Trainer, result: EvalResult) -> None:
        """Count, and ask to stop when patience is at its end."""
        value = result.values["metric"]
        if value > self.best + self.min_delta:
            self.best, self.waited = value, 0
            return
        self.waited += 1
        self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        if self.waited >= self.patience:
            trainer.request_stop(f"no better evaluation for {self.waited} evaluations (EarlyStop)")

    def state_dict(self) -> dict[str, Any]:
        """Best value and evaluations waited."""
        return {"best": self.best if self.best != float("-inf") else None, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self.best = float("-inf") if state["best"] is None else float(state["best"])
        self.waited = int(state["waited"])

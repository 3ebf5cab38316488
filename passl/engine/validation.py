"""Evaluations within a training: when one is due, of which weights, and whether it is the best."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, Optional

from passl.engine.evaluator import EvalResult, EvalStep
from passl.engine.model_facts import evaluation_settings
from passl.engine.plan import RunPlan
from passl.engine.state import Best, TrainState
from passl.engine.train_parts import TrainParts
from passl.errors import PasslError

__all__ = ["Validated", "Validation"]


@dataclass(frozen=True)
class Validated:
    """An evaluation that was due.

    Attributes:
        result: of the weights.
        improved: names of the links to what is the best so far: ``best``, ``best_ema``.
    """

    result: EvalResult
    improved: tuple[str, ...]


class Validation:
    """Evaluates the model that is trained, and its average where there is one.

    Args:
        parts: of the run; without an evaluator nothing is ever due.
        plan: says after which steps.
        state: takes the newest result and the best ones.
    """

    def __init__(self, parts: TrainParts, plan: RunPlan, state: TrainState) -> None:
        self._parts, self._plan, self._state = parts, plan, state

    def is_due(self, is_last: bool) -> bool:
        """Whether the step just made is followed by one; ``is_last`` ones always are."""
        planned = self._plan.is_eval_step(self._state.step)
        return self._parts.evaluator is not None and (planned or is_last)

    def run_if_due(self, poll: Callable[[], bool]) -> Optional[Validated]:
        """Evaluate when it is time: the weights, and their average where there is one.

        Args:
            poll: called before every batch; true ends the evaluation.

        Raises:
            RunStopped: ``poll`` said so; nothing is recorded.
        """
        state, parts = self._state, self._parts
        if parts.evaluator is None or not state.evaluation_due:
            state.evaluation_due = False
            return None
        epoch = self._plan.epoch_of(state.step)
        result = self.of_weights(poll)
        is_averaged = parts.ema is not None and parts.ema.is_evaluated(epoch)
        averaged = self.of_average(poll) if is_averaged else None
        state.evaluation_due = False
        state.last_eval = {**result.values, "step": float(state.step)}
        improved = []
        if _is_better(result, state.best):
            state.best = Best(result.values["metric"], state.step, epoch)
            improved.append("best")
        if averaged is not None and _is_better(averaged, state.best_ema):
            state.best_ema = Best(averaged.values["metric"], state.step, epoch)
            improved.append("best_ema")
        settings = evaluation_settings(parts.model)
        parts.reporter.eval_average(state, result, epoch, settings, averaged)
        return Validated(result, tuple(improved))

    def of_weights(self, poll: Callable[[], bool], prefix: str = "") -> EvalResult:
        """Evaluate the model as it is now, logging as it goes under names with ``prefix``.

        Raises:
            PasslError: there is nothing to evaluate on.
            RunStopped: ``poll`` said so.
        """
        evaluator, reporter = self._parts.evaluator, self._parts.reporter
        if evaluator is None:
            raise PasslError("there is nothing to evaluate on: the config has no DataLoader.Eval")
        epoch = self._plan.epoch_of(self._state.step)
        total = evaluator.loader.num_batches

        def report(step: EvalStep) -> None:
            reporter.eval_step(step, epoch, total, prefix)

        observe = reporter.evaluation_begins(evaluator.loader, prefix)
        return evaluator.run(self._parts.model, report, self._plan.log_every, poll, observe)

    def of_average(self, poll: Callable[[], bool]) -> EvalResult:
        """Evaluate the averaged weights; the model has its own again afterwards, come what may.

        Raises:
            PasslError: the config has no ``EMA``, or there is nothing to evaluate on.
            RunStopped: ``poll`` said so.
        """
        if self._parts.ema is None:
            raise PasslError("there is no average to evaluate: the config has no section EMA")
        with self._parts.ema.swapped_in():
            return self.of_weights(poll, "ema_")


def _is_better(result: EvalResult, best: Optional[Best]) -> bool:
    """Strictly; a first value of NaN must not be the best one for ever."""
    value = result.values.get("metric")
    return value is not None and value > (best.metric if best is not None else -math.inf)

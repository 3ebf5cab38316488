"""Steps whose numbers went wrong: counted, told with their samples, and ended if there are many.

A step whose loss or gradients are not finite changes nothing: weights, optimizer state and average
keep every bit (:meth:`passl.precision.amp.Precision.accept`).  On a CPU, and with fp16's loss
scale, the step itself knows.  Elsewhere only the device knows until the next time figures are read;
until then the skipped step is counted as an update, so the schedule and AdamW's bias correction run
ahead by it.  Both are set right at the reading, which comes at the same steps in every start of a
run: log lines, ends of epochs, checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np

from passl.data.dataset import Dataset
from passl.engine.state import TrainState

__all__ = ["BadStep", "SkippedSteps"]

#: Samples of a bad step that its warning names.
_NAMED = 3


@dataclass(frozen=True)
class BadStep:
    """A step that was skipped because its numbers were not finite.

    Attributes:
        step: its number, from 1.
        indices: this rank's samples, int64 [B].
        loss: this rank's mean loss.
        grad_norm: norm of the gradients of all ranks.
        in_row: how many bad steps in a row it makes.
    """

    step: int
    indices: np.ndarray
    loss: float
    grad_norm: float
    in_row: int

    @property
    def cause(self) -> str:
        """What was wrong, as far as this rank knows."""
        if not math.isfinite(self.loss):
            return f"the loss was {self.loss}"
        return f"the norm of the gradients was {self.grad_norm}"

    def describe(self, dataset: Dataset) -> str:
        """The step in a sentence, with the first few of this rank's samples."""
        shown = [
            f"{index} ({dataset.path_of(index)})" for index in self.indices[:_NAMED].tolist()
        ]
        rest = len(self.indices) - len(shown)
        samples = f"its samples here: {', '.join(shown)}{f' and {rest} more' if rest else ''}"
        return (
            f"step {self.step} was skipped, the weights are as before it: {self.cause}; "
            f"{samples if shown else 'this process had no samples in it'}"
        )


@dataclass(frozen=True)
class _Made:
    step: int
    indices: np.ndarray
    applied: Optional[bool]
    is_bad: bool
    in_row: int


class SkippedSteps:
    """Counts skipped steps in the state, at once or when their figures are read.

    Args:
        state: whose counters are kept.
        limit: bad steps in a row at which the run must end; None for no limit.
    """

    def __init__(self, state: TrainState, limit: Optional[int]) -> None:
        self._state, self._limit = state, limit
        self._pending: list[_Made] = []
        #: The bad steps in a row up to the newest, as far as this start of the run made them.
        self.row: list[BadStep] = []

    @property
    def is_over(self) -> bool:
        """As many bad steps in a row as the limit says."""
        return self._limit is not None and self._state.bad_steps_in_row >= self._limit

    def add(self, indices: np.ndarray, applied: Optional[bool], is_overflow: bool) -> None:
        """Note the step that ``state.step`` does not count yet.

        Args:
            indices: this rank's samples.
            applied: whether the weights were updated; None if only the device knows.
            is_overflow: if they were not, the loss scale explains it.
        """
        is_bad = applied is False and not is_overflow
        if applied is not None:
            self._count(applied, is_bad)
        in_row = self._state.bad_steps_in_row
        self._pending.append(_Made(self._state.step + 1, indices, applied, is_bad, in_row))

    def learn(self, figures: Sequence[Mapping[str, float]]) -> tuple[list[bool], list[BadStep]]:
        """Take what the device says of the steps since the last call.

        Args:
            figures: ``loss`` (a sum over samples), ``samples`` and ``grad_norm`` of each.

        Returns:
            For each step that the device decided on, whether it was applied; and the bad steps.
        """
        made, self._pending = self._pending, []
        decided: list[bool] = []
        bad: list[BadStep] = []
        for each, values in zip(made, figures):
            applied, is_bad, in_row = each.applied, each.is_bad, each.in_row
            if applied is None:
                applied = math.isfinite(values["grad_norm"])
                decided.append(applied)
                is_bad = not applied
                self._count(applied, is_bad)
                in_row = self._state.bad_steps_in_row
            if applied:
                self.row.clear()
            elif is_bad:
                loss = values["loss"] / values["samples"] if values["samples"] else 0.0
                bad.append(BadStep(each.step, each.indices, loss, values["grad_norm"], in_row))
                self.row.append(bad[-1])
        return decided, bad

    def _count(self, applied: bool, is_bad: bool) -> None:
        state = self._state
        state.skipped_steps += int(not applied)
        state.bad_steps += int(is_bad)
        # An overflow that the loss scale explains neither goes on with a row nor ends it.
        if applied:
            state.bad_steps_in_row = 0
        elif is_bad:
            state.bad_steps_in_row += 1

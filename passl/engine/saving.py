"""Checkpoints within a training: what is in them, which links lead to them, when one is due."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from passl.checkpoint.resolve import EMA_NAME
from passl.checkpoint.store import Part
from passl.engine.hooks.base import hooks_by_name
from passl.engine.meters import StepMeter
from passl.engine.model_facts import checkpoint_weights, model_record
from passl.engine.plan import RunPlan
from passl.engine.save_clock import SaveClock
from passl.engine.sharding import ShardedOptimizer
from passl.engine.state import TrainState
from passl.engine.train_parts import TrainParts

__all__ = ["Saving"]


class Saving:
    """Has the whole state of a training written.

    Args:
        parts: of the run.
        plan: says after which steps a checkpoint is due.
        state: what is saved, with what the parts remember.
        meter: sums that a log line is still to be made of.
        is_saved: the next start finds this state by itself, without another checkpoint.

    Attributes:
        clock: says when one is due by time.
    """

    def __init__(
        self,
        parts: TrainParts,
        plan: RunPlan,
        state: TrainState,
        meter: StepMeter,
        *,
        is_saved: bool,
    ) -> None:
        self._parts, self._plan, self._state, self._meter = parts, plan, state, meter
        self._started = time.perf_counter()
        self._saved_step: Optional[int] = state.step if is_saved else None
        self.clock = SaveClock(plan.save_every_s if parts.world.is_main else None)

    @property
    def is_saved(self) -> bool:
        """The state as it is now is in a checkpoint, or on its way into one."""
        return self._saved_step == self._state.step

    def changed(self) -> None:
        """The state is another one, though the step is the same."""
        self._saved_step = None

    def save(self, best: Sequence[str] = ()) -> None:
        """Have a checkpoint of this step written; ``latest`` and the links in ``best`` lead to it.

        Every rank takes part; only the main one has files, and waits for none of them.  All
        figures of the steps before were read.
        """
        self.note_in_state()
        state = self._state
        if self._parts.world.is_main:
            scores = self._scores(best)
            self._parts.saver.submit(state.step, self.contents(), ("latest", *scores), scores)
        self._saved_step = state.step
        self.clock.restart()
        self._parts.reporter.pause_ended()

    def note_in_state(self) -> None:
        """Bring what the parts remember into the state; every rank takes part."""
        state, parts = self._state, self._parts
        if isinstance(parts.optimizer, ShardedOptimizer):
            parts.optimizer.gather_state()
        state.window, state.epoch_sums = self._meter.state()
        state.scaler = parts.precision.state_dict()
        state.ema = parts.ema.state_dict() if parts.ema is not None else {}
        named = hooks_by_name(parts.hooks)
        state.hooks = {name: hook.state_dict() for name, hook in named.items()}
        now = time.perf_counter()
        state.train_time_s += now - self._started
        self._started = now
        state.total_steps = self._plan.total_steps

    def contents(self) -> dict[str, Part]:
        """The files of a checkpoint, copied to the host's memory: later steps do not change it.

        Weights are float32 at every level of precision.
        """
        parts = self._parts
        kept: dict[str, Any] = checkpoint_weights(parts.model)
        if parts.half is not None:
            kept = parts.half.exact(kept)
        averaged: dict[str, Part] = {}
        if parts.ema is not None:
            average = parts.ema.averages()
            averaged[EMA_NAME] = {k: _host(average.get(k, v)) for k, v in kept.items()}
        return {
            "model.pdparams": {k: _host(v) for k, v in kept.items()},
            **averaged,
            "optimizer.pdopt": {k: _host(v) for k, v in parts.optimizer.state_dict().items()},
            "state.json": {
                "state": self._state.to_dict(),
                **parts.record,
                **model_record(parts.model),
            },
        }

    def _scores(self, best: Sequence[str]) -> dict[str, float]:
        """The links besides ``latest`` that lead to a checkpoint of this step, with their values.

        Where the checkpoint of the best evaluation could not be written, ``best`` takes the next
        one that is better than what it leads to.
        """
        state, scores = self._state, {}
        last = state.last_eval
        value = last.get("metric") if last.get("step") == float(state.step) else None
        if value is not None and ("best" in best or self._parts.saver.is_better("best", value)):
            scores["best"] = value
        if "best_ema" in best and state.best_ema is not None:
            scores["best_ema"] = state.best_ema.metric
        return scores


def _host(value: Any) -> np.ndarray:
    """A copy; ``Tensor.numpy`` makes one on every device (measured with Paddle 2.6 and 3.3)."""
    return value.numpy() if hasattr(value, "numpy") else np.asarray(value)

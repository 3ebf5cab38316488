"""The only mutable truth of a training run.

Everything else (learning rate, data order, augmentation, dropout masks) is derived from these
numbers and the config, so restoring them restores the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Optional

from passl.errors import CheckpointError

__all__ = ["Best", "TrainState"]

_MOST = 2**53  # steps and samples, which are also counted in float64


@dataclass
class Best:
    """The best evaluation so far.

    Attributes:
        metric: its value, a fraction for accuracies; larger is better.
        step, epoch: when it was measured.
    """

    metric: float
    step: int
    epoch: int


@dataclass
class TrainState:
    """How far a run has come.

    Attributes:
        step: optimizer steps done, skipped ones included.
        epoch: the epoch that the next step belongs to, from 1.
        samples_in_epoch: samples of that epoch already trained, over all ranks.
        samples_seen: samples trained in the whole run.
        skipped_steps: steps whose update was left out: loss or gradients were not finite.
        best: the best evaluation, or None before the first.
        last_eval: values of the newest evaluation, with its ``step``.
        window: sums since the last log line, float64: see :mod:`passl.engine.meters`.
        epoch_sums: sums since the start of the epoch.
        scaler: state of the loss scale, empty without one.
        hooks: state of each hook by name, see :func:`~passl.engine.hooks.base.hooks_by_name`.
        train_time_s: seconds of all starts of this run, evaluations and saves included.
        total_steps: length of the run when the state was saved.
        evaluation_due: the evaluation due after ``step`` is still to be made: the run was stopped
            before or in it.
        bad_steps: those of the skipped steps that fp16's loss scale does not explain.
        bad_steps_in_row: how many of them the newest steps are.
        best_ema: the best evaluation of the averaged weights.
        ema: counts of the average, see :class:`~passl.precision.ema.WeightAverage`.
    """

    step: int = 0
    epoch: int = 1
    samples_in_epoch: int = 0
    samples_seen: int = 0
    skipped_steps: int = 0
    best: Optional[Best] = None
    last_eval: dict[str, float] = field(default_factory=dict)
    window: dict[str, float] = field(default_factory=dict)
    epoch_sums: dict[str, float] = field(default_factory=dict)
    scaler: dict[str, float] = field(default_factory=dict)
    hooks: dict[str, Any] = field(default_factory=dict)
    train_time_s: float = 0.0
    total_steps: int = 0
    evaluation_due: bool = False
    bad_steps: int = 0
    bad_steps_in_row: int = 0
    best_ema: Optional[Best] = None
    ema: dict[str, int] = field(default_factory=dict)

    @property
    def updates(self) -> int:
        """Optimizer updates really applied: what schedules are functions of."""
        return self.step - self.skipped_steps

    def to_dict(self) -> dict[str, Any]:
        """Plain data; floats survive JSON bit for bit."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: str) -> TrainState:
        """The inverse of :meth:`to_dict`.

        Raises:
            CheckpointError: a field is missing or unknown (written by another version), or holds
                what no training leaves there.
        """
        known = {item.name for item in fields(cls)}
        if set(data) != known:
            missing, unknown = sorted(known - set(data)), sorted(set(data) - known)
            raise CheckpointError(
                f"{source}: the training state has other fields than this version writes "
                f"(missing: {missing or 'none'}, unknown: {unknown or 'none'}); continue it with "
                "the version that wrote it, or start a new run from its weights with "
                "-o Global.output_dir=PATH Global.pretrained_model=<the checkpoint folder>"
            )
        values = dict(data)
        empty = cls()
        wrong = [name for name in sorted(known) if not _fits(values[name], getattr(empty, name))]
        if wrong:
            raise CheckpointError(
                f"{source}: the training state is damaged: {wrong[0]} is "
                f"{str(values[wrong[0]])[:40]!r}; was it edited? Continue from another checkpoint"
            )
        for name in ("best", "best_ema"):
            values[name] = Best(**values[name]) if values[name] else None
        return cls(**values)


def _fits(value: Any, empty: Any) -> bool:
    """Whether ``value`` is of the kind that a field has whose first value is ``empty``."""
    if empty is None:  # a Best
        return value is None or (
            isinstance(value, Mapping)
            and set(value) == {item.name for item in fields(Best)}
            and _is_number(value["metric"])
            and _fits(value["step"], 0)
            and _fits(value["epoch"], 0)
        )
    if isinstance(empty, dict):
        return isinstance(value, Mapping)
    if isinstance(empty, bool):
        return isinstance(value, bool)
    if isinstance(empty, float):
        return _is_number(value)
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

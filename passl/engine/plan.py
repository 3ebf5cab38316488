"""How long a run is and when things are due, all in optimizer steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

__all__ = ["RunPlan", "plan_run"]


@dataclass(frozen=True)
class RunPlan:
    """The lengths of a run.

    Attributes:
        seed: of everything random.
        global_batch_size: samples in one optimizer step over all ranks.
        micro_batch_size: samples in one forward pass of one rank.
        steps_per_epoch: optimizer steps in an epoch.
        total_steps: steps of the whole run; what schedules are planned on.
        last_step: where this run ends: ``total_steps``, or ``max_train_step`` if that is less.
        log_every: steps between log lines.
        eval_every, save_every: steps between evaluations and checkpoints; None for never.
        save_every_s: seconds between checkpoints, instead of steps.
    """

    seed: int
    global_batch_size: int
    micro_batch_size: int
    steps_per_epoch: int
    total_steps: int
    last_step: int
    log_every: int
    eval_every: Optional[int]
    save_every: Optional[int]
    save_every_s: Optional[float] = None

    @property
    def num_epochs(self) -> int:
        """Epochs of the whole run, the last one perhaps incomplete."""
        return -(-self.total_steps // self.steps_per_epoch)

    def is_eval_step(self, step: int) -> bool:
        """An evaluation is due after ``step`` steps."""
        return self.eval_every is not None and step % self.eval_every == 0

    def evaluations_from(self, step: int) -> int:
        """Evaluations from ``step`` on, that after it included; the end of a run always has one."""
        every = self.eval_every
        planned = 0 if every is None else self.last_step // every - max(step - 1, 0) // every
        return planned + (not self.is_eval_step(self.last_step))

    def is_save_step(self, step: int) -> bool:
        """A checkpoint is due after ``step`` steps; always at the end."""
        return step >= self.last_step or (
            self.save_every is not None and step % self.save_every == 0
        )

    def epoch_of(self, step: int) -> int:
        """The epoch (from 1) that the ``step``-th step belongs to."""
        return max(1, -(-step // self.steps_per_epoch))


def plan_run(
    *,
    seed: int,
    global_batch_size: int,
    micro_batch_size: int,
    steps_per_epoch: int,
    epochs: Optional[int],
    max_train_step: Optional[int],
    log_every: int,
    eval_interval: Optional[int],
    eval_unit: str,
    save_interval: int,
    save_unit: str,
) -> RunPlan:
    """A plan from the config's words.

    With ``epochs`` the schedule spans all of them, and ``max_train_step`` only ends the run early
    (as in PASSL); without, the run and its schedule are ``max_train_step`` long.
    """
    total = epochs * steps_per_epoch if epochs is not None else (max_train_step or 0)
    last = min(total, max_train_step) if max_train_step is not None else total
    in_steps = {"epoch": steps_per_epoch, "step": 1}
    return RunPlan(
        seed=seed,
        global_batch_size=global_batch_size,
        micro_batch_size=micro_batch_size,
        steps_per_epoch=steps_per_epoch,
        total_steps=total,
        last_step=last,
        log_every=log_every,
        eval_every=None if eval_interval is None else eval_interval * in_steps[eval_unit],
        save_every=save_interval * in_steps[save_unit] if save_unit in in_steps else None,
        save_every_s=save_interval * 60.0 if save_unit == "minute" else None,
    )

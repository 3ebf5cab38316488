"""What a run tells people and scripts: log lines, ``metrics.jsonl``, curves, the live bar.

The trainer says what happened; this module decides who hears of it.  Only the main process writes
metrics; every process writes its own log.
"""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import paddle

from passl.checkpoint.disk import atomic_file, os_errors_become_sentences
from passl.checkpoint.saver import SaveResult
from passl.config import BatchPlan, Config
from passl.data.loader import Batch
from passl.distributed.world import World
from passl.engine.faults.skipped import BadStep
from passl.engine.plan import RunPlan
from passl.engine.reports.eval_voice import EvalVoice
from passl.engine.reports.summaries import opening, results, what_next, where_files_are
from passl.engine.state import TrainState
from passl.logs import lines
from passl.logs.meters import Throughput, host_memory_gb
from passl.precision.amp import Precision

if TYPE_CHECKING:
    from passl.engine.train_parts import TrainParts
    from passl.engine.trainer import Trainer

__all__ = ["Reporter"]


class Reporter(EvalVoice):
    """The voice of one run.

    Args:
        run_dir, config, mode, world: of :class:`~passl.engine.reports.voice.Voice`.
    """

    def __init__(self, run_dir: Path, config: Config, mode: str, world: World) -> None:
        super().__init__(run_dir, config, mode, world)
        self.device = "cpu"
        self._speed = Throughput(config.Global.print_batch_step)
        self._plan: Optional[RunPlan] = None
        self._last_loss: Optional[float] = None
        self._last_rate: Optional[float] = None
        self._resumed = False

    # -- start -------------------------------------------------------------------------------

    def start(
        self, parts: TrainParts, plan: RunPlan, state: TrainState, batches: BatchPlan
    ) -> None:
        """The summary that opens a training log."""
        self._plan = plan
        self._loss_names.update(parts.loss_names)
        if parts.evaluator is not None:
            self._loss_names.update(parts.evaluator.loss_names)
        if self._metrics is not None:
            with os_errors_become_sentences("write", self.run_dir / "metrics.jsonl"):
                self._open_metrics(state)
            header = f"# command: {shlex.join(sys.argv)}\n"
            resolved = self.run_dir / "config.yaml"
            text = header + self.config.to_yaml(origins=True)
            # As a whole: a disk that is full leaves the one of the start before.
            with os_errors_become_sentences("write", resolved), atomic_file(resolved) as file:
                file.write(text.encode("utf-8", "surrogateescape"))
        for note in self.config.notes:
            self.log(f"config: {note}")
        for line in opening(self.config, parts, plan, state, batches, self.device):
            self.log(line)
        if self._boards is not None:
            criterion = None
            if parts.evaluator is not None:
                criterion = next(iter(parts.evaluator.metric_names), "loss")
            self._boards.start(parts, plan, criterion)
            for command in self._boards.how_to_open():
                self.log(f"watch it: {command}")
        self.log(f"files in {self.run_dir}")
        self._speed.restart()

    def resumed(self, folder: Path, state: TrainState, plan: RunPlan) -> None:
        """Say from where the run goes on."""
        self._resumed = True
        best = f", best {state.best.metric:.5f} at step {state.best.step}" if state.best else ""
        done = state.step % plan.steps_per_epoch
        where = f"batch {done} of {plan.steps_per_epoch} in" if done else "the end of"
        self.log(
            f"continuing from {folder}: step {state.step}, {where} epoch "
            f"{plan.epoch_of(state.step)}, {state.samples_seen:,} samples seen{best}"
        )

    def _open_metrics(self, state: TrainState) -> None:
        assert self._metrics is not None
        if self._resumed:
            again = ("eval",) if state.evaluation_due else ()
            self._metrics.truncate_after(state.step, without=again)
            return
        aside = self._metrics.start_over()
        if aside is not None:
            self.log(f"metrics of an earlier start without a checkpoint are kept in {aside}")

    # -- training ----------------------------------------------------------------------------

    def data_ready(self) -> None:
        """The batch has arrived."""
        self._speed.data_ready()

    def pause_ended(self) -> None:
        """An evaluation or a checkpoint is over; it does not count as training time."""
        self._speed.restart()

    def step(self, state: TrainState, batch: Batch) -> None:
        """One optimizer step was queued."""
        plan = self._the_plan
        self._speed.step_done(batch.global_size)
        if self._boards is not None and self._boards.step(batch, state.step):
            self.pause_ended()
        self._bar.update(
            label=f"epoch {plan.epoch_of(state.step)}/{plan.num_epochs}",
            done=(state.step - 1) % plan.steps_per_epoch + 1,
            total=plan.steps_per_epoch,
            loss=self._last_loss,
            lr=self._last_rate,
            ips=self._speed.ips,
            eta_s=self._eta_s(state.step),
        )

    def gradients(self, parameters: Sequence[tuple[str, Any]], step: int) -> None:
        """The gradients of step number ``step``, from 1, as they are applied."""
        if self._boards is not None:
            self._boards.gradients(parameters, step)

    def train(
        self,
        state: TrainState,
        iteration: int,
        rate: float,
        means: Mapping[str, float],
        precision: Precision,
        settings: Mapping[str, float],
    ) -> None:
        """The line and the record of a log window; ``settings`` are those of its last step."""
        plan, speed = self._the_plan, self._speed
        self._last_loss, self._last_rate = means["loss"], rate
        losses, metrics = self._split(means)
        epoch = plan.epoch_of(state.step)
        figures = lines.TrainFigures(
            epoch=epoch,
            num_epochs=plan.num_epochs,
            iteration=iteration,
            num_iterations=plan.steps_per_epoch,
            lr=rate,
            metrics={**settings, **metrics},
            losses=losses,
            batch_cost_s=speed.batch_cost_s,
            reader_cost_s=speed.reader_cost_s,
            ips=speed.ips,
            eta_s=self._eta_s(state.step),
            max_mem_gb=self._device_memory_gb(),
        )
        self._logger.info(lines.train_line(figures), extra={"fields": lines.train_fields(figures)})
        scale = {} if precision.scaler is None else {"loss_scale": precision.scaler.scale}
        self._record(
            "train",
            state.step,
            epoch,
            {
                "lr": rate,
                **settings,
                **losses,
                **metrics,
                "grad_norm": means["grad_norm"],
                **scale,
                "skipped_steps": state.skipped_steps,
                "bad_steps": state.bad_steps,
                "samples_seen": state.samples_seen,
                "batch_cost": speed.batch_cost_s,
                "reader_cost": speed.reader_cost_s,
                "ips": speed.ips,
                **({"max_mem_gb": figures.max_mem_gb} if figures.max_mem_gb is not None else {}),
                "host_mem_gb": host_memory_gb(),
            },
        )

    def epoch_average(self, state: TrainState, means: Mapping[str, float]) -> None:
        """The averages of a finished epoch."""
        losses, metrics = self._split(means)
        plan = self._the_plan
        self._logger.info(
            lines.train_avg_line(
                epoch=plan.epoch_of(state.step),
                num_epochs=plan.num_epochs,
                metrics=metrics,
                losses=losses,
            ),
            extra={"is_detail": self._bar.is_on},
        )

    def save_ended(self, result: SaveResult) -> None:
        """A checkpoint is complete, or is given up while training goes on."""
        if result.folder is not None:
            said = {"best": "the best so far", "best_ema": "the best average so far"}
            notes = ", ".join(text for name, text in said.items() if name in result.links)
            again = f" at try {result.tries}" if result.tries > 1 else ""
            self.log(f"saved {result.folder}{f' ({notes})' if notes else ''}{again}")
            return
        older = "".join(
            f"; {link} keeps leading to an older one" for link in sorted(result.links - {"latest"})
        )
        tries = f" after {result.tries} tries" if result.tries > 1 else ""
        self.warn(
            f"step {result.step} is not saved{tries}, training goes on: {result.error} The "
            f"checkpoints from before are kept{older}"
        )

    def bad_step(self, bad: BadStep, epoch: int, dataset: Any) -> None:
        """A step was skipped because its numbers were not finite.

        Every process names its own samples; those whose own loss was well say it in their log only.
        """
        own = not math.isfinite(bad.loss)
        say = self._logger.warning if own or self.world.is_main else self._logger.info
        say(bad.describe(dataset))
        self._record(
            "bad_step",
            bad.step,
            epoch,
            {
                "loss": bad.loss,
                "grad_norm": bad.grad_norm,
                "in_row": bad.in_row,
                "sample_ids": " ".join(map(str, bad.indices.tolist())),
            },
        )

    def finished(self, trainer: Trainer) -> None:
        """The last words of a training run: results, time, where things are, what to do next."""
        self._bar.close()
        state, plan = trainer.state, trainer.plan
        commands = []
        if self._boards is not None and self._metrics is not None:
            self._boards.finish(state)
            commands = self._boards.how_to_open()
            self._metrics.close()
        if trainer.stop_reason is not None:
            self.log(f"stopped after step {state.step}: {trainer.stop_reason}")
        ips = self._speed.average_ips if self._speed.num_steps else None
        for line in results(state, plan, ips, self._criterion_name(state.last_eval)):
            self._logger.info(line, extra={"is_good": True})
        for link, best in (("best", state.best), ("best_ema", state.best_ema)):
            linked = trainer.parts.saver.scores.get(link)
            if self.world.is_main and best is not None and linked != best.metric:
                where = "nowhere" if linked is None else f"to a checkpoint of {linked:.5f}"
                self.warn(
                    f"{link} leads {where}: that of the best evaluation is not in this folder"
                )
        for line in where_files_are(self.run_dir, commands):
            self.log(line)
        for line in what_next(self.config, self.run_dir, plan):
            self.log(line)

    # -- inside ------------------------------------------------------------------------------

    @property
    def _the_plan(self) -> RunPlan:
        assert self._plan is not None, "start() comes first"
        return self._plan

    def _eta_s(self, step: int) -> float:
        """Seconds to the end after ``step`` steps: the other steps, and the evaluations to come.

        These are taken to last as long as the newest one. Saves go on beside the steps.
        """
        plan = self._the_plan
        steps_s = self._speed.eta_s(plan.last_step - step)
        return steps_s + plan.evaluations_from(step) * self.evaluation_s

    def _device_memory_gb(self) -> Optional[float]:
        if not self.device.startswith("gpu"):
            return None
        return float(paddle.device.cuda.max_memory_allocated()) / 2**30


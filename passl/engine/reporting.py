"""What a run tells people and scripts: log lines, ``metrics.jsonl``, VisualDL, the live bar.

The trainer says what happened; this module decides who hears of it.  Only the main process writes
metrics; every process writes its own log.
"""

from __future__ import annotations

import logging
import math
import shlex
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional

import paddle

import passl
from passl.checkpoint.disk import os_errors_become_sentences
from passl.checkpoint.resolve import BEST_EMA, EMA_NAME
from passl.checkpoint.saver import SaveResult
from passl.config import BatchPlan, Config
from passl.data.loader import Batch, Loader
from passl.distributed.world import World
from passl.engine.evaluator import EvalResult, EvalStep
from passl.engine.plan import RunPlan
from passl.engine.skipped import BadStep
from passl.engine.state import TrainState
from passl.errors import PasslError
from passl.logs import lines
from passl.logs.lines import format_eta
from passl.logs.logger import setup_logging
from passl.logs.meters import Throughput
from passl.logs.metrics import MetricsWriter, Value
from passl.logs.progress import ProgressBar
from passl.precision.amp import Precision

if TYPE_CHECKING:
    from passl.engine.train_parts import TrainParts
    from passl.engine.trainer import Trainer

__all__ = ["Reporter"]


class Reporter:
    """The voice of one run.

    Args:
        run_dir: folder of the run's files.
        config: what is run.
        mode: ``train`` or ``eval``.
        world: this process among all.
    """

    def __init__(self, run_dir: Path, config: Config, mode: str, world: World) -> None:
        self.run_dir, self.config, self.mode, self.world = run_dir, config, mode, world
        self.device = "cpu"
        self.epoch = 0
        self._logger = setup_logging(run_dir, world.rank, mode)
        self._metrics = (
            MetricsWriter(run_dir, config.Global.use_visualdl) if world.is_main else None
        )
        self._bar = ProgressBar(is_on=None if world.is_main else False)
        self._speed = Throughput(config.Global.print_batch_step)
        self._plan: Optional[RunPlan] = None
        self._loss_names: set[str] = set()  # of training and evaluation, which may differ
        self._last_loss: Optional[float] = None
        self._last_rate: Optional[float] = None
        self._resumed = False

    # -- plain words -------------------------------------------------------------------------

    def log(self, text: str) -> None:
        """Say something, line by line."""
        for line in text.splitlines():
            self._logger.info(line)

    def warn(self, text: str) -> None:
        """Say something that needs attention."""
        self._logger.warning(text)

    def failed(self, error: BaseException) -> None:
        """Leave the reason in the log file; the command itself tells the terminal."""
        self._bar.close()
        text = str(error) if isinstance(error, PasslError) else traceback.format_exc()
        record = self._logger.makeRecord("passl", logging.ERROR, __file__, 0, text, (), None)
        for handler in self._logger.handlers:
            if isinstance(handler, logging.FileHandler):
                handler.emit(record)
        if self._metrics is not None:
            self._metrics.close()

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
            with os_errors_become_sentences("write", resolved):
                resolved.write_text(header + self.config.to_yaml(origins=True), encoding="utf-8")
        for note in self.config.notes:
            self.log(f"config: {note}")
        total = sum(int(parameter.size) for parameter in parts.model.parameters())
        self.log(
            f"train with passl {passl.__version__}, paddle {paddle.__version__} on {self.device}, "
            f"{parts.precision.describe()}"
        )
        self.log(f"model {self.config.Model['name']}: {total:,} parameters")
        self.log(batches.describe())
        self.log(
            f"data: {parts.loader.num_samples:,} training samples, {plan.steps_per_epoch} steps an "
            "epoch"
            + (f"; {parts.evaluator.loader.num_samples:,} to evaluate" if parts.evaluator else "")
        )
        length = f"{_count(plan.total_steps, 'step')}, {_count(plan.num_epochs, 'epoch')}"
        early = f"; stops at step {plan.last_step}" if plan.last_step < plan.total_steps else ""
        self.log(f"run: {length}{early}; from step {state.step}; files in {self.run_dir}")
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
        self._bar.update(
            label=f"epoch {plan.epoch_of(state.step)}/{plan.num_epochs}",
            done=(state.step - 1) % plan.steps_per_epoch + 1,
            total=plan.steps_per_epoch,
            loss=self._last_loss,
            lr=self._last_rate,
            ips=self._speed.ips,
            eta_s=self._speed.eta_s(plan.last_step - state.step),
        )

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
        self._logger.info(
            lines.train_line(
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
                eta_s=speed.eta_s(plan.last_step - state.step),
                max_mem_gb=self._device_memory_gb(),
            )
        )
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
            )
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
        if self._metrics is not None:
            self._metrics.close()
        state, plan = trainer.state, trainer.plan
        if trainer.stop_reason is not None:
            self.log(f"stopped after step {state.step}: {trainer.stop_reason}")
        ips = f" at {self._speed.average_ips:.1f} images/sec" if self._speed.num_steps else ""
        self.log(
            f"done: {_count(state.step, 'step')}, {_count(plan.epoch_of(state.step), 'epoch')}, "
            f"{format_eta(state.train_time_s)} in all, {state.train_time_s:.1f} s{ips}"
        )
        if state.best is not None:
            name = self._criterion_name(state.last_eval)
            self.log(
                f"best {name}: {state.best.metric:.5f} at step {state.best.step} (epoch "
                f"{state.best.epoch})"
            )
            self.log(f"last {name}: {state.last_eval['metric']:.5f}")
            if state.best_ema is not None:
                self.log(
                    f"best {name} of the averaged weights: {state.best_ema.metric:.5f} at step "
                    f"{state.best_ema.step} (epoch {state.best_ema.epoch})"
                )
            for link, best in (("best", state.best), ("best_ema", state.best_ema)):
                linked = trainer.parts.saver.scores.get(link)
                if self.world.is_main and best is not None and linked != best.metric:
                    where = "nowhere" if linked is None else f"to a checkpoint of {linked:.5f}"
                    self.warn(
                        f"{link} leads {where}: that of the best evaluation is not in this folder"
                    )
        self._say_where()

    def stopped(self, sentence: str) -> None:
        """The last words of a run that was asked to stop before its end."""
        self._bar.close()
        if self._metrics is not None:
            self._metrics.close()
        self.log(sentence)

    def _say_where(self) -> None:
        config, run_dir = self.config.argument, self.run_dir
        best = run_dir / "best"
        shown = best if best.exists() else run_dir / "latest"
        self.log(f"weights: {shown}/model.pdparams   log: {run_dir}/train.log")
        if (run_dir / BEST_EMA).exists():
            self.log(f"averaged weights: {run_dir / BEST_EMA}/{EMA_NAME}")
        if self.config.Global.use_visualdl:
            self.log(
                f"curves:  visualdl --logdir {run_dir}/vdl   (numbers: {run_dir}/metrics.jsonl)"
            )
        else:
            self.log(f"numbers: {run_dir}/metrics.jsonl")
        kept = [
            text
            for text in self.config.overrides
            if not text.startswith(("Global.epochs=", "Global.max_train_step="))
        ]
        self.log("next:    evaluate the best checkpoint, or train longer from here")
        trained = [text for text in kept if not text.startswith("Global.pretrained_model=")]
        self.log(f"  passl-eval -c {config}{_options(trained)}")
        longer = [*kept, f"Global.epochs={2 * self._the_plan.num_epochs}"]
        self.log(f"  passl-train -c {config}{_options(longer)}")

    # -- evaluation --------------------------------------------------------------------------

    def eval_step(self, step: EvalStep, epoch: int, num_batches: int, prefix: str = "") -> None:
        """One batch of an evaluation that is due to be logged.

        Args:
            step: the batch.
            epoch: that is evaluated.
            num_batches: of the evaluation.
            prefix: of the names, ``ema_`` for the averaged weights.
        """
        losses, metrics = self._split(step.values, prefix)
        self._logger.info(
            lines.eval_line(
                epoch=epoch,
                iteration=step.number,
                num_iterations=num_batches,
                losses=losses,
                metrics=metrics,
                batch_cost_s=step.batch_cost_s,
                reader_cost_s=step.batch.wait_s,
                ips=step.batch.global_size / max(step.batch_cost_s, 1e-9),
            )
        )

    def eval_average(
        self,
        state: TrainState,
        result: EvalResult,
        epoch: int,
        settings: Mapping[str, float],
        averaged: Optional[EvalResult] = None,
    ) -> None:
        """The result of an evaluation during training, with the settings it was made with.

        Args:
            state: of the run.
            result: of the weights.
            epoch: from 1.
            settings: what besides the weights decides the result, by name.
            averaged: the result of the averaged weights.
        """
        self._log_result(result, epoch)
        self.evaluated_with(settings)
        if state.best is not None:
            self._logger.info(lines.best_line(epoch=epoch, best=state.best.metric))
        values = dict(result.values)
        if averaged is not None:
            self._log_result(averaged, epoch, "ema_")
            values.update({f"ema_{name}": value for name, value in averaged.values.items()})
            if state.best_ema is not None:
                best = state.best_ema.metric
                self._logger.info(lines.best_line(epoch=epoch, best=best, what="ema_metric"))
        bests = {"best": state.best, "best_ema": state.best_ema}
        values.update({name: best.metric for name, best in bests.items() if best is not None})
        self._record(
            "eval",
            state.step,
            epoch,
            {**values, **settings, "samples": result.samples, "ips": result.images_per_s},
        )

    def evaluated_with(self, settings: Mapping[str, float]) -> None:
        """State what besides the weights decides the result of an evaluation."""
        for name, value in settings.items():
            self.log(f"evaluation with {name} {value:g}")

    def eval_reporter(self, loader: Loader, loss_names: list[str]) -> Callable[[EvalStep], None]:
        """What to call during an evaluation that stands alone."""
        self._loss_names.update(loss_names)
        return lambda step: self.eval_step(step, self.epoch, loader.num_batches)

    def eval_result(self, result: EvalResult) -> None:
        """The result of an evaluation that stands alone."""
        self._log_result(result, self.epoch)
        self.log(
            f"evaluated {result.samples:,} samples in {result.seconds:.1f} s "
            f"({result.images_per_s:.1f} images/sec)"
        )

    def _log_result(self, result: EvalResult, epoch: int, prefix: str = "") -> None:
        losses, metrics = self._split(result.values, prefix)
        self._logger.info(
            lines.eval_avg_line(
                epoch=epoch, losses=losses, metrics=metrics, samples=result.samples
            )
        )

    # -- inside ------------------------------------------------------------------------------

    @property
    def _the_plan(self) -> RunPlan:
        assert self._plan is not None, "start() comes first"
        return self._plan

    def _split(
        self, values: Mapping[str, float], prefix: str = ""
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Losses, and metrics with PASSL's ``metric`` (the first one again) after the first.

        Args:
            values: by name.
            prefix: put before every name of the result.
        """
        losses = {name: value for name, value in values.items() if name in self._loss_names}
        metrics: dict[str, float] = {}
        for name, value in values.items():
            if name in losses or name in ("grad_norm", "metric"):
                continue
            metrics[name] = value
            if len(metrics) == 1:
                metrics["metric"] = value
        return (
            {prefix + name: value for name, value in losses.items()},
            {prefix + name: value for name, value in metrics.items()},
        )

    def _record(self, kind: str, step: int, epoch: int, values: Mapping[str, Value]) -> None:
        if self._metrics is not None:
            self._metrics.append({"kind": kind, "step": step, "epoch": epoch, **values})

    def _criterion_name(self, values: Mapping[str, float]) -> str:
        _, metrics = self._split({k: v for k, v in values.items() if k != "step"})
        return next(iter(metrics), "metric")

    def _device_memory_gb(self) -> Optional[float]:
        if not self.device.startswith("gpu"):
            return None
        return float(paddle.device.cuda.max_memory_allocated()) / 2**30


def _options(overrides: Sequence[str]) -> str:
    return f" -o {shlex.join(overrides)}" if overrides else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"

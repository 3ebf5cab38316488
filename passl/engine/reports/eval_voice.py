"""What evaluations say, within a training or alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, Optional

from passl.config import Config
from passl.data.loader import Batch, Loader
from passl.distributed.world import World
from passl.engine.evaluator import EvalResult, EvalStep, Observe
from passl.engine.reports.voice import Voice
from passl.engine.state import TrainState
from passl.logs import lines
from passl.logs.meters import Throughput

__all__ = ["EvalVoice"]


class EvalVoice(Voice):
    """The lines, records and pictures of evaluations.

    Args:
        run_dir, config, mode, world: of :class:`~passl.engine.reports.voice.Voice`.

    Attributes:
        epoch: of the weights, where an evaluation stands alone.
        evaluation_s: seconds that the newest evaluation within a training took, that of the average
            included; 0 before the first.
    """

    def __init__(self, run_dir: Path, config: Config, mode: str, world: World) -> None:
        super().__init__(run_dir, config, mode, world)
        self.epoch = 0
        self.evaluation_s = 0.0

    def evaluation_begins(self, loader: Loader, prefix: str = "") -> Observe:
        """An evaluation begins; returns what is to see every batch of it.

        Args:
            loader: of the evaluation.
            prefix: of the names, ``ema_`` for the averaged weights.
        """
        watch = None
        if self._boards is not None and self.mode == "train" and not prefix:
            watch = self._boards.evaluation(loader)
        speed, label = Throughput(), f"{prefix.replace('_', ' ')}evaluation"
        done = 0

        def see(batch: Batch, logits: Any) -> None:
            nonlocal done
            done += 1
            speed.step_done(batch.global_size)
            left = loader.num_batches - done
            self._bar.update(
                label=label,
                done=done,
                total=loader.num_batches,
                ips=speed.ips,
                eta_s=speed.eta_s(left),
            )
            if watch is not None:
                watch.see(batch, logits)

        return see

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
            ),
            extra={"is_detail": self._bar.is_on},
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
        self.evaluation_s = result.seconds + (averaged.seconds if averaged is not None else 0.0)
        self._log_result(result, epoch)
        self.evaluated_with(settings)
        if state.best is not None:
            self._log_best(lines.best_line(epoch=epoch, best=state.best.metric))
        values = dict(result.values)
        if averaged is not None:
            self._log_result(averaged, epoch, "ema_")
            values.update({f"ema_{name}": value for name, value in averaged.values.items()})
            if state.best_ema is not None:
                best = state.best_ema.metric
                self._log_best(lines.best_line(epoch=epoch, best=best, what="ema_metric"))
        bests = {"best": state.best, "best_ema": state.best_ema}
        values.update({name: best.metric for name, best in bests.items() if best is not None})
        self._record(
            "eval",
            state.step,
            epoch,
            {**values, **settings, "samples": result.samples, "ips": result.images_per_s},
        )
        if self._boards is not None:
            self._boards.evaluated(state.step)

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
        self._bar.close()
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
            ),
            extra={
                "fields": lines.eval_fields(
                    epoch=epoch,
                    losses=losses,
                    metrics=metrics,
                    samples=result.samples,
                    ips=result.images_per_s,
                ),
                "is_good": True,
            },
        )

    def _log_best(self, line: str) -> None:
        """On a terminal "saved ... (the best so far)" says it."""
        self._logger.info(line, extra={"is_detail": True})

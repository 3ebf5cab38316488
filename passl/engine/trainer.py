"""The training loop.

``Trainer.fit`` reads as the algorithm: for each epoch, for each batch, one step; then whatever is
due at this step (a log line, an evaluation, a checkpoint).  Nothing here waits for the device
between log lines; the state that changes is :class:`~passl.engine.state.TrainState` alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional, Union

import numpy as np
import paddle
from paddle import Tensor

from passl.checkpoint.resolve import EMA_NAME
from passl.checkpoint.saver import Saver
from passl.checkpoint.store import CheckpointStore, Part
from passl.data.loader import Batch, Loader
from passl.distributed.reducer import GradientReducer
from passl.distributed.world import World
from passl.engine.distillation import Distillation
from passl.engine.evaluator import EvalResult, EvalStep, Evaluator, to_model_input
from passl.engine.hooks.base import Hook, hooks_by_name
from passl.engine.meters import StepMeter
from passl.engine.model_facts import checkpoint_weights, evaluation_settings, model_record
from passl.engine.plan import RunPlan
from passl.engine.postmortem import give_up
from passl.engine.reporting import Reporter
from passl.engine.save_clock import SaveClock
from passl.engine.sharding import ShardedOptimizer
from passl.engine.skipped import SkippedSteps
from passl.engine.state import Best, TrainState
from passl.engine.stopping import RunStopped, StopWatch
from passl.errors import PasslError
from passl.losses.combined import CombinedLoss
from passl.optim.clip import ClipGradByGlobalNorm, global_norm
from passl.precision.amp import Precision
from passl.precision.ema import WeightAverage

__all__ = ["TrainParts", "Trainer", "step_seed"]


@dataclass
class TrainParts:
    """What :mod:`passl.engine.build` hands to the trainer."""

    model: Any
    loader: Loader
    loss: CombinedLoss
    metrics: Sequence[Any]
    schedule: Any
    optimizer: Any
    clip: Optional[ClipGradByGlobalNorm]
    precision: Precision
    store: CheckpointStore
    saver: Saver
    reporter: Reporter
    hooks: Sequence[Hook]
    evaluator: Optional[Evaluator]
    world: World
    record: Mapping[str, Any]
    overlap: Optional[bool] = None
    ema: Optional[WeightAverage] = None
    max_bad_steps: Optional[int] = None
    distillation: Optional[Distillation] = None

    @property
    def loss_names(self) -> Sequence[str]:
        """Of the losses that :meth:`forward` returns, in the order of the log."""
        return self.loss.names if self.distillation is None else self.distillation.names

    def forward(self, images: Tensor, target: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Logits float32 [B, C] and losses by name; ``loss`` is what is minimised."""
        if self.distillation is not None:
            return self.distillation(self.model, images, target, self.loss, self.precision)
        with self.precision.autocast():
            logits = self.model(images)
        logits = logits.astype("float32")
        return logits, self.loss(logits, target)


class Trainer:
    """Runs training from ``state`` to the end of the plan.

    Args:
        parts: the built parts of the run.
        plan: lengths and intervals in steps.
        state: where to start; a fresh one or one read from a checkpoint.
        is_saved: the next start finds this state by itself, without another save.
    """

    def __init__(
        self, parts: TrainParts, plan: RunPlan, state: TrainState, *, is_saved: bool = True
    ) -> None:
        self.parts, self.plan, self.state = parts, plan, state
        self.parameters = [(n, p) for n, p in parts.model.named_parameters() if not p.stop_gradient]
        self.reducer = GradientReducer(self.parameters, parts.world, parts.overlap)
        names = [*parts.loss_names, *(name for m in parts.metrics for name in m.names)]
        self.meter = StepMeter(names, parts.world)
        self.meter.restore(state.window, state.epoch_sums)
        self.skipped = SkippedSteps(state, parts.max_bad_steps)
        self.stop_reason: Optional[str] = None
        #: Whether the newest step updated the weights; perhaps on the device.
        self.accepted: Union[bool, Tensor] = True
        self._started = time.perf_counter()
        self._saved_step: Optional[int] = state.step if is_saved else None
        self._save_clock = SaveClock(plan.save_every_s if parts.world.is_main else None)
        self.watch = StopWatch()

    # -- the algorithm -----------------------------------------------------------------------

    def fit(self, watch: Optional[StopWatch] = None) -> TrainState:
        """Train to the end of the plan, or until a stop is requested; the state is saved.

        Args:
            watch: says when the run is asked from outside to stop; :attr:`is_complete` tells
                afterwards whether it came to its end all the same.
        """
        state = self.state
        self.watch = watch or self.watch
        try:
            self.parts.model.train()
            self._call_hooks("on_start", self)
            self.watch.attempt.step(state.step)
            self._settle(resumed=True)
            while not self._is_over():
                for batch in self._batches_of_epoch():
                    self.parts.reporter.data_ready()
                    self._call_hooks("on_step_start", self)
                    self.train_step(batch)
                    self._advance(batch)
                    if self.skipped.is_over:
                        self._read_figures()
                    self._call_hooks("on_step_end", self)
                    self._log_if_due(batch)
                    if self._epoch_is_done():
                        self._end_epoch()
                    state.evaluation_due = self._evaluation_is_due()
                    self.watch.attempt.step(state.step)
                    self._settle()
                    if self._is_over():
                        break
            if self._saved_step != state.step:
                self.save()
            self.parts.saver.finish()
            if self.is_complete:
                self._call_hooks("on_finish", self)
        except BaseException as error:
            self._tell_of_failure(error)
            raise
        finally:
            self.parts.loader.close()
            self.parts.saver.abandon()  # nothing is left unless the run failed
            self.parts.store.close()
        if self.is_complete:
            self.parts.reporter.finished(self)
        self.watch.remove_file()
        return state

    @property
    def is_complete(self) -> bool:
        """Nothing is left to train or to evaluate."""
        state = self.state
        is_trained = state.step >= self.plan.last_step or self.stop_reason is not None
        return is_trained and not state.evaluation_due

    def _is_over(self) -> bool:
        """No further step is made in this start of the run."""
        is_trained = self.state.step >= self.plan.last_step or self.stop_reason is not None
        return is_trained or self.watch.reason is not None

    def train_step(self, batch: Batch) -> None:
        """One optimizer step on ``batch``, in micro-batches.

        Each micro-batch's mean loss is weighted with its share of the *global* batch, so the summed
        gradient is that of the mean over all samples: for any accumulation, a ragged last batch and
        any number of ranks alike.
        """
        parts, state = self.parts, self.state
        paddle.seed(step_seed(self.plan.seed, parts.world.rank, state.step))
        sums = dict.fromkeys(self.meter.names, paddle.zeros([]))
        left = len(batch.labels)
        for images, target in self.micro_batches(batch):
            count = float(target.shape[0])
            logits, losses = parts.forward(images, target)
            left -= target.shape[0]
            if not left:
                self.reducer.arm()
            parts.precision.backward(losses["loss"], count / batch.global_size)
            for name, value in self._reported(losses, logits, target, count).items():
                sums[name] = sums[name] + value
        grad_norm, accepted = self._update()
        self.accepted = accepted
        self.meter.add(sums, len(batch.labels), grad_norm)
        known = accepted if isinstance(accepted, bool) else None
        self.skipped.add(batch.indices, known, parts.precision.shrinks_instead)

    def _update(self) -> tuple[Tensor, Union[bool, Tensor]]:
        """Reduce, clip and apply the gradients, unless they or the loss are not finite.

        Returns:
            their norm before clipping, and whether the weights were updated: see
            :meth:`~passl.precision.amp.Precision.accept`.
        """
        parts = self.parts
        self.reducer.finish()
        if parts.clip is not None:  # divides by the scale of the loss in the same pass
            grad_norm = parts.clip(self.parameters, parts.precision.scale)
        else:
            parts.precision.unscale(parameter.grad for _, parameter in self.parameters)
            grad_norm = global_norm(self.parameters)
        left_out = parts.clip.left_out(self.parameters) if parts.clip is not None else []
        if left_out:  # not in the norm, but they must be finite as well
            grad_norm = grad_norm + 0.0 * global_norm(left_out)
        accepted = parts.precision.accept(grad_norm)
        if accepted is not False:
            on_device = None if accepted is True else accepted
            parts.optimizer.step(self.learning_rate, on_device)
            if parts.ema is not None:
                parts.ema.update(on_device)
        parts.optimizer.clear_grad()
        return grad_norm, accepted

    def _read_figures(self) -> None:
        """Read what the steps since the last reading left on the device; told are the bad ones.

        Raises:
            PasslError: there were too many bad steps in a row; a report is written.
        """
        parts = self.parts
        decided, bad = self.skipped.learn(self.meter.flush())
        parts.optimizer.settle(decided)
        if parts.ema is not None:
            parts.ema.settle(decided)
        for step in bad:
            parts.reporter.bad_step(step, self.plan.epoch_of(step.step), parts.loader.dataset)
        if bad and self.skipped.is_over:
            give_up(self)

    @property
    def learning_rate(self) -> float:
        """The rate of the next update: a pure function of the updates done."""
        return float(self.parts.schedule(self.state.updates))

    # -- one epoch ---------------------------------------------------------------------------

    def _batches_of_epoch(self) -> Iterator[Batch]:
        """The batches of the current epoch that are not trained yet; skipped ones cost nothing."""
        done = self.state.step % self.plan.steps_per_epoch
        return self.parts.loader.epoch(self.state.epoch, start_batch=done)

    def micro_batches(self, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and targets of each forward pass; none where this rank has no samples.

        The batch goes to the device in one piece, as bytes; a micro-batch becomes floats when it is
        due, so that accumulation does not hold the whole batch as floats.
        """
        images, target = paddle.to_tensor(batch.images), paddle.to_tensor(batch.labels)
        count, size = len(batch.labels), self.plan.micro_batch_size
        for start in range(0, count, size):
            part = slice(start, start + size)
            some = (images, target) if count <= size else (images[part], target[part])
            yield to_model_input(some[0], self.parts.loader), some[1]

    def _reported(
        self, losses: Mapping[str, Tensor], logits: Tensor, target: Tensor, count: float
    ) -> dict[str, Tensor]:
        """Sums over a micro-batch of what the log shows."""
        with paddle.no_grad():
            sums = {name: value.detach() * count for name, value in losses.items()}
            for metric in self.parts.metrics:
                values = metric(logits.detach(), target)
                sums.update({name: value.astype("float32") for name, value in values.items()})
        return sums

    def _advance(self, batch: Batch) -> None:
        self.state.step += 1
        self.state.samples_in_epoch += batch.global_size
        self.state.samples_seen += batch.global_size

    def _epoch_is_done(self) -> bool:
        return self.state.step % self.plan.steps_per_epoch == 0

    def _end_epoch(self) -> None:
        self._read_figures()
        self.parts.reporter.epoch_average(self.state, self.meter.epoch_means())
        self._call_hooks("on_epoch_end", self)
        self.state.epoch += 1
        self.state.samples_in_epoch = 0

    # -- what is due at a step ---------------------------------------------------------------

    def _log_if_due(self, batch: Batch) -> None:
        reporter, state = self.parts.reporter, self.state
        reporter.step(state, batch)
        iteration = (state.step - 1) % self.plan.steps_per_epoch
        if iteration % self.plan.log_every == 0 or state.step == self.plan.last_step:
            self._read_figures()
            rate = float(self.parts.schedule(max(state.updates - 1, 0)))  # the one this step used
            settings = {k: v for hook in self.parts.hooks for k, v in hook.settings().items()}
            means = self.meter.window_means()
            reporter.train(state, iteration, rate, means, self.parts.precision, settings)

    def _settle(self, resumed: bool = False) -> None:
        """Evaluate and save what is due after this step, unless the run is asked to stop.

        A stop during the evaluation leaves no result and ``evaluation_due`` set, so the next start
        begins with it and goes on as if it had never stopped.  A wish that comes during a save is
        seen right after it.

        Args:
            resumed: no step was made yet; only an evaluation that a stop cut off is due.
        """
        state = self.state
        self.parts.saver.poll()
        is_stopped = self.watch.poll(save=self._save_clock.is_due())
        if is_stopped or (resumed and not state.evaluation_due):
            return
        try:
            improved = self._evaluate_if_due()
        except RunStopped:
            return
        asked = self.watch.take_save()
        if improved or asked or self.plan.is_save_step(state.step):
            self.save(improved)
            self.watch.poll()

    def _evaluation_is_due(self) -> bool:
        last = self.state.step >= self.plan.last_step or self.stop_reason is not None
        return self.parts.evaluator is not None and (
            self.plan.is_eval_step(self.state.step) or last
        )

    def _evaluate_if_due(self) -> tuple[str, ...]:
        """Evaluate when it is time: the weights, and their average where there is one.

        Returns:
            Names of the links to what is the best so far: ``best``, ``best_ema``.

        Raises:
            RunStopped: the run was asked to stop meanwhile; nothing is recorded.
        """
        state = self.state
        if self.parts.evaluator is None or not state.evaluation_due:
            state.evaluation_due = False
            return ()
        epoch = self.plan.epoch_of(state.step)
        ema = self.parts.ema
        result = self.evaluate()
        averaged = self.evaluate_ema() if ema is not None and ema.is_evaluated(epoch) else None
        state.evaluation_due = False
        self._saved_step = None  # what is saved of this step lacks the result
        state.last_eval = {**result.values, "step": float(state.step)}
        improved = []
        if _is_better(result, state.best):
            state.best = Best(result.values["metric"], state.step, epoch)
            improved.append("best")
        if averaged is not None and _is_better(averaged, state.best_ema):
            state.best_ema = Best(averaged.values["metric"], state.step, epoch)
            improved.append("best_ema")
        settings = evaluation_settings(self.parts.model)
        self.parts.reporter.eval_average(state, result, epoch, settings, averaged)
        self._call_hooks("on_eval_end", self, result)
        self.parts.reporter.pause_ended()
        return tuple(improved)

    def evaluate(self) -> EvalResult:
        """Evaluate the model as it is now, logging as it goes."""
        return self._evaluate("")

    def evaluate_ema(self) -> EvalResult:
        """Evaluate the averaged weights; the model has its own again afterwards, come what may.

        Raises:
            PasslError: the config has no ``EMA``.
        """
        if self.parts.ema is None:
            raise PasslError("there is no average to evaluate: the config has no section EMA")
        with self.parts.ema.swapped_in():
            return self._evaluate("ema_")

    def _evaluate(self, prefix: str) -> EvalResult:
        evaluator = self.parts.evaluator
        if evaluator is None:
            raise PasslError("there is nothing to evaluate on: the config has no DataLoader.Eval")
        epoch = self.plan.epoch_of(self.state.step)
        total = evaluator.loader.num_batches

        def report(step: EvalStep) -> None:
            self.parts.reporter.eval_step(step, epoch, total, prefix)

        return evaluator.run(self.parts.model, report, self.plan.log_every, self.watch.poll)

    def save(self, best: Sequence[str] = ()) -> None:
        """Have a checkpoint of this step written; ``latest`` and the links in ``best`` lead to it.

        Every rank takes part; only the main one has files, and waits for none of them.
        """
        self._note_in_state()
        state = self.state
        if self.parts.world.is_main:
            scores = self._scores(best)
            self.parts.saver.submit(state.step, self._contents(), ("latest", *scores), scores)
        self._saved_step = state.step
        self._save_clock.restart()
        self.parts.reporter.pause_ended()

    def _scores(self, best: Sequence[str]) -> dict[str, float]:
        """The links besides ``latest`` that lead to a checkpoint of this step, with their values.

        Where the checkpoint of the best evaluation could not be written, ``best`` takes the next
        one that is better than what it leads to.
        """
        state, scores = self.state, {}
        last = state.last_eval
        value = last.get("metric") if last.get("step") == float(state.step) else None
        if value is not None and ("best" in best or self.parts.saver.is_better("best", value)):
            scores["best"] = value
        if "best_ema" in best and state.best_ema is not None:
            scores["best_ema"] = state.best_ema.metric
        return scores

    def _note_in_state(self) -> None:
        """Bring what other parts remember into the state; every rank takes part."""
        self._read_figures()
        if isinstance(self.parts.optimizer, ShardedOptimizer):
            self.parts.optimizer.gather_state()
        state = self.state
        state.window, state.epoch_sums = self.meter.state()
        state.scaler = self.parts.precision.state_dict()
        state.ema = self.parts.ema.state_dict() if self.parts.ema is not None else {}
        named = hooks_by_name(self.parts.hooks)
        state.hooks = {name: hook.state_dict() for name, hook in named.items()}
        now = time.perf_counter()
        state.train_time_s += now - self._started
        self._started = now
        state.total_steps = self.plan.total_steps

    def _contents(self) -> dict[str, Part]:
        """The files of a checkpoint, copied to the host's memory: later steps do not change it."""
        parts = self.parts
        kept = checkpoint_weights(parts.model)
        averaged: dict[str, Part] = {}
        if parts.ema is not None:
            average = parts.ema.weights()
            averaged[EMA_NAME] = {k: _host(average[k]) for k in kept}
        return {
            "model.pdparams": {k: _host(v) for k, v in kept.items()},
            **averaged,
            "optimizer.pdopt": {k: _host(v) for k, v in parts.optimizer.state_dict().items()},
            "state.json": {
                "state": self.state.to_dict(),
                **parts.record,
                **model_record(parts.model),
            },
        }

    # -- hooks -------------------------------------------------------------------------------

    def request_stop(self, reason: str) -> None:
        """End the run after the current step, evaluated and saved."""
        self.stop_reason = self.stop_reason or reason

    def _call_hooks(self, moment: str, *arguments: Any) -> None:
        for hook in self.parts.hooks:
            getattr(hook, moment)(*arguments)

    def _tell_of_failure(self, error: BaseException) -> None:
        """Every hook and the log hear of ``error``; a hook that fails itself must not hide it."""
        for hook in self.parts.hooks:
            try:
                hook.on_exception(self, error)
            except Exception as another:
                self.parts.reporter.warn(
                    f"{type(hook).__name__}.on_exception failed as well: {another!r}"
                )
        self.parts.reporter.failed(error)


def _is_better(result: EvalResult, best: Optional[Best]) -> bool:
    """Strictly; a first value of NaN must not be the best one for ever."""
    value = result.values.get("metric")
    return value is not None and value > (best.metric if best is not None else -math.inf)


def _host(value: Any) -> np.ndarray:
    """A copy; ``Tensor.numpy`` makes one on every device (measured with Paddle 2.6 and 3.3)."""
    return value.numpy() if hasattr(value, "numpy") else np.asarray(value)


def step_seed(seed: int, rank: int, step: int) -> int:
    """Seed of the dropout and drop-path masks of one step on one rank."""
    return int(np.random.SeedSequence([seed, rank, step]).generate_state(1, np.uint64)[0]) >> 1

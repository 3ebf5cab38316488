"""The training loop.

``Trainer.fit`` reads as the algorithm: for each epoch, for each batch, one step; then whatever is
due at this step (a log line, an evaluation, a checkpoint).  Nothing here waits for the device
between log lines; the state that changes is :class:`~passl.engine.state.TrainState` alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Callable, Optional, Union

import numpy as np
import paddle
from paddle import Tensor

from passl.data.loader import Batch
from passl.data.transfer import Transfer
from passl.distributed.reducer import GradientReducer
from passl.engine.evaluator import EvalResult, to_model_input
from passl.engine.faults.postmortem import give_up
from passl.engine.faults.skipped import SkippedSteps
from passl.engine.meters import StepMeter
from passl.engine.plan import RunPlan
from passl.engine.saving import Saving
from passl.engine.state import TrainState
from passl.engine.stopping import RunStopped, StopWatch
from passl.engine.train_parts import TrainParts
from passl.engine.validation import Validation
from passl.optim.clip import global_norm
from passl.precision.gradients import WideGradients

__all__ = ["Trainer", "step_seed"]


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
        self.gradients = WideGradients(self.parameters)
        self.reducer = GradientReducer(
            self.parameters, parts.world, parts.overlap, gradients=self.gradients
        )
        names = [*parts.loss_names, *(name for m in parts.metrics for name in m.names)]
        self.meter = StepMeter(names, parts.world)
        self.meter.restore(state.window, state.epoch_sums)
        self.skipped = SkippedSteps(state, parts.max_bad_steps)
        self.stop_reason: Optional[str] = None
        #: Whether the newest step updated the weights; perhaps on the device.
        self.accepted: Union[bool, Tensor] = True
        self.validation = Validation(parts, plan, state)
        self.saving = Saving(parts, plan, state, self.meter, is_saved=is_saved)
        self.watch = StopWatch()
        self._to_device = Transfer()

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
                    state.evaluation_due = self.validation.is_due(is_last=self._is_trained)
                    self.watch.attempt.step(state.step)
                    self._settle()
                    if self._is_over():
                        break
            if not self.saving.is_saved:
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
        return self._is_trained and not self.state.evaluation_due

    def _is_over(self) -> bool:
        """No further step is made in this start of the run."""
        return self._is_trained or self.watch.reason is not None

    @property
    def _is_trained(self) -> bool:
        return self.state.step >= self.plan.last_step or self.stop_reason is not None

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
            if left:
                self.gradients.keep()
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
        self.gradients.finish()
        if parts.clip is not None:  # divides by the scale of the loss in the same pass
            grad_norm = parts.clip(self.parameters, parts.precision.scale)
        else:
            parts.precision.unscale(parameter.grad for _, parameter in self.parameters)
            grad_norm = global_norm(self.parameters)
        left_out = parts.clip.left_out(self.parameters) if parts.clip is not None else []
        if left_out:  # not in the norm, but they must be finite as well
            grad_norm = grad_norm + 0.0 * global_norm(left_out)
        accepted = parts.precision.accept(grad_norm)
        parts.reporter.gradients(self.parameters, self.state.step + 1)
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
        images, target = self._to_device(batch)
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
        is_stopped = self.watch.poll(save=self.saving.clock.is_due())
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

    def _evaluate_if_due(self) -> tuple[str, ...]:
        """Evaluate when it is time; returns names of the links to what is the best so far."""
        validated = self.validation.run_if_due(self.watch.poll)
        if validated is None:
            return ()
        self.saving.changed()  # what is saved of this step lacks the result
        self._call_hooks("on_eval_end", self, validated.result)
        self.parts.reporter.pause_ended()
        return validated.improved

    def evaluate(self, poll: Callable[[], bool]) -> EvalResult:
        """Evaluate the model as it is now, logging as it goes.

        Args:
            poll: called before every batch, on all ranks alike; true ends the evaluation.

        Raises:
            PasslError: there is nothing to evaluate on.
            RunStopped: ``poll`` said so.
        """
        return self.validation.of_weights(poll)

    def save(self, best: Sequence[str] = ()) -> None:
        """Have a checkpoint of this step written; ``latest`` and the links in ``best`` lead to it.

        Every rank takes part; only the main one has files, and waits for none of them.
        """
        self._read_figures()
        self.saving.save(best)

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


def step_seed(seed: int, rank: int, step: int) -> int:
    """Seed of the dropout and drop-path masks of one step on one rank."""
    return int(np.random.SeedSequence([seed, rank, step]).generate_state(1, np.uint64)[0]) >> 1

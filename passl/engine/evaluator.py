"""Evaluation: every sample once, sums instead of averages, one reduction at the end.

No batch is padded and no average of averages is taken.  Counts are integers and losses are added
sample by sample without rounding (:mod:`passl.engine.exact_sum`), so figures depend neither on the
batch size nor on the number of processes, beyond what these change in the logits themselves; the
number of samples seen is checked against the data set.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

import numpy as np
import paddle
from paddle import Tensor

from passl.data.loader import Batch, Loader
from passl.data.transfer import Transfer
from passl.distributed.collectives import share_batch_statistics, sum_integers, sum_over_ranks
from passl.distributed.world import World
from passl.engine.exact_sum import ExactSum
from passl.engine.stopping import RunStopped
from passl.errors import DataError
from passl.losses.combined import CombinedLoss
from passl.precision.amp import Precision

__all__ = ["EvalResult", "EvalStep", "Evaluator", "Observe", "to_model_input"]


@dataclass(frozen=True)
class EvalResult:
    """Averages over the whole data set.

    Attributes:
        values: loss and metrics by name; accuracies are fractions; ``metric`` is the criterion.
        samples: samples seen, all of them.
        seconds: wall time of the evaluation.
    """

    values: dict[str, float]
    samples: int
    seconds: float

    @property
    def images_per_s(self) -> float:
        """Samples a second over all ranks."""
        return self.samples / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class EvalStep:
    """One batch of an evaluation, as it is logged.

    Attributes:
        number: of the batch, from 0.
        values: averages over this rank's part of the batch.
        batch_cost_s: seconds the batch took, waiting for data included.
        batch: the batch itself.
    """

    number: int
    values: dict[str, float]
    batch_cost_s: float
    batch: Batch


Report = Callable[[EvalStep], None]
#: Sees a batch and its logits, float32 [b, classes]; it must not read from the device.
Observe = Callable[[Batch, Tensor], None]


class Evaluator:
    """Computes losses and metrics of a model over a loader.

    Args:
        loader: evaluation samples in a fixed order, without padding.
        loss: combined loss, or None.
        metrics: metrics giving sums over a batch.
        precision: casts of the forward pass.
        world: this process among all.
    """

    def __init__(
        self,
        loader: Loader,
        loss: Optional[CombinedLoss],
        metrics: Sequence[Any],
        precision: Precision,
        world: World,
    ) -> None:
        self.loader = loader
        self._loss, self._metrics = loss, list(metrics)
        self._precision, self._world = precision, world
        self._to_device = Transfer()
        self.loss_names = list(loss.names) if loss is not None else []
        self._names = [
            *self.loss_names,
            *(name for metric in self._metrics for name in metric.names),
        ]

    @property
    def metric_names(self) -> list[str]:
        """Of the metrics, the criterion first."""
        return self._names[len(self.loss_names) :]

    def watch(self, metric: Any) -> None:
        """Let a metric without figures of its own see every batch."""
        assert not metric.names
        self._metrics.append(metric)

    def run(
        self,
        model: Any,
        report: Optional[Report] = None,
        report_every: int = 10,
        poll: Optional[Callable[[], bool]] = None,
        observe: Optional[Observe] = None,
    ) -> EvalResult:
        """Evaluate ``model`` in evaluation mode; the mode it had is restored.

        Args:
            model: maps float32 images [B, C, H, W] to logits [B, classes].
            report: called with an :class:`EvalStep` every ``report_every`` batches.
            poll: called before every batch, on all ranks alike; true ends the evaluation.
            observe: sees every batch that has samples of this rank.

        Raises:
            DataError: not every sample was seen.
            RunStopped: ``poll`` said so; there is no result.
        """
        share_batch_statistics(model, self._world)
        was_training = model.training
        model.eval()
        started = mark = time.perf_counter()
        seen: list[_Seen] = []
        try:
            with paddle.no_grad():
                for number, batch in enumerate(self.loader.epoch(0)):
                    if poll is not None and poll():
                        raise RunStopped("the evaluation was stopped; it has no result")
                    count = len(batch.labels)
                    if count:
                        seen.append(self._batch(model, batch, observe))
                    if report is not None and count and number % report_every == 0:
                        means = self._with_criterion(seen[-1].means())
                        now = time.perf_counter()
                        report(EvalStep(number, means, now - mark, batch))
                    mark = time.perf_counter()
        finally:
            if was_training:
                model.train()
        return self._result(seen, time.perf_counter() - started)

    def _batch(self, model: Any, batch: Batch, observe: Optional[Observe]) -> _Seen:
        images, target = self._to_device(batch)
        images = to_model_input(images, self.loader)
        with self._precision.autocast():
            logits = model(images)
        logits = logits.astype("float32")
        if observe is not None:
            observe(batch, logits)
        losses = self._loss.per_sample(logits, target) if self._loss is not None else {}
        sums: dict[str, Tensor] = {}
        for metric in self._metrics:
            sums.update(metric(logits, target))
        return _Seen(len(batch.labels), {k: v.astype("float32") for k, v in losses.items()}, sums)

    def _with_criterion(self, values: dict[str, float]) -> dict[str, float]:
        """``values`` with ``metric``, the first metric's first value: what "best" compares."""
        if self.metric_names:
            values["metric"] = values[self.metric_names[0]]
        return values

    def _result(self, seen: Sequence[_Seen], seconds: float) -> EvalResult:
        sums = _Sums(self.loss_names, self.metric_names)
        for batch in seen:
            sums.add(batch)
        samples, values = sums.over_ranks(self._world)
        if samples != self.loader.num_samples:
            raise DataError(
                f"evaluation saw {samples} samples of {self.loader.num_samples}; the data set "
                "changed while it was read, or the processes read different data sets"
            )
        means = {name: value / max(samples, 1) for name, value in values.items()}
        return EvalResult(self._with_criterion(means), samples, seconds)


@dataclass(frozen=True)
class _Seen:
    """What a batch left on the device: losses of its samples (float32 [B]), sums of its metrics."""

    samples: int
    losses: dict[str, Tensor]
    sums: dict[str, Tensor]

    def means(self) -> dict[str, float]:
        """Averages over the batch."""
        means = {name: each.astype("float64").mean().item() for name, each in self.losses.items()}
        for name, value in self.sums.items():
            means[name] = float(value.item()) / self.samples
        return means


class _Sums:
    """Sums over batches, then over ranks: losses and integers exactly, other metrics in fp64."""

    def __init__(self, losses: Sequence[str], metrics: Sequence[str]) -> None:
        self._samples = 0
        self._losses = {name: ExactSum() for name in losses}
        self._counts = dict.fromkeys(metrics, 0)
        self._others = dict.fromkeys(metrics, 0.0)

    def add(self, batch: _Seen) -> None:
        """Add a batch; reads it from the device."""
        self._samples += batch.samples
        for name, total in self._losses.items():
            total.add(batch.losses[name].numpy())
        for name in self._counts:
            value = batch.sums[name].numpy()
            if value.dtype.kind in "iub":
                self._counts[name] += int(value.item())
            else:
                self._others[name] += float(value.item())

    def over_ranks(self, world: World) -> tuple[int, dict[str, float]]:
        """Samples, and the sum of each loss and metric, over all ranks."""
        own = [np.array([self._samples, *self._counts.values()], dtype=np.int64)]
        own += [total.counters for total in self._losses.values()]
        whole = sum_integers(np.concatenate(own), world)
        others = np.array([*self._others.values()])
        if others.size:
            others = sum_over_ranks(others, world)
        counts, counters = np.split(whole, [own[0].size])
        values = {}
        for number, (name, total) in enumerate(self._losses.items()):
            total.counters = counters[number * ExactSum.SIZE : (number + 1) * ExactSum.SIZE]
            values[name] = total.value()
        for name, count, other in zip(self._counts, counts[1:].tolist(), others.tolist()):
            values[name] = count + other
        return int(counts[0]), values


def to_model_input(images: Tensor, loader: Loader) -> Tensor:
    """Images of a batch of ``loader`` as the model takes them, on the device they are on.

    Args:
        images: uint8 [B, H, W, C] where the loader leaves normalising to the device, else float32
            [B, C, H, W].

    Returns:
        float32 [B, C, H, W].
    """
    return images if loader.device_transform is None else loader.device_transform(images)

"""Evaluation: every sample once, sums instead of averages, one reduction at the end.

No batch is padded and no average of averages is taken, so the figures do not depend on the batch
size or on the number of processes; the number of samples seen is checked against the data set.
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
from passl.distributed.collectives import sum_over_ranks
from passl.distributed.world import World
from passl.engine.stopping import RunStopped
from passl.errors import DataError
from passl.losses.combined import CombinedLoss
from passl.precision.amp import Precision

__all__ = ["EvalResult", "EvalStep", "Evaluator", "to_model_input"]


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
        self.loss_names = list(loss.names) if loss is not None else []
        self._names = [
            *self.loss_names,
            *(name for metric in self._metrics for name in metric.names),
        ]

    def run(
        self,
        model: Any,
        report: Optional[Report] = None,
        report_every: int = 10,
        poll: Optional[Callable[[], bool]] = None,
    ) -> EvalResult:
        """Evaluate ``model`` in evaluation mode; the mode it had is restored.

        Args:
            model: maps float32 images [B, C, H, W] to logits [B, classes].
            report: called with an :class:`EvalStep` every ``report_every`` batches.
            poll: called before every batch, on all ranks alike; true ends the evaluation.

        Raises:
            DataError: not every sample was seen.
            RunStopped: ``poll`` said so; there is no result.
        """
        was_training = model.training
        model.eval()
        started = mark = time.perf_counter()
        total = paddle.zeros([len(self._names)], dtype="float64")
        samples = 0
        try:
            with paddle.no_grad():
                for number, batch in enumerate(self.loader.epoch(0)):
                    if poll is not None and poll():
                        raise RunStopped("the evaluation was stopped; it has no result")
                    count = len(batch.labels)
                    if count:
                        sums = self._batch_sums(model, batch)
                        total = total + sums
                        samples += count
                    if report is not None and count and number % report_every == 0:
                        means = dict(zip(self._names, (sums / count).tolist()))
                        now = time.perf_counter()
                        report(EvalStep(number, self._with_criterion(means), now - mark, batch))
                    mark = time.perf_counter()
        finally:
            if was_training:
                model.train()
        return self._result(total, samples, time.perf_counter() - started)

    def _batch_sums(self, model: Any, batch: Batch) -> Tensor:
        images = to_model_input(paddle.to_tensor(batch.images), self.loader)
        target = paddle.to_tensor(batch.labels)
        with self._precision.autocast():
            logits = model(images)
        logits = logits.astype("float32")
        count = float(len(batch.labels))
        sums: dict[str, Tensor] = {}
        if self._loss is not None:
            sums.update(
                {k: v.astype("float64") * count for k, v in self._loss(logits, target).items()}
            )
        for metric in self._metrics:
            sums.update(metric(logits, target))
        return paddle.stack([sums[name].astype("float64").reshape([]) for name in self._names])

    def _with_criterion(self, values: dict[str, float]) -> dict[str, float]:
        """``values`` with ``metric``, the first metric's first value: what "best" compares."""
        if self._metrics:
            values["metric"] = values[self._metrics[0].names[0]]
        return values

    def _result(self, total: Tensor, samples: int, seconds: float) -> EvalResult:
        local = total.numpy()
        summed = sum_over_ranks(np.append(local, float(samples)), self._world)
        seen = int(summed[-1])
        if seen != self.loader.num_samples:
            raise DataError(
                f"evaluation saw {seen} samples of {self.loader.num_samples}; the data set changed "
                "while it was read, or the processes read different data sets"
            )
        values = dict(zip(self._names, (summed[:-1] / max(seen, 1)).tolist()))
        return EvalResult(self._with_criterion(values), seen, seconds)


def to_model_input(images: Tensor, loader: Loader) -> Tensor:
    """Images of a batch of ``loader`` as the model takes them, on the device they are on.

    Args:
        images: uint8 [B, H, W, C] where the loader leaves normalising to the device, else float32
            [B, C, H, W].

    Returns:
        float32 [B, C, H, W].
    """
    return images if loader.device_transform is None else loader.device_transform(images)

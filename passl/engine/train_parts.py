"""What a training run is made of, once it is built, and the forward pass of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from paddle import Tensor

from passl.checkpoint.saver import Saver
from passl.checkpoint.store import CheckpointStore
from passl.data.loader import Loader
from passl.distributed.world import World
from passl.engine.evaluator import Evaluator
from passl.engine.hooks.base import Hook
from passl.engine.reports.reporting import Reporter
from passl.engine.teachers.distillation import Distillation
from passl.losses.combined import CombinedLoss
from passl.optim.clip import ClipGradByGlobalNorm
from passl.precision.amp import Precision
from passl.precision.ema import WeightAverage
from passl.precision.half_weights import HalfWeights

__all__ = ["TrainParts"]


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
    half: Optional[HalfWeights] = None

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

"""The schedule of the ViT papers: linear warm-up, then a cosine or a straight line, per update."""

from __future__ import annotations

from typing import Annotated, Literal

from passl.registry import SCHEDULES, Range, Runtime
from passl.schedules.base import Schedule, half_cosine

__all__ = ["ViTLRScheduler"]


@SCHEDULES.register()
class ViTLRScheduler(Schedule):
    """Warm-up, then cosine to 0 or a line to ``linear_end``.

    With ``p`` the part of the time after the warm-up that has passed, cosine is
    ``lr (1 + cos(pi p)) / 2`` and linear ``end + (lr - end)(1 - p)``; during the warm-up the same
    value (``p`` = 0) is multiplied by ``k / warmup_steps``.

    Args:
        learning_rate: the highest rate, reached at the end of the warm-up.
        decay_type: shape after the warm-up.
        linear_end: where the line ends.
        warmup_steps: length of the warm-up in updates, shortened to the run if it is longer.
        unit: this schedule moves at each update only.
        last_epoch: accepted because PASSL has it; the state of a run is its step.

    Source: google-research/vision_transformer, ``create_learning_rate_schedule``; PASSL's
        ``ViTLRScheduler``, except that a warm-up as long as the run is no error here.
    """

    def __init__(
        self,
        *,
        learning_rate: Annotated[float, Range(min=0.0)],
        decay_type: Literal["cosine", "linear"] = "cosine",
        linear_end: Annotated[float, Range(min=0.0)] = 1e-5,
        warmup_steps: Annotated[int, Range(min=0)] = 0,
        unit: Literal["step"] = "step",
        last_epoch: Annotated[int, Range(min=-1, max=0)] = -1,
        total_steps: Annotated[int, Runtime()],
        steps_per_epoch: Annotated[int, Runtime()],
    ) -> None:
        del last_epoch
        self.learning_rate = learning_rate
        self.decay_type = decay_type
        self.linear_end = linear_end
        super().__init__(
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
            unit=unit,
            warmup_steps=warmup_steps,
            warmup_end_lr=learning_rate,
        )

    def decay(self, now: int) -> float:
        """The rate at update ``now``."""
        if self.decay_type == "cosine":
            return self.learning_rate * half_cosine(self.progress(now))
        return self.linear_end + (self.learning_rate - self.linear_end) * (1 - self.progress(now))

"""Sums of losses and metrics that stay on the device until a line is logged.

A step leaves one small vector on the device; reading it would wait for the step to finish.  So the
vectors of a window are stacked and read together, and summed on the host in float64, in step order:
a run continued from a checkpoint logs the same averages as one that was never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import paddle
from paddle import Tensor

from passl.distributed.collectives import sum_over_ranks
from passl.distributed.world import World
from passl.errors import PasslError

__all__ = ["StepMeter"]


class StepMeter:
    """Accumulates per-step sums; averages them over a log window and over the epoch.

    Args:
        names: what each step reports, sums over its samples on this rank (``loss``, ``top1`` ...).
        world: this process among all; averages are over all ranks.
    """

    def __init__(self, names: Sequence[str], world: World) -> None:
        self.names = list(names)
        self._world = world
        self._pending: list[Tensor] = []
        self._window = dict.fromkeys([*self.names, "samples", "grad_norm", "steps"], 0.0)
        self._epoch = dict(self._window)

    def add(self, sums: Mapping[str, Tensor], samples: int, grad_norm: Tensor) -> None:
        """Note one step without reading it.

        Args:
            sums: a scalar tensor for each name.
            samples: samples of this rank in the step.
            grad_norm: scalar fp32 tensor, equal on all ranks.
        """
        vector = [sums[name].astype("float32").reshape([]) for name in self.names]
        vector += [
            paddle.to_tensor(float(samples), dtype="float32"),
            grad_norm.astype("float32").reshape([]),
        ]
        self._pending.append(paddle.stack(vector))

    def flush(self, step: int) -> None:
        """Read what is pending (the one place that waits for the device).

        Raises:
            PasslError: a loss is not finite; ``step`` is the newest step.
        """
        if not self._pending:
            return
        rows = paddle.stack(self._pending).numpy().astype(np.float64)
        first = step - len(self._pending) + 1
        self._pending = []
        for offset, row in enumerate(rows):
            values = dict(zip([*self.names, "samples", "grad_norm"], row.tolist()))
            if not math.isfinite(values["loss"]):
                raise PasslError(
                    f"the loss became {values['loss']} at step {first + offset}; a lower learning "
                    "rate, a longer warmup or gradient clipping (Optimizer.grad_clip.clip_norm) "
                    "usually mends it. Checkpoints from before are kept"
                )
            for sums in (self._window, self._epoch):
                for name, value in values.items():
                    sums[name] += value if math.isfinite(value) else 0.0
                sums["steps"] += 1.0

    def window_means(self) -> dict[str, float]:
        """Averages since the last call over all ranks; starts a new window."""
        means = self._means(self._window)
        self._window = dict.fromkeys(self._window, 0.0)
        return means

    def epoch_means(self) -> dict[str, float]:
        """Averages since the start of the epoch over all ranks; starts a new epoch."""
        means = self._means(self._epoch)
        self._epoch = dict.fromkeys(self._epoch, 0.0)
        return means

    def state(self) -> tuple[dict[str, float], dict[str, float]]:
        """The sums of the window and of the epoch, over all ranks (:meth:`flush` first)."""
        return self._summed(self._window), self._summed(self._epoch)

    def restore(self, window: Mapping[str, float], epoch: Mapping[str, float]) -> None:
        """The inverse of :meth:`state`; the sums continue on the main process."""
        for sums, saved in ((self._window, window), (self._epoch, epoch)):
            for name in sums:
                own = self._world.is_main or name in ("grad_norm", "steps")
                sums[name] = float(saved.get(name, 0.0)) if own else 0.0

    def _summed(self, sums: Mapping[str, float]) -> dict[str, float]:
        shared = [*self.names, "samples"]
        totals = sum_over_ranks(np.array([sums[name] for name in shared]), self._world)
        return {
            **dict(zip(shared, totals.tolist())),
            "grad_norm": sums["grad_norm"],
            "steps": sums["steps"],
        }

    def _means(self, sums: Mapping[str, float]) -> dict[str, float]:
        totals = self._summed(sums)
        samples, steps = max(totals["samples"], 1.0), max(totals["steps"], 1.0)
        means = {name: totals[name] / samples for name in self.names}
        return {**means, "grad_norm": totals["grad_norm"] / steps}

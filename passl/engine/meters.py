"""Sums of losses and metrics that stay on the device until a line is logged.

A step leaves one small vector on the device; reading it would wait for the step to finish.  So the
vectors of a window are stacked and read together, and summed on the host in float64, in step order:
a run continued from a checkpoint logs the same averages as one that was never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import paddle
from paddle import Tensor

from passl.distributed.collectives import sum_over_ranks
from passl.distributed.world import World

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
        self._pending: list[_Step] = []
        self._window = dict.fromkeys([*self.names, "samples", "grad_norm", "steps"], 0.0)
        self._epoch = dict(self._window)

    def add(self, sums: Mapping[str, Tensor], samples: int, grad_norm: Tensor) -> None:
        """Note one step without reading it.

        Args:
            sums: a scalar tensor for each name.
            samples: samples of this rank in the step.
            grad_norm: scalar fp32 tensor, equal on all ranks.
        """
        values = [*(sums[name] for name in self.names), grad_norm]
        vector = paddle.stack([value.astype("float32").reshape([]) for value in values])
        self._pending.append(_Step(vector, float(samples)))

    def flush(self) -> list[dict[str, float]]:
        """Read what is pending (the one place that waits for the device).

        Returns:
            This rank's figures of each step since the last call: its sums, ``samples`` and
            ``grad_norm``.
        """
        if not self._pending:
            return []
        steps, self._pending = self._pending, []
        rows = paddle.stack([item.vector for item in steps]).numpy().astype(np.float64).tolist()
        figures = [
            {**dict(zip([*self.names, "grad_norm"], row)), "samples": item.samples}
            for row, item in zip(rows, steps)
        ]
        for values in figures:
            for sums in (self._window, self._epoch):
                _add(sums, values)
        return figures

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
        means = {name: _ratio(totals[name], totals["samples"]) for name in self.names}
        return {**means, "grad_norm": _ratio(totals["grad_norm"], totals["steps"])}


@dataclass(frozen=True)
class _Step:
    """What one step left behind: on the device its figures, on the host its samples."""

    vector: Tensor
    samples: float


def _add(sums: dict[str, float], values: Mapping[str, float]) -> None:
    """Add one step; what is not finite (of a skipped step) is left out, samples included."""
    if math.isfinite(values["loss"]):
        for name, value in values.items():
            if name != "grad_norm":
                sums[name] += value
    if math.isfinite(values["grad_norm"]):
        sums["grad_norm"] += values["grad_norm"]
        sums["steps"] += 1.0


def _ratio(total: float, count: float) -> float:
    return total / count if count else math.nan

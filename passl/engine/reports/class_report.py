"""Precision, recall and F1 of every class, from counts that add up over batches and processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import numpy as np
import paddle
from paddle import Tensor

from passl.distributed.collectives import sum_over_ranks
from passl.distributed.world import World

__all__ = ["ClassCounts"]


class ClassCounts:
    """Counts, as a metric of an evaluation that adds no figure to its line.

    Args:
        class_num: number of classes.
    """

    names: tuple[str, ...] = ()

    def __init__(self, class_num: int) -> None:
        self._class_num = class_num
        self._total = np.zeros((3, class_num), np.float64)  # right, predicted, there

    def __call__(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Count a batch: logits [B, C] and class indices [B]; sets of labels are left out."""
        if not paddle.is_floating_point(target):
            predicted = logits.argmax(axis=1).numpy().reshape(-1)
            wanted = target.numpy().reshape(-1)
            for row, labels in enumerate((wanted[predicted == wanted], predicted, wanted)):
                self._total[row] += np.bincount(labels, minlength=self._class_num)
        return {}

    def table(self, world: World, names: Optional[Sequence[str]] = None) -> list[str]:
        """Lines of text for the log: one a class, then averages; empty if nothing was counted.

        A class that was never predicted has precision 0, as in scikit-learn.

        Args:
            world: this process among all, all of which must ask.
            names: of the classes; None numbers them.
        """
        right, predicted, there = sum_over_ranks(self._total.reshape(-1), world).reshape(3, -1)
        if not there.sum():
            return []
        precision, recall = _share(right, predicted), _share(right, there)
        f1 = _share(2.0 * precision * recall, precision + recall)
        known = names or [str(number) for number in range(self._class_num)]
        width = max(12, *(len(name) for name in known))
        lines = [f"{'':{width}}  precision  recall  f1-score  support"]
        figures = np.stack([precision, recall, f1])
        for name, values, support in zip(known, figures.T, there):
            lines.append(_line(name, values, support, width))
        share = there / there.sum()
        lines.append(f"{'accuracy':{width}}  {right.sum() / there.sum():27.4f}  {there.sum():7.0f}")
        lines.append(_line("macro avg", figures.mean(axis=1), there.sum(), width))
        lines.append(_line("weighted avg", figures @ share, there.sum(), width))
        return lines


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _line(name: str, values: np.ndarray, support: float, width: int) -> str:
    return (
        f"{name:{width}}  {values[0]:9.4f}  {values[1]:6.4f}  {values[2]:8.4f}  {support:7.0f}"
    )

"""Which classes a model takes for which, and its worst mistakes.

The predictions are those of an evaluation (:class:`~passl.engine.evaluator.Evaluator`): every
sample of ``DataLoader.Eval`` once.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
import paddle
import paddle.nn.functional as F

from passl.data.loader import Loader
from passl.data.names import printable
from passl.distributed.world import World
from passl.engine.evaluator import EvalStep, Evaluator
from passl.errors import ConfigError
from passl.precision.amp import Precision

__all__ = ["Confusion", "Mistake", "confuse", "save_confusions", "save_mistakes"]


@dataclass(frozen=True)
class Mistake:
    """A sample that was taken for something else.

    Attributes:
        index: in the data set.
        true, predicted: classes.
        probability: of the class that was predicted.
        probability_true: of the right one.
    """

    index: int
    true: int
    predicted: int
    probability: float
    probability_true: float


@dataclass(frozen=True)
class Confusion:
    """What became of every sample.

    Attributes:
        matrix: int64 [classes, classes]; rows are the true classes, columns the predicted ones.
        mistakes: the surest first.
        samples: how many there were.
    """

    matrix: np.ndarray
    mistakes: list[Mistake]
    samples: int

    @property
    def accuracy(self) -> float:
        """Part of the samples whose class was predicted."""
        return float(np.trace(self.matrix)) / max(self.samples, 1)

    def pairs(self) -> list[tuple[int, int, int]]:
        """(true, predicted, samples) of the mistakes, the most frequent first."""
        rows, columns = np.nonzero(self.matrix)
        found = [
            (int(row), int(column), int(self.matrix[row, column]))
            for row, column in zip(rows, columns)
            if row != column
        ]
        return sorted(found, key=lambda pair: (-pair[2], pair[0], pair[1]))


def confuse(model: Any, loader: Loader) -> Confusion:
    """Evaluate a model and keep what it said of every sample.

    Args:
        model: maps images to logits [b, classes].
        loader: of ``DataLoader.Eval``, in one process.

    Raises:
        ConfigError: the samples have no single class each.
        DataError: a sample cannot be read.
    """
    recorder, seen = _Recorder(), []

    def note_indices(step: EvalStep) -> None:
        seen.append(step.batch.indices)

    Evaluator(loader, None, [recorder], Precision(), World()).run(model, note_indices, 1)
    logged, indices = recorder.finish(), np.concatenate(seen)
    classes = recorder.classes
    matrix = np.zeros([classes, classes], np.int64)
    np.add.at(matrix, (logged["true"], logged["predicted"]), 1)
    wrong = np.flatnonzero(logged["true"] != logged["predicted"])
    surest = wrong[np.argsort(-logged["probability"][wrong], kind="stable")]
    mistakes = [
        Mistake(
            int(indices[i]),
            int(logged["true"][i]),
            int(logged["predicted"][i]),
            float(logged["probability"][i]),
            float(logged["probability_true"][i]),
        )
        for i in surest
    ]
    return Confusion(matrix, mistakes, len(logged["true"]))


def save_confusions(confusion: Confusion, names: Optional[Sequence[str]], path: Path) -> Path:
    """CSV of every pair that occurs: ``true, predicted, samples, part_of_true`` with names.

    Right answers are in it as well, as pairs of a class with itself.

    Raises:
        ConfigError: it cannot be written.
    """
    totals = confusion.matrix.sum(axis=1)
    rows, columns = np.nonzero(confusion.matrix)
    body = [
        [row, column, _name(row, names), _name(column, names), int(confusion.matrix[row, column]),
         f"{confusion.matrix[row, column] / totals[row]:.6f}"]
        for row, column in zip(rows.tolist(), columns.tolist())
    ]
    head = ["true", "predicted", "true_name", "predicted_name", "samples", "part_of_true"]
    return _write_csv(path, head, body)


def save_mistakes(
    confusion: Confusion, names: Optional[Sequence[str]], dataset: Any, path: Path
) -> Path:
    """CSV of every mistake, the surest first, with the path of its sample.

    Raises:
        ConfigError: it cannot be written.
    """
    body = [
        [m.index, dataset.path_of(m.index), m.true, m.predicted, _name(m.true, names),
         _name(m.predicted, names), f"{m.probability:.6f}", f"{m.probability_true:.6f}"]
        for m in confusion.mistakes
    ]
    head = ["index", "path", "true", "predicted", "true_name", "predicted_name", "probability",
            "probability_true"]
    return _write_csv(path, head, body)


class _Recorder:
    """A metric that remembers every sample beside counting the right ones."""

    names = ("top1",)

    def __init__(self) -> None:
        self.classes = 0
        self._parts: list[dict[str, np.ndarray]] = []

    def __call__(self, logits: paddle.Tensor, target: paddle.Tensor) -> dict[str, paddle.Tensor]:
        if paddle.is_floating_point(target) or (target.ndim > 1 and target.shape[1] != 1):
            raise ConfigError(
                "a confusion matrix needs one class for each sample, and DataLoader.Eval gives "
                "several (multi_label)"
            )
        probs = F.softmax(logits.astype("float32"), axis=-1).numpy()
        true = target.numpy().reshape(-1)
        predicted = probs.argmax(axis=1)
        rows = np.arange(len(probs))
        self.classes = max(self.classes, probs.shape[1], int(true.max()) + 1)
        self._parts.append({
            "true": true,
            "predicted": predicted,
            "probability": probs[rows, predicted],
            "probability_true": probs[rows, true],
        })
        return {"top1": paddle.to_tensor(int((true == predicted).sum()))}

    def finish(self) -> dict[str, np.ndarray]:
        """All samples in the order they came."""
        return {
            key: np.concatenate([part[key] for part in self._parts]) for key in self._parts[0]
        }


def _write_csv(path: Path, head: Sequence[str], body: Iterable[Sequence[Any]]) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(
            path, "w", newline="", encoding="utf-8", errors="surrogateescape"
        ) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(head)
            writer.writerows(body)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    return path


def _name(number: int, names: Optional[Sequence[str]]) -> str:
    return printable(names[number]) if names and number < len(names) else ""

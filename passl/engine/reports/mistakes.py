"""The samples of an evaluation that a model is surest about and wrong, found while it runs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor

from passl.data.loader import Batch

__all__ = ["MistakeWatch", "Sure"]


class Sure(NamedTuple):
    """A sample that was taken for something else.

    Attributes:
        sample: its place in the data set.
        true, predicted: classes.
        probability, probability_true: of the predicted class and of the right one.
    """

    sample: int
    true: int
    predicted: int
    probability: float
    probability_true: float


class MistakeWatch:
    """Sees every batch of an evaluation; nothing is read from the device before :meth:`worst`.

    Samples without a single class each (several labels) have no mistakes of this kind.

    Args:
        most: how many :meth:`worst` gives.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: list[tuple[np.ndarray, np.ndarray, Tensor]] = []

    def see(self, batch: Batch, logits: Tensor) -> None:
        """Note a batch.

        Args:
            batch: as the loader gave it.
            logits: float32 [b, classes].
        """
        labels = batch.labels
        if labels.dtype.kind not in "iu" or labels.size != len(labels):
            return
        labels = labels.reshape(-1)
        probabilities = F.softmax(logits, axis=-1)
        target = paddle.to_tensor(labels).astype("int64")
        predicted = paddle.argmax(probabilities, axis=-1)
        right = paddle.take_along_axis(probabilities, target.unsqueeze(1), axis=1).squeeze(1)
        figures = paddle.stack(
            [probabilities.max(axis=-1), right, predicted.astype("float32")], axis=1
        )
        self._seen.append((batch.indices, labels, figures))

    def worst(self) -> list[Sure]:
        """The surest mistakes, the worst first; waits for the device."""
        found = []
        for indices, labels, figures in self._seen:
            for index, true, (top, right, predicted) in zip(
                indices.tolist(), labels.tolist(), figures.numpy().tolist()
            ):
                if int(predicted) != true:
                    found.append(Sure(index, true, int(predicted), top, right))
        self._seen = []
        found.sort(key=lambda each: (-each.probability, each.sample))
        return found[: self._most]

"""The digits of some classes only: two data sets that share no class, to transfer between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np

from passl.data.dataset import Dataset
from passl.data.datasets.digits import DigitsDataset
from passl.registry import DATASETS, Component


@DATASETS.register()
class SomeDigits(Dataset):
    """scikit-learn's digits of chosen classes, which are counted from 0 in the order chosen.

    Args:
        digits: the classes to keep.
        split: which part.
        transform_ops: transforms applied to each image, in this order.
    """

    def __init__(
        self,
        *,
        digits: list[int],
        split: Literal["train", "val"] = "train",
        transform_ops: Annotated[Sequence[Any], Component("transforms")] = (),
    ) -> None:
        super().__init__(transform_ops)
        self._all = DigitsDataset(split=split, in_chans=1)
        assert self._all.labels is not None
        self._kept = np.flatnonzero(np.isin(self._all.labels, digits))
        self.labels = np.array([digits.index(label) for label in self._all.labels[self._kept]])
        self.class_num = len(digits)

    def __len__(self) -> int:
        return len(self._kept)

    def load(self, index: int) -> tuple[np.ndarray, int]:
        """Image uint8 [8, 8, 1] and its class."""
        return self._all.load(int(self._kept[index]))[0], int(self.labels[index])

"""Handwritten digits that come with scikit-learn: a real data set for a first run, no download."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal

import numpy as np

from passl.data.dataset import Dataset
from passl.errors import DataError
from passl.registry import DATASETS, Component, Range

# Fixed here and not an argument: "the validation split" must mean the same images in every run.
_SPLIT_SEED = 1797
_BRIGHTEST = 16.0  # the pixels count the set points of a 4 x 4 block


@DATASETS.register()
class DigitsDataset(Dataset):
    """1797 real handwritten digits, 8 x 8 pixels, 10 classes.

    Images are uint8 [8, 8, in_chans] with 0..255 for the 17 levels of the original. The split is
    stratified: each class gives the same share, ``val_ratio``, to validation.

    Args:
        split: which part.
        val_ratio: share of validation images, inside (0, 1).
        in_chans: 1, or 3 for the grey value repeated.
        transform_ops: transforms applied to each image, in this order.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI repository,
    test part, as distributed with scikit-learn (``sklearn.datasets.load_digits``).
    """

    def __init__(
        self,
        *,
        split: Literal["train", "val"] = "train",
        val_ratio: Annotated[float, Range(0, 1, min_open=True, max_open=True)] = 0.2,
        in_chans: Literal[1, 3] = 3,
        transform_ops: Annotated[Sequence[Any], Component("transforms")] = (),
    ) -> None:
        super().__init__(transform_ops)
        images, labels = _load()
        chosen = _split(labels, val_ratio)[split]
        grey = np.rint(images[chosen] * (255.0 / _BRIGHTEST)).astype(np.uint8)
        self._images = np.repeat(grey[..., None], in_chans, axis=3)
        self._indices = chosen
        self.labels = self._digits = labels[chosen].astype(np.int32)
        self.class_num = 10
        self._split_name = split

    def __len__(self) -> int:
        return len(self._images)

    def load(self, index: int) -> tuple[np.ndarray, int]:
        """Image uint8 [8, 8, in_chans] and its digit."""
        return self._images[index], int(self._digits[index])

    def path_of(self, index: int) -> str:
        """Position in scikit-learn's array."""
        return f"sklearn digits {self._split_name} image {self._indices[index]}"


@lru_cache(maxsize=1)
def _load() -> tuple[np.ndarray, np.ndarray]:
    """All images and labels, read once for the two parts; nobody writes into them."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            f"DigitsDataset needs scikit-learn ({error}); install it: pip install scikit-learn"
        ) from error
    bunch = load_digits()
    return bunch.images, bunch.target


def _split(labels: np.ndarray, val_ratio: float) -> dict[str, np.ndarray]:
    """Sorted indices of both parts, stratified by class."""
    rng = np.random.default_rng(_SPLIT_SEED)
    held_out = np.zeros(len(labels), dtype=bool)
    for digit in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == digit))
        held_out[members[: round(len(members) * val_ratio)]] = True
    return {"train": np.flatnonzero(~held_out), "val": np.flatnonzero(held_out)}

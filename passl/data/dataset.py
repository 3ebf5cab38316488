"""What a data set is, and how one sample of it is made.

A data set of your own derives from :class:`Dataset`, calls ``super().__init__(transform_ops)`` and
provides ``__len__`` and ``load``; that is enough to train on it.  ``path_of`` and ``labels`` make
its errors and checks better.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Callable, Optional, Union

import numpy as np

from passl.data.images import decode
from passl.data.table import SampleTable
from passl.errors import EXIT_CONFIG, DataError
from passl.registry import Component

__all__ = ["Dataset", "FileDataset", "MissingDataError", "describe_classes", "reason_of"]

#: An image as it is stored (bytes of a file) or plain: uint8 [H, W, C], RGB.
Image = Union[bytes, np.ndarray]
#: One class, the set of classes of an image (int32 [k]), or its share of each (float32 [classes]).
Label = Union[int, np.ndarray]
Transform = Callable[[Any, np.random.Generator], Any]

_EXISTENCE_SAMPLES = 100


class MissingDataError(DataError):
    """A path of the config that is not there: as wrong as the config itself (exit status 2)."""

    exit_code = EXIT_CONFIG


class Dataset:
    """Base of all data sets.

    Args:
        transform_ops: transforms applied to each image, in this order.

    Attributes:
        class_num: number of classes, or None where it is not known.
        labels: the label of each sample, int [N] (flat where a sample has several), or None.
        warnings: sentences about what is odd but usable; the engine logs them.
    """

    class_num: Optional[int] = None
    labels: Optional[np.ndarray] = None
    multi_label: bool = False

    def __init__(
        self, transform_ops: Annotated[Sequence[Any], Component("transforms")] = ()
    ) -> None:
        self.transforms: list[Transform] = list(transform_ops or ())
        self.warnings: list[str] = []
        self._decodes = any(getattr(op, "decodes", False) for op in self.transforms[:1])

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} must define __len__")

    def load(self, index: int) -> tuple[Image, Label]:
        """The image as stored (bytes, or uint8 HWC RGB) and the label of sample ``index``."""
        raise NotImplementedError(f"{type(self).__name__} must define load")

    def path_of(self, index: int) -> str:
        """Where sample ``index`` comes from, for messages."""
        return f"{type(self).__name__}[{index}]"

    def sample(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, Label]:
        """Sample ``index`` with the transforms applied.

        An encoded image whose first transform is not ``DecodeImage`` is decoded as RGB first.

        Raises:
            DataError: anything went wrong; the message names the sample's path and index.
        """
        try:
            stored, label = self.load(index)
            image: Any = stored
            if isinstance(image, bytes) and not self._decodes:
                image = decode(image)
            for transform in self.transforms:
                image = transform(image, rng)
        except Exception as error:
            raise DataError(
                f"sample {index} ({self.path_of(index)}) cannot be used: {reason_of(error)}"
            ) from error
        return image, label

    def collate_labels(self, labels: Sequence[Label]) -> np.ndarray:
        """The target of a batch: int64 [B]; of sets or shares of classes float32 [B, class_num].

        Raises:
            DataError: a label that is none of the classes, or no label.
        """
        if self.multi_label:
            return self._multi_hot(labels)
        kind = type(self).__name__
        try:
            target = np.asarray(labels if len(labels) else np.empty(0, np.int64))
        except ValueError as error:
            raise DataError(f"{kind}: labels of different lengths in a batch ({error})") from error
        if target.ndim == 2 and target.dtype.kind == "f":
            if self.class_num not in (None, target.shape[1]):
                raise DataError(
                    f"{kind}: a soft label has {target.shape[1]} values, but there are "
                    f"{self.class_num} classes"
                )
            return target.astype(np.float32)
        if target.ndim != 1 or target.dtype.kind not in "iu":
            raise DataError(
                f"{kind}: {labels[0]!r} is no label; wanted: the number of a class, or its share "
                "of each class as float32 [class_num]"
            )
        self._check_classes(target)
        return target.astype(np.int64)

    def _multi_hot(self, labels: Sequence[Label]) -> np.ndarray:
        if self.class_num is None:
            raise DataError(f"{type(self).__name__}: multi_label needs class_num")
        self._check_classes(np.concatenate([np.empty(0, np.int64), *map(np.ravel, labels)]))
        target = np.zeros((len(labels), self.class_num), dtype=np.float32)
        for row, classes in zip(target, labels):
            row[classes] = 1.0
        return target

    def _check_classes(self, classes: np.ndarray) -> None:
        if not len(classes):
            return
        low, high = int(classes.min()), int(classes.max())
        if low < 0 or (self.class_num is not None and high >= self.class_num):
            limit = "" if self.class_num is None else f" to {self.class_num - 1}"
            raise DataError(
                f"{type(self).__name__}: the label {low if low < 0 else high} is out of range; "
                f"labels go from 0{limit}"
            )


class FileDataset(Dataset):
    """Image files below a folder, listed in a :class:`SampleTable`.

    Args:
        root: folder that the table's paths are relative to.
        table: paths and labels.
        transform_ops: as for :class:`Dataset`.
    """

    def __init__(
        self, root: Path, table: SampleTable, transform_ops: Sequence[Any] = ()
    ) -> None:
        super().__init__(transform_ops)
        self.root, self.table = root, table
        self.labels, self.multi_label = table.labels, table.multi_label

    def __len__(self) -> int:
        return len(self.table)

    def path_of(self, index: int) -> str:
        """Path of the image file."""
        return str(self.root / self.table.name(index))

    def load(self, index: int) -> tuple[Image, Label]:
        """The bytes of the image file and its label."""
        path = os.path.join(self.root, self.table.name(index))
        with open(path, "rb", buffering=0) as file:  # it is read in one piece
            return file.read(), self.table.label(index)

    def missing_of_sample(self) -> list[int]:
        """Indices without a file, among at most 100 spread evenly over the table."""
        count = min(len(self), _EXISTENCE_SAMPLES)
        spread = np.linspace(0, len(self) - 1, count).astype(np.int64)
        return [int(i) for i in spread if not Path(self.path_of(int(i))).is_file()]


def describe_classes(classes: Sequence[int], limit: int = 10) -> str:
    """``1 class (7)`` or ``12 classes (0, 1, 2, ...)``."""
    shown = ", ".join(str(number) for number in classes[:limit])
    noun = "class" if len(classes) == 1 else "classes"
    return f"{len(classes)} {noun} ({shown}{', ...' if len(classes) > limit else ''})"


def reason_of(error: BaseException) -> str:
    """Why a sample cannot be used, in a few words."""
    if isinstance(error, FileNotFoundError):
        return "the file does not exist"
    if isinstance(error, IsADirectoryError):
        return "it is a folder, not an image file"
    if isinstance(error, (DataError, OSError)):
        return str(error)
    return f"{type(error).__name__}: {error}"

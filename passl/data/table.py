"""Paths and labels of a data set in a few flat arrays.

Fourteen million Python strings cost several gigabytes, and every forked process copies them page by
page as their reference counts change.  Here all paths share one byte buffer; path ``i`` is
``names[offsets[i]:offsets[i + 1]]``.  Labels are one int32 each, or, where an image has several,
the flat ``labels[label_offsets[i]:label_offsets[i + 1]]``.
"""

from __future__ import annotations

import itertools
import os
from array import array
from collections.abc import Sequence
from typing import Optional, Union

import numpy as np

__all__ = ["SampleTable", "TableBuilder"]


class SampleTable:
    """Read-only table of N samples.

    Args:
        names: uint8 [bytes], the paths one after another, as the file system spells them.
        offsets: int64 [N + 1], where each path starts; the last entry is the end.
        labels: int32 [N], or int32 [M] when ``label_offsets`` is given.
        label_offsets: int64 [N + 1] or None.
    """

    def __init__(
        self,
        names: np.ndarray,
        offsets: np.ndarray,
        labels: np.ndarray,
        label_offsets: Optional[np.ndarray] = None,
    ) -> None:
        self.names, self.offsets = names, offsets
        self.labels, self.label_offsets = labels, label_offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def multi_label(self) -> bool:
        """A sample may have several labels."""
        return self.label_offsets is not None

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        arrays = (self.names, self.offsets, self.labels, self.label_offsets)
        return sum(part.nbytes for part in arrays if part is not None)

    def name(self, index: int) -> str:
        """Path of sample ``index``, relative to the data set's root."""
        return os.fsdecode(self.names[self.offsets[index] : self.offsets[index + 1]].tobytes())

    def encoded_names(self, start: int, stop: int) -> list[bytes]:
        """Paths of samples ``start`` to ``stop``, as the file system spells them."""
        ends = self.offsets[start : stop + 1].tolist()
        first = ends[0]
        text = self.names[first : ends[-1]].tobytes()
        return [text[a - first : b - first] for a, b in zip(ends, ends[1:])]

    def label(self, index: int) -> Union[int, np.ndarray]:
        """Label of sample ``index``: an int, or int32 [k] in a table with several labels."""
        if self.label_offsets is None:
            return int(self.labels[index])
        return self.labels[self.label_offsets[index] : self.label_offsets[index + 1]]

    def class_counts(self, class_num: int = 0) -> np.ndarray:
        """Number of samples of each class: int64 [max(class_num, largest label + 1)]."""
        return np.bincount(self.labels, minlength=class_num)


class TableBuilder:
    """Collects a table entry by entry, at no more than the table's own size.

    For lists that come from walking folders; list files are parsed in bulk by
    :mod:`passl.data.lists`.
    """

    def __init__(self) -> None:
        self._names = bytearray()
        self._ends = array("q", [0])
        self._labels = array("i")

    def __len__(self) -> int:
        return len(self._labels)

    def append(self, name: str, label: int) -> None:
        """Add one path with its label."""
        self._names += os.fsencode(name)
        self._ends.append(len(self._names))
        self._labels.append(label)

    def extend(self, names: Sequence[bytes], label: int) -> None:
        """Add paths, as the file system spells them, that share a label."""
        ends = itertools.accumulate(map(len, names), initial=len(self._names))
        self._ends.extend(itertools.islice(ends, 1, None))
        self._names += b"".join(names)
        self._labels.extend([label] * len(names))

    def finish(self) -> SampleTable:
        """The table; shares memory with the builder, which must not be used any more."""
        return SampleTable(
            np.frombuffer(self._names, dtype=np.uint8),
            np.frombuffer(self._ends, dtype=np.int64),
            np.frombuffer(self._labels, dtype=np.intc),
        )

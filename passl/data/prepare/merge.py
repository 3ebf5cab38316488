"""The same image in several folders becomes one sample with several labels.

ImageNet-21K holds many images more than once, byte for byte, under different classes.  PASSL's
recipe for it (``tasks/classification/vit`` of PASSL 2.5, "ImageNet21K data preparation") groups
files by their MD5; the file that comes first in the listing stands for its group, the labels of a
group are the sorted set of its classes, and groups are ordered by their first label, equal ones by
their place in the listing.  Here the same is done on arrays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from passl.checkpoint.disk import FileDigest, atomic_file
from passl.data.names import list_name
from passl.data.table import SampleTable

__all__ = ["Merged", "merge_by_digest", "write_bytes", "write_list"]

_LINES = 1 << 15  # written at a time


@dataclass(frozen=True)
class Merged:
    """M images with one or several labels each, in the order of the list.

    Attributes:
        files: int64 [M], the file that stands for each image.
        labels: int32 [L], all labels one after another, ascending within an image.
        label_offsets: int64 [M + 1], where those of an image start.
    """

    files: np.ndarray
    labels: np.ndarray
    label_offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.files)

    @property
    def num_labels(self) -> np.ndarray:
        """Labels of each image: int64 [M]."""
        return np.diff(self.label_offsets)

    def first_single_label(self, count: int) -> Merged:
        """The first ``count`` images of each class among those with one label."""
        single = np.flatnonzero(self.num_labels == 1)
        label = self.labels[self.label_offsets[single]]
        order = np.argsort(label, kind="stable")  # already the order of the list; cheap if so
        single, label = single[order], label[order]
        start_of_run = np.concatenate(([0], np.flatnonzero(np.diff(label)) + 1))
        run = np.repeat(start_of_run, np.diff(np.append(start_of_run, len(label))))
        chosen = single[np.arange(len(label)) - run < count] if len(label) else single
        return Merged(
            self.files[chosen],
            self.labels[self.label_offsets[chosen]],
            np.arange(len(chosen) + 1, dtype=np.int64),
        )


def merge_by_digest(digests: np.ndarray, labels: np.ndarray) -> Merged:
    """Group files by hash.

    Args:
        digests: uint8 [N, 16].
        labels: int32 [N], the class of each file.
    """
    halves = np.ascontiguousarray(digests).view(np.uint64)
    order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: equal hashes keep their order
    is_new = np.ones(len(order), dtype=bool)
    is_new[1:] = (halves[order[1:]] != halves[order[:-1]]).any(axis=1)
    first = order[is_new]  # the earliest file of each group
    group = np.empty(len(order), dtype=np.int64)
    group[order] = np.cumsum(is_new) - 1

    num_classes = int(labels.max(initial=0)) + 1
    pairs = np.unique(group * num_classes + labels)  # sorted by group, then by label
    pair_label = (pairs % num_classes).astype(np.int32)
    counts = np.bincount(pairs // num_classes, minlength=len(first))
    begin = np.cumsum(counts) - counts

    place = np.lexsort((first, pair_label[begin])) if len(first) else np.zeros(0, dtype=np.int64)
    offsets = np.concatenate(([0], np.cumsum(counts[place]))).astype(np.int64)
    within = np.arange(int(offsets[-1])) - np.repeat(offsets[:-1], counts[place])
    flat = pair_label[np.repeat(begin[place], counts[place]) + within]
    return Merged(first[place].astype(np.int64), flat, offsets)


def write_list(path: Path, table: SampleTable, merged: Merged) -> FileDigest:
    """Write ``path label,label,...`` for each image; the file appears whole or not at all."""
    with atomic_file(path) as file:
        for start in range(0, len(merged), _LINES):
            file.write(b"".join(_lines(table, merged, start, min(start + _LINES, len(merged)))))
    return file.digest()


def write_bytes(path: Path, content: bytes) -> FileDigest:
    """Write a small file, whole or not at all."""
    with atomic_file(path) as file:
        file.write(content)
    return file.digest()


def _lines(table: SampleTable, merged: Merged, start: int, stop: int) -> Iterator[bytes]:
    files = merged.files[start:stop]
    begins, ends = table.offsets[files].tolist(), table.offsets[files + 1].tolist()
    at = merged.label_offsets[start : stop + 1].tolist()
    labels = [b"%d" % label for label in merged.labels[at[0] : at[-1]].tolist()]
    text = memoryview(table.names)  # type: ignore[arg-type]
    for begin, end, first, last in zip(begins, ends, at, at[1:]):
        name = list_name(bytes(text[begin:end]))
        yield b"%b %b\n" % (name, b",".join(labels[first - at[0] : last - at[0]]))

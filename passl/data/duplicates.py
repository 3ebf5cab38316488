"""The same image twice: in training and evaluation data, or with two labels.

Images are compared by a 128-bit hash of the bytes of their files (of the array where there is no
file), so only exact copies are found.  Hashes are 16 bytes a sample in one array; finding the equal
ones sorts half of each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Union

import numpy as np

from passl.data.dataset import Dataset, FileDataset
from passl.data.names import printable
from passl.data.scan_state import DIGEST_BYTES

__all__ = ["Copy", "DuplicateReport", "content_digest", "find_duplicates"]

_Label = Union[int, tuple[int, ...], None]


@dataclass(frozen=True)
class Copy:
    """One of several samples with the same content."""

    section: str
    index: int
    path: str
    label: _Label

    def __str__(self) -> str:
        return f"{self.section} sample {self.index} ({printable(self.path)}, label {self.label})"


@dataclass
class DuplicateReport:
    """Groups of samples with the same content.

    Attributes:
        between: groups with members in more than one data set.
        conflicting: groups whose members have different labels.
        same: groups within one data set and with one label.
    """

    between: list[list[Copy]]
    conflicting: list[list[Copy]]
    same: list[list[Copy]]

    def describe(self, limit: int = 5) -> str:
        """A few lines, with the first ``limit`` groups of the kinds that do harm."""
        lines = []
        for groups, what in (
            (self.between, "in both data sets: evaluation is not on unseen images only"),
            (self.conflicting, "with copies that have different labels"),
        ):
            lines.append(f"{_images(len(groups))} {what if groups else what.partition(':')[0]}")
            lines.extend(f"  {' = '.join(map(str, group[:4]))}" for group in groups[:limit])
            if len(groups) > limit:
                lines.append(f"  ... and {len(groups) - limit} more")
        lines.append(f"{_images(len(self.same))} with copies of the same label")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """All groups, for a file."""
        return {
            kind: [[vars(copy) for copy in group] for group in getattr(self, kind)]
            for kind in ("between", "conflicting", "same")
        }


def content_digest(stored: Union[bytes, np.ndarray]) -> bytes:
    """Hash of a file's bytes, or of an array with its shape and type."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    if isinstance(stored, np.ndarray):
        digest.update(f"{stored.shape}{stored.dtype.str}".encode())
        digest.update(np.ascontiguousarray(stored).tobytes())
    else:
        digest.update(stored)
    return digest.digest()


def find_duplicates(parts: Mapping[str, tuple[Dataset, np.ndarray]]) -> DuplicateReport:
    """Find samples with the same content.

    Args:
        parts: data set and hashes, uint8 [N, 16], by name; rows of zeros do not count.
    """
    names = list(parts)
    digests = np.concatenate([parts[name][1] for name in names] or [np.zeros((0, 16), np.uint8)])
    first_of = np.cumsum([0, *(len(parts[name][1]) for name in names)])
    halves = np.ascontiguousarray(digests).view(np.uint64)
    order = np.argsort(halves[:, 0], kind="stable")
    equal = np.ones(max(len(order) - 1, 0), dtype=bool)
    for half in (0, 1):
        ordered = halves[order, half]
        equal &= ordered[1:] == ordered[:-1]
    equal &= (halves[order[1:]] != 0).any(axis=1)
    report = DuplicateReport([], [], [])
    edges = np.flatnonzero(np.diff(np.concatenate(([0], equal.view(np.int8), [0]))))
    groups = [np.sort(order[a : b + 1]).tolist() for a, b in zip(edges[::2], edges[1::2])]
    for positions in sorted(groups):
        group = []
        for position in positions:
            number = int(np.searchsorted(first_of, position, side="right")) - 1
            dataset, index = parts[names[number]][0], position - int(first_of[number])
            group.append(
                Copy(names[number], index, dataset.path_of(index), _label_of(dataset, index))
            )
        between = len({copy.section for copy in group}) > 1
        conflicting = len({copy.label for copy in group}) > 1
        if between:
            report.between.append(group)
        if conflicting:
            report.conflicting.append(group)
        if not between and not conflicting:
            report.same.append(group)
    return report


def _label_of(dataset: Dataset, index: int) -> _Label:
    label: Any = None
    if isinstance(dataset, FileDataset):
        label = dataset.table.label(index)
    elif dataset.labels is not None and len(dataset.labels) == len(dataset):
        label = dataset.labels[index]
    if isinstance(label, np.ndarray) and label.ndim:
        classes = tuple(label.tolist())
        return classes[0] if len(classes) == 1 else classes  # the same as a label of its own
    return None if label is None else int(label)


def _images(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"

"""A look at every sample of a data set, before a run finds the bad one at three in the morning."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Optional

import numpy as np

from passl.data.dataset import Dataset, FileDataset, describe_classes
from passl.data.images import decode
from passl.errors import DataError

__all__ = ["Fault", "ScanReport", "scan_dataset"]

_CHUNK = 64  # samples between two reports of progress
_QUEUED_PER_WORKER = 4  # chunks; 14 million samples must not become as many pending futures

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Fault:
    """A sample that cannot be used: its position in the data set, its path, and why."""

    index: int
    path: str
    reason: str

    def __str__(self) -> str:
        return f"sample {self.index} ({self.path}): {self.reason}"


@dataclass
class ScanReport:
    """What a scan found.

    Attributes:
        total: samples of the data set.
        checked: samples looked at.
        missing: samples without a file.
        unreadable: samples whose file is empty, truncated, broken or no image (full scans only).
        class_counts: samples of each class, int64 [classes].
        empty_classes: classes without a sample.
        warnings: what the data set itself found odd.
    """

    total: int
    checked: int = 0
    missing: list[Fault] = field(default_factory=list)
    unreadable: list[Fault] = field(default_factory=list)
    class_counts: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    empty_classes: list[int] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Every sample looked at can be used."""
        return not self.missing and not self.unreadable

    def describe(self, limit: int = 10) -> str:
        """The report in a few lines, with the first ``limit`` faults of each kind."""
        lines = [f"{self.checked} of {self.total} samples checked"]
        if len(self.class_counts):
            counts = self.class_counts
            lines.append(
                f"{len(counts)} classes with {counts.min()} to {counts.max()} samples, "
                f"{counts.mean():.1f} on average"
            )
        if self.empty_classes:
            lines.append(f"{describe_classes(self.empty_classes)} without a sample")
        for name, faults in (("missing", self.missing), ("unreadable", self.unreadable)):
            lines.append(f"{len(faults)} {name}")
            lines.extend(f"  {fault}" for fault in faults[:limit])
            if len(faults) > limit:
                lines.append(f"  ... and {len(faults) - limit} more")
        return "\n".join(lines)


def scan_dataset(
    dataset: Dataset,
    *,
    num_workers: int = 4,
    full: bool = True,
    progress: Optional[Progress] = None,
) -> ScanReport:
    """Look at every sample, in threads; transforms are not applied.

    Args:
        dataset: what to scan.
        num_workers: threads.
        full: read and decode every image; else only see whether each file exists.
        progress: called in this thread with (samples done, total), now and then.

    Returns:
        A report; faults are in the order of the data set.
    """
    report = ScanReport(total=len(dataset), warnings=list(dataset.warnings))
    _count_classes(dataset, report)
    check = _check_fully if full else _check_existence
    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        for done, missing, unreadable in _in_order(pool, dataset, check, max(1, num_workers)):
            report.checked += done
            report.missing.extend(missing)
            report.unreadable.extend(unreadable)
            if progress is not None:
                progress(report.checked, report.total)
    return report


_Found = tuple[int, list[Fault], list[Fault]]
_Check = Callable[[Dataset, int], Optional[tuple[bool, str]]]


def _in_order(
    pool: ThreadPoolExecutor, dataset: Dataset, check: _Check, num_workers: int
) -> Iterator[_Found]:
    """Results of all chunks in order, a bounded number of them under way."""
    pending: list[Future[_Found]] = []
    for start in range(0, len(dataset), _CHUNK):
        chunk = range(start, min(start + _CHUNK, len(dataset)))
        pending.append(pool.submit(_scan_chunk, dataset, chunk, check))
        if len(pending) >= num_workers * _QUEUED_PER_WORKER:
            yield pending.pop(0).result()
    for future in pending:
        yield future.result()


def _scan_chunk(dataset: Dataset, chunk: range, check: _Check) -> _Found:
    missing: list[Fault] = []
    unreadable: list[Fault] = []
    for index in chunk:
        found = check(dataset, index)
        if found is not None:
            is_missing, reason = found
            faults = missing if is_missing else unreadable
            faults.append(Fault(index, dataset.path_of(index), reason))
    return len(chunk), missing, unreadable


def _check_existence(dataset: Dataset, index: int) -> Optional[tuple[bool, str]]:
    if not isinstance(dataset, FileDataset) or Path(dataset.path_of(index)).is_file():
        return None
    return True, "the file does not exist"


def _check_fully(dataset: Dataset, index: int) -> Optional[tuple[bool, str]]:
    try:
        image, _ = dataset.load(index)
        if isinstance(image, bytes):
            decode(image)
    except FileNotFoundError:
        return True, "the file does not exist"
    except (DataError, OSError) as error:
        return False, str(error)
    return None


def _count_classes(dataset: Dataset, report: ScanReport) -> None:
    if dataset.labels is None:
        return
    report.class_counts = np.bincount(dataset.labels, minlength=dataset.class_num or 0)
    report.empty_classes = np.flatnonzero(report.class_counts == 0).tolist()

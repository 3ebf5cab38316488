"""A look at every sample of a data set, before a run finds the bad one at three in the morning."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, Optional

import numpy as np

from passl.checkpoint.disk import human_size
from passl.data.archives import ArchiveDataset
from passl.data.dataset import Dataset, FileDataset, describe_classes, reason_of
from passl.data.duplicates import content_digest
from passl.data.faults import is_out_of_memory
from passl.data.images import decode
from passl.data.label_statistics import describe_balance, label_statistics
from passl.data.names import printable
from passl.data.scan_state import DIGEST_BYTES, Chunk, Fault, SectionState
from passl.data.threads import ThreadPool
from passl.errors import DataError

__all__ = ["Fault", "ScanReport", "scan_dataset"]

_CHUNK = 64  # samples between two reports of progress
_MAX_NAMED = 1000  # labels out of range that are named; all of a list may be
_MOST_CLASSES = 1 << 24  # where nobody says how many: a larger label is a mistake
_MOST_BYTES = 4 << 30  # of a file; reading a larger one may end the scan
_IDLE_S = 0.5
_QUEUED_PER_WORKER = 4  # chunks; 14 million samples must not become as many pending futures

Progress = Callable[[int, int], None]


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
        label_range: smallest and largest label, or None where labels are not known.
        out_of_range: the first 1000 samples with a label that the model has no class for.
        num_out_of_range: how many there are.
        digests: hashes of the contents, uint8 [total, 16], zeros where there is none; [0, 16] if
            not asked for.
        warnings: what the data set itself found odd.
    """

    total: int
    checked: int = 0
    missing: list[Fault] = field(default_factory=list)
    unreadable: list[Fault] = field(default_factory=list)
    class_counts: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    empty_classes: list[int] = field(default_factory=list)
    label_range: Optional[tuple[int, int]] = None
    out_of_range: list[Fault] = field(default_factory=list)
    num_out_of_range: int = 0
    digests: np.ndarray = field(default_factory=lambda: np.zeros((0, DIGEST_BYTES), np.uint8))
    warnings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Every sample looked at can be used."""
        return not self.missing and not self.unreadable and not self.num_out_of_range

    def to_dict(self) -> dict[str, Any]:
        """The whole report but the hashes, for a file."""
        faults = {
            kind: [vars(fault) for fault in getattr(self, kind)]
            for kind in ("missing", "unreadable", "out_of_range")
        }
        return {
            "ok": self.ok,
            "total": self.total,
            "checked": self.checked,
            **faults,
            "num_out_of_range": self.num_out_of_range,
            "label_range": self.label_range,
            "label_statistics": label_statistics(self.class_counts, self.total),
            "class_counts": self.class_counts.tolist(),
            "empty_classes": self.empty_classes,
            "warnings": self.warnings,
        }

    def describe(self, limit: int = 10) -> str:
        """The report in a few lines, with the first ``limit`` faults of each kind."""
        lines = [f"{self.checked} of {self.total} samples checked"]
        if len(self.class_counts):
            lines.append(describe_balance(label_statistics(self.class_counts, self.total)))
        if self.empty_classes:
            lines.append(f"{describe_classes(self.empty_classes)} without a sample")
        if self.label_range is not None:
            lines.append(f"labels from {self.label_range[0]} to {self.label_range[1]}")
        for name, faults, count in (
            ("missing", self.missing, len(self.missing)),
            ("unreadable", self.unreadable, len(self.unreadable)),
            ("with a label out of range", self.out_of_range, self.num_out_of_range),
        ):
            lines.append(f"{count} {name}")
            lines.extend(f"  {fault}" for fault in faults[:limit])
            if count > limit:
                lines.append(f"  ... and {count - limit} more")
        return "\n".join(lines)


def scan_dataset(
    dataset: Dataset,
    *,
    num_workers: int = 4,
    full: bool = True,
    class_num: Optional[int] = None,
    hashes: bool = False,
    state: Optional[SectionState] = None,
    progress: Optional[Progress] = None,
) -> ScanReport:
    """Look at every sample, in threads; transforms are not applied.

    Args:
        dataset: what to scan.
        num_workers: threads.
        full: read and decode every image; else only see whether each file exists.
        class_num: classes of the model, that labels must be below; None: the data set's own.
        hashes: hash every sample's content as well (full scans only).
        state: what an interrupted scan has found, and where to put what is found now.
        progress: called in this thread with (samples done, total), now and then.

    Returns:
        A report; faults are in the order of the data set.
    """
    report = ScanReport(total=len(dataset), warnings=list(dataset.warnings))
    _look_at_labels(dataset, report, dataset.class_num if class_num is None else class_num)
    if hashes and full:
        report.digests = np.zeros((len(dataset), DIGEST_BYTES), np.uint8)
    scan = partial(_scan_chunk, dataset, full, hashes and full)
    pool = ThreadPool(max(1, num_workers))
    try:
        for chunk, is_new in _in_order(pool, len(dataset), scan, state, max(1, num_workers)):
            if state is not None and is_new:
                state.append(chunk)
            if chunk.digests:
                rows = np.frombuffer(chunk.digests, np.uint8).reshape(-1, DIGEST_BYTES)
                report.digests[chunk.start : chunk.start + chunk.count] = rows
            report.checked += chunk.count
            report.missing.extend(chunk.missing)
            report.unreadable.extend(chunk.unreadable)
            if progress is not None:
                progress(report.checked, report.total)
    finally:
        pool.close()  # after Ctrl-C, without waiting for a file that hangs
    if isinstance(dataset, FileDataset) and 0 < len(report.missing) == report.total:
        report.warnings.append(f"no file is there; paths are relative to {dataset.root}")
    return report


_Found = tuple[Chunk, bool]
_Scan = Callable[[range, Optional[Chunk]], _Found]


def _in_order(
    pool: ThreadPool,
    total: int,
    scan: _Scan,
    state: Optional[SectionState],
    num_workers: int,
) -> Iterator[_Found]:
    """Results of all chunks in order, a bounded number of them under way."""
    pending: deque[_Task] = deque()
    idle = state.flush_if_due if state is not None else lambda: None
    for start in range(0, total, _CHUNK):
        chunk = range(start, min(start + _CHUNK, total))
        known = state.saved(start, len(chunk)) if state is not None else None
        pending.append(_Task(partial(scan, chunk, known)))
        pool.submit(pending[-1])
        if len(pending) >= num_workers * _QUEUED_PER_WORKER:
            yield pending.popleft().result(idle)
    for task in pending:
        yield task.result(idle)


class _Task:
    """One chunk on its way through the pool."""

    def __init__(self, work: Callable[[], _Found]) -> None:
        self._work = work
        self._found: Optional[_Found] = None
        self._error: Optional[BaseException] = None
        self._finished = threading.Event()

    def __call__(self, _worker: int) -> None:
        try:
            self._found = self._work()
        except BaseException as error:  # raised again where the result is wanted
            self._error = error
        self._finished.set()

    def result(self, idle: Callable[[], None]) -> _Found:
        """What was found, when it is there; ``idle`` is called while waiting."""
        while not self._finished.wait(_IDLE_S):
            idle()
        if self._found is None:
            raise self._error or AssertionError("a task has either a result or an error")
        return self._found


def _scan_chunk(
    dataset: Dataset, full: bool, hashes: bool, chunk: range, known: Optional[Chunk]
) -> _Found:
    """What is in the chunk, and whether that was not known before."""
    stamp = _stamp(dataset, chunk)  # before the files are read: what changes later is seen later
    if known is not None and known.stamp == stamp and (known.digests or not hashes):
        return known, False
    missing: list[Fault] = []
    unreadable: list[Fault] = []
    digests = bytearray()
    for index in chunk:
        digest = bytes(DIGEST_BYTES)
        try:
            _check_is_file(dataset, index)
            if full:
                digest = _check_fully(dataset, index, hashes)
        except FileNotFoundError as error:
            missing.append(Fault(index, dataset.path_of(index), reason_of(error)))
        except Exception as error:  # also of a user's own data set: that sample cannot be used
            if is_out_of_memory(error):
                raise DataError(
                    f"no memory for sample {index} ({printable(dataset.path_of(index))}); try "
                    "fewer --workers"
                ) from error
            unreadable.append(Fault(index, dataset.path_of(index), reason_of(error)))
        digests += digest
    found = bytes(digests) if hashes else b""
    return Chunk(chunk.start, len(chunk), stamp, found, missing, unreadable), True


def _check_is_file(dataset: Dataset, index: int) -> None:
    """There is one, and reading it will end, as of a pipe it would not."""
    if not isinstance(dataset, FileDataset):
        return
    status = os.stat(dataset.path_of(index))
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError
    if not stat.S_ISREG(status.st_mode):
        raise DataError("no regular file")
    if status.st_size > _MOST_BYTES:
        raise DataError(f"{human_size(status.st_size)}, too large for an image")


def _check_fully(dataset: Dataset, index: int, hashes: bool) -> bytes:
    """Load and decode the sample; returns the hash of its content, or zeros."""
    stored, _ = dataset.load(index)
    if isinstance(stored, bytes):
        decode(stored)
    return content_digest(stored) if hashes else bytes(DIGEST_BYTES)


def _stamp(dataset: Dataset, chunk: range) -> str:
    """Sizes and times of change of a chunk's files or archives, as one short name."""
    paths: list[Any]
    if isinstance(dataset, FileDataset):
        paths = [dataset.path_of(index) for index in chunk]
    elif isinstance(dataset, ArchiveDataset):
        numbers = np.unique(dataset.places[0][chunk.start : chunk.stop]).tolist()
        paths = [dataset.archives[number] for number in numbers]
    else:
        return ""
    digest = hashlib.blake2b(digest_size=8)
    for path in paths:
        try:
            status = os.stat(path)
            digest.update(f"{status.st_size} {status.st_mtime_ns}|".encode())
        except OSError:
            digest.update(b"-|")
    return digest.hexdigest()


def _look_at_labels(dataset: Dataset, report: ScanReport, class_num: Optional[int]) -> None:
    labels = dataset.labels
    if labels is None or not len(labels):
        return
    limit = class_num or _MOST_CLASSES
    wrong = np.flatnonzero((labels < 0) | (labels >= limit))
    right = labels[(labels >= 0) & (labels < limit)]
    report.class_counts = np.bincount(right, minlength=class_num or 0)
    report.empty_classes = np.flatnonzero(report.class_counts == 0).tolist()
    report.label_range = (int(labels.min()), int(labels.max()))
    report.num_out_of_range = len(wrong)
    table = getattr(dataset, "table", None)
    offsets = table.label_offsets if table is not None else None
    for position in wrong[:_MAX_NAMED].tolist():
        index = position
        if offsets is not None:  # labels are flat: find the sample that this one belongs to
            index = int(np.searchsorted(offsets, position, side="right")) - 1
        reason = f"the label {labels[position]} is not from 0 to {limit - 1}"
        report.out_of_range.append(Fault(index, dataset.path_of(index), reason))

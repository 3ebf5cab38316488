"""MD5 of many small files, in processes.

A hash of 30 KB holds Python's lock for most of its time, and handing the lock over costs more than
the hash: threads are slower than one process.  Files are handed out in chunks of a few hundred, of
which a bounded number is under way.  ``benchmarks/README.md`` compares with md5sum.
"""

from __future__ import annotations

import ctypes
import hashlib
import multiprocessing
import os
import signal
import struct
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

import numpy as np

from passl.data.prepare.listing import Excluded
from passl.data.prepare.md5_state import RECORD, Md5State
from passl.data.table import SampleTable
from passl.errors import DataError

__all__ = ["hash_files"]

_CHUNK = 500  # files handed to a process at once
_QUEUED_PER_WORKER = 3
_MOST_AT_ONCE = 16 << 20  # bytes
_LAYOUT = struct.Struct("<16sqq")  # of a record
_UNKNOWN = bytes(_LAYOUT.size)
_PR_SET_PDEATHSIG = 1  # prctl(2)

Progress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class _Found:
    """What a process found in a chunk.

    Attributes:
        records: of its files.
        faults: position in the chunk and reason.
        num_known: files that were not read, since nothing has changed.
    """

    records: np.ndarray
    faults: list[tuple[int, str]]
    num_known: int


def hash_files(
    root: Path,
    table: SampleTable,
    state: Md5State,
    *,
    num_workers: int,
    progress: Optional[Progress] = None,
) -> list[Excluded]:
    """Fill ``state.records``; files that are known and unchanged are not read again.

    Args:
        root: folder that the table's paths are relative to.
        table: the files.
        state: of exactly this table.
        num_workers: processes; 1 works in this one.
        progress: called after every chunk with the files done, those in all, and how many of those
            done were known.

    Returns:
        The files that are empty or cannot be read; their records stay zero.

    Raises:
        DataError: a process was killed.
    """
    excluded: list[Excluded] = []
    num_known = 0
    for start, found in _chunks(os.fsencode(root), table, state.records, num_workers):
        state.records[start : start + len(found.records)] = found.records
        excluded += [Excluded(table.name(start + index), reason) for index, reason in found.faults]
        num_known += found.num_known
        if progress is not None:
            progress(start + len(found.records), len(table), num_known)
    return excluded


def _chunks(
    root: bytes, table: SampleTable, records: np.ndarray, num_workers: int
) -> Iterator[tuple[int, _Found]]:
    def work(start: int) -> tuple[bytes, list[bytes], np.ndarray]:
        stop = min(start + _CHUNK, len(table))
        return root, table.encoded_names(start, stop), np.array(records[start:stop])

    starts = range(0, len(table), _CHUNK)
    if num_workers <= 1 or len(starts) < 2:
        for start in starts:
            yield start, _hash_chunk(*work(start))
        return
    # Nothing here has threads yet, and a forked process starts in no time.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    pool = ProcessPoolExecutor(num_workers, context, _start_worker, (os.getpid(),))
    pending: deque[tuple[int, Future[_Found]]] = deque()
    try:
        for start in starts:
            pending.append((start, pool.submit(_hash_chunk, *work(start))))
            if len(pending) >= num_workers * _QUEUED_PER_WORKER:
                first, future = pending.popleft()
                yield first, future.result()
        for first, future in pending:
            yield first, future.result()
    except BrokenProcessPool as error:
        raise DataError(
            "a process that computes checksums was killed (out of memory?); nothing is lost: run "
            "the same command again, with fewer --workers if it happens twice"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(parent: int) -> None:
    """Ctrl-C is for the parent, and nothing of us outlives it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def _hash_chunk(root: bytes, names: list[bytes], known: np.ndarray) -> _Found:
    # Plain bytes and numbers: an element of an array costs a tenth of a hash.
    before = root.rstrip(b"/") + b"/"
    sizes, times = known["size"].tolist(), known["mtime_ns"].tolist()
    records = bytearray()
    faults: list[tuple[int, str]] = []
    num_known = 0
    for index, name in enumerate(names):
        record = _UNKNOWN
        try:
            fresh = _hash_file(before + name, sizes[index], times[index])
            if fresh is None:
                faults.append((index, "empty"))
            else:
                digest, size, mtime_ns = fresh
                num_known += digest is None
                old = known["md5"][index].tobytes() if digest is None else digest
                record = _LAYOUT.pack(old, size, mtime_ns)
        except OSError as error:
            faults.append((index, f"cannot be read ({error.strerror})"))
        records += record
    return _Found(np.frombuffer(bytes(records), dtype=RECORD), faults, num_known)


def _hash_file(path: bytes, size: int, mtime_ns: int) -> Optional[tuple[Optional[bytes], int, int]]:
    """MD5 (None: size and time are as known), size and time of change; None for an empty file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        status = os.fstat(handle)
        if not status.st_size:
            return None
        if mtime_ns == status.st_mtime_ns and size == status.st_size:
            return None, size, mtime_ns
        # One read takes a photograph; the byte too many saves asking whether that was all.  A
        # network's file system may give less than it has.
        wanted = min(status.st_size, _MOST_AT_ONCE) + 1
        piece = os.read(handle, wanted)
        digest, done = hashlib.md5(piece, usedforsecurity=False), len(piece)
        while piece and (len(piece) == wanted or done < status.st_size):
            piece = os.read(handle, wanted)
            digest.update(piece)
            done += len(piece)
    finally:
        os.close(handle)
    return digest.digest(), status.st_size, status.st_mtime_ns

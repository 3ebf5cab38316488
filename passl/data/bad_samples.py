"""``bad_samples.txt``: the samples of a run that could not be used, each once.

One line a sample, ``index<TAB>path<TAB>reason``, in the order they were met.  All ranks append to
the same file under a lock and read what the others have added, so a sample that different ranks
meet in different epochs is listed once, and the limit holds for all of them together, also after a
restart.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, Optional

from passl.data.faults import BadSample, FetchedSample
from passl.errors import DataError
from passl.logs.logger import get_logger

__all__ = ["BadSampleLog", "limit_of"]

_FRACTION, _AT_LEAST = 0.001, 10
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}


def limit_of(max_bad_samples: Optional[float], num_samples: int) -> int:
    """How many samples may be bad.

    Args:
        max_bad_samples: a count, or below 1 a fraction of the data set; None: a thousandth of it,
            at least 10.
        num_samples: of the data set.
    """
    if max_bad_samples is None:
        return max(_AT_LEAST, int(_FRACTION * num_samples))
    if max_bad_samples < 1:
        return int(round(max_bad_samples * num_samples, 6))  # 0.29 of 100 is 28.999999999999996
    return int(max_bad_samples)


class BadSampleLog:
    """Counts the bad samples of a run, lists them, and ends the run when there are too many.

    Args:
        path: of the file; None counts in memory alone.  It is made at the first bad sample.
        limit: how many there may be.
        num_samples: of the data set.
        path_of: path of a sample; entries of the file that do not fit are of other data.
    """

    def __init__(
        self, path: Optional[Path], limit: int, num_samples: int, path_of: Callable[[int], str]
    ) -> None:
        self._path, self._limit = path, limit
        self._num_samples, self._path_of = num_samples, path_of
        self._known: set[int] = set()
        self._read_to = 0
        self._lock = threading.Lock()
        self._file_works = path is not None

    def record(self, fetched: FetchedSample) -> None:
        """Take note of the bad samples met on the way to ``fetched``.

        Raises:
            DataError: there are more than the limit.
        """
        for bad in fetched.bad:
            with self._lock:
                is_new = self._add(bad)
                count = len(self._known)
            if is_new:
                get_logger().warning(
                    f"sample {bad.index} ({bad.path}) cannot be used: {bad.reason}; sample "
                    f"{fetched.index} takes its place (bad sample {count}, at most {self._limit} "
                    f"may be{self._in_file()})"
                )
            if count > self._limit:
                raise DataError(
                    f"{count} of {self._num_samples} samples cannot be used, more than the "
                    f"{self._limit} that loader.max_bad_samples allows; the last one is sample "
                    f"{bad.index} ({bad.path}): {bad.reason}{self._in_file()}. Repair them (`"
                    "passl-check --data` finds all) and remove that file, or raise "
                    "loader.max_bad_samples, a count or a fraction of the data set"
                )

    def _in_file(self) -> str:
        return f"; all are listed in {self._path}" if self._path is not None else ""

    def _add(self, bad: BadSample) -> bool:
        """Put the sample on the list; False if it was there, by this process or another."""
        if self._file_works and self._path is not None:
            try:
                return self._add_to_file(self._path, bad)
            except OSError as error:  # a full disk: training is worth more than this list
                self._file_works = False
                get_logger().warning(
                    f"{self._path} cannot be written ({error.strerror}); bad samples are counted "
                    "in this process alone from now on"
                )
        is_new = bad.index not in self._known
        self._known.add(bad.index)
        return is_new

    def _add_to_file(self, path: Path, bad: BadSample) -> bool:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with _locked(descriptor):
                ends_open = self._read_new(descriptor)
                if bad.index in self._known:
                    return False
                line = f"{bad.index}\t{_escape(bad.path)}\t{_escape(bad.reason)}\n"
                # A line that a kill cut short is ended first, so that it spoils no other.
                os.write(descriptor, ("\n" * ends_open + line).encode())
                self._known.add(bad.index)
                return True
        finally:
            os.close(descriptor)

    def _read_new(self, descriptor: int) -> bool:
        """Learn what was added since the last look; True if the file ends in mid-line."""
        size = os.fstat(descriptor).st_size
        if size < self._read_to:  # somebody emptied it
            self._read_to = 0
        data = os.pread(descriptor, size - self._read_to, self._read_to)
        whole = data.rfind(b"\n") + 1
        for line in data[:whole].decode("utf-8", "replace").splitlines():
            number, _, rest = line.partition("\t")
            if number.isdigit() and int(number) < self._num_samples:
                index = int(number)
                if rest.partition("\t")[0] == _escape(self._path_of(index)):
                    self._known.add(index)
        self._read_to += whole
        return whole < len(data)


def _escape(text: str) -> str:
    shown = "".join(_ESCAPES.get(letter, letter) for letter in text)
    shown = shown.encode("utf-8", "backslashreplace").decode()
    return " ".join(shown.splitlines())


@contextlib.contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    """The file for this process alone, where the file system knows locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:  # some network disks; appending a line is then all the order there is
        yield
        return
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)

"""What has been hashed already, on disk, so that hours of reading are done once.

A folder with the sorted names of the files and one record of 32 bytes for each: its MD5, its size
and its time of change when it was read.  Records are written in place through a memory map, so a
killed process loses nothing.  When files come or go, what is known of the others stays known; a
file counts as hashed only while its size and time are the same.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Optional

import numpy as np

from passl.checkpoint.disk import atomic_file
from passl.data.table import SampleTable

__all__ = ["RECORD", "Md5State"]

#: One file: the hash, bytes, nanoseconds since the epoch; all zero while it is not known.
RECORD = np.dtype([("md5", "u1", 16), ("size", "<i8"), ("mtime_ns", "<i8")])

_NAMES, _OFFSETS, _RECORDS = "names.u8", "offsets.i8", "records.bin"


class Md5State:
    """The records of a listing, carried over from an earlier start where there was one.

    Args:
        folder: of the state's files; made if needed.
        table: the files, in sorted order.

    Attributes:
        records: :data:`RECORD` [N], a memory map: what is written into it stays.
        num_known: files that were hashed before, if they have not changed since.
    """

    def __init__(self, folder: Path, table: SampleTable) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        known = self._records_of(table)
        if known is None:
            carried = self._carried_over(table)
            with atomic_file(folder / _RECORDS) as file:
                file.write(carried.tobytes())
            # The names come last: records that fit no names are made anew at the next start.
            with atomic_file(folder / _NAMES) as file:
                file.write(table.names.tobytes())
            with atomic_file(folder / _OFFSETS) as file:
                file.write(table.offsets.astype("<i8").tobytes())
            known = self._map(len(table))
        self.records = known
        self.num_known = int(np.count_nonzero(self.records["mtime_ns"]))

    def remove(self) -> None:
        """The work is done: forget it."""
        del self.records
        shutil.rmtree(self.folder, ignore_errors=True)

    def _records_of(self, table: SampleTable) -> Optional[np.ndarray]:
        """The records on disk if they are of exactly these files."""
        old = self._old_table()
        if old is None or len(old) != len(table):
            return None
        same = np.array_equal(old.offsets, table.offsets) and np.array_equal(old.names, table.names)
        return self._map(len(table)) if same else None

    def _carried_over(self, table: SampleTable) -> np.ndarray:
        """Records for ``table``, known where an earlier listing had the same name."""
        records = np.zeros(len(table), dtype=RECORD)
        old = self._old_table()
        if old is None:
            return records
        before = self._map(len(old))
        at = 0
        for index in range(len(table)):  # both are sorted: one walk through the two
            name = _sort_key(table, index)
            while at < len(old) and _sort_key(old, at) < name:
                at += 1
            if at < len(old) and _sort_key(old, at) == name:
                records[index] = before[at]
        return records

    def _old_table(self) -> Optional[SampleTable]:
        try:
            names = np.fromfile(self.folder / _NAMES, dtype=np.uint8)
            offsets = np.fromfile(self.folder / _OFFSETS, dtype="<i8").astype(np.int64)
            size = (self.folder / _RECORDS).stat().st_size
        except OSError:
            return None
        count = len(offsets) - 1
        if count < 0 or offsets[-1] != len(names) or size != count * RECORD.itemsize:
            return None
        return SampleTable(names, offsets, np.zeros(count, dtype=np.int32))

    def _map(self, count: int) -> np.ndarray:
        if not count:
            return np.zeros(0, dtype=RECORD)
        return np.memmap(self.folder / _RECORDS, dtype=RECORD, mode="r+", shape=(count,))


def _sort_key(table: SampleTable, index: int) -> list[bytes]:
    return os.fsencode(table.name(index)).split(b"/")

"""What has been hashed already, on disk, so that hours of reading are done once.

A folder with the sorted names of the files and one record of 32 bytes for each: its MD5, its size
and its time of change when it was read.  The names say which file of records is theirs, so records
are never taken for those of other files.  Records are written in place through a memory map, so a
killed process loses nothing.  When files come or go, what is known of the others stays known; a
file counts as hashed only while its size and time are the same, and below the same folder.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Optional

import numpy as np

from passl.checkpoint.disk import atomic_file
from passl.data.table import SampleTable
from passl.data.table_file import open_table_file, write_table_file
from passl.errors import DataError

__all__ = ["RECORD", "Md5State"]

#: One file: the hash, bytes, nanoseconds since the epoch; all zero while it is not known.
RECORD = np.dtype([("md5", "u1", 16), ("size", "<i8"), ("mtime_ns", "<i8")])

_NAMES, _RECORDS = "names.table", "records-{}.bin"


class Md5State:
    """The records of a listing, carried over from an earlier start where there was one.

    Args:
        folder: of the state's files; made if needed.
        root: what the files lie below.
        table: the files, in sorted order.

    Attributes:
        records: :data:`RECORD` [N], a memory map: what is written into it stays.
        num_known: files that were hashed before, if they have not changed since.
    """

    def __init__(self, folder: Path, root: Path, table: SampleTable) -> None:
        self.folder, self._root = folder, str(root.resolve())
        folder.mkdir(parents=True, exist_ok=True)
        found = self._old()
        if found is None or not _same_names(found[0], table):
            file = folder / _RECORDS.format(time.time_ns())
            with atomic_file(file) as writing:
                writing.write(_carried_over(table, found).tobytes())
            # A process that is killed before the next line leaves all as it was.
            arrays = {"names": table.names, "offsets": table.offsets}
            meta = {"root": self._root, "records": file.name}
            write_table_file(folder / _NAMES, meta, arrays)
            for other in set(folder.glob(_RECORDS.format("*"))) - {file}:
                other.unlink()
            found = table, _map(file, len(table))
        self.records = found[1]
        self.num_known = int(np.count_nonzero(self.records["size"]))

    def remove(self) -> None:
        """The work is done: forget it."""
        del self.records
        shutil.rmtree(self.folder, ignore_errors=True)

    def _old(self) -> Optional[tuple[SampleTable, np.ndarray]]:
        """The files of an earlier start and their records."""
        try:
            meta, arrays = open_table_file(self.folder / _NAMES)
            table = SampleTable(arrays["names"], arrays["offsets"], np.zeros(0, np.int32))
            file = self.folder / str(meta["records"])
            is_whole = file.stat().st_size == len(table) * RECORD.itemsize
            if not is_whole or meta["root"] != self._root:
                return None
            return table, _map(file, len(table))
        except (OSError, DataError, KeyError):
            return None


def _carried_over(table: SampleTable, old: Optional[tuple[SampleTable, np.ndarray]]) -> np.ndarray:
    """Records for ``table``, known where an earlier listing had the same name."""
    records = np.zeros(len(table), dtype=RECORD)
    if old is None:
        return records
    names, before = old
    at = 0
    for index in range(len(table)):  # both are sorted: one walk through the two
        name = _sort_key(table, index)
        while at < len(names) and _sort_key(names, at) < name:
            at += 1
        if at < len(names) and _sort_key(names, at) == name:
            records[index] = before[at]
    return records


def _map(file: Path, count: int) -> np.ndarray:
    if not count:
        return np.zeros(0, dtype=RECORD)
    return np.memmap(file, dtype=RECORD, mode="r+", shape=(count,))


def _same_names(one: SampleTable, other: SampleTable) -> bool:
    return np.array_equal(one.offsets, other.offsets) and np.array_equal(one.names, other.names)


def _sort_key(table: SampleTable, index: int) -> list[bytes]:
    return os.fsencode(table.name(index)).split(b"/")

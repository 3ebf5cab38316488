"""What a scan has already looked at, on disk, so that an interrupted one goes on where it was.

A text file that only grows, one JSON object a line: a line with a ``fingerprint`` starts a data set
(anew, if it was there with another one), any other line holds what was found in a chunk of it.  A
last line that a kill cut short is passed over.  A chunk counts only while none of its files has
another size or time of change, so a file that was repaired or replaced is read again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np

from passl.data.archives import ArchiveDataset
from passl.data.dataset import Dataset, FileDataset
from passl.data.names import printable
from passl.logs.logger import get_logger

__all__ = ["DIGEST_BYTES", "Chunk", "Fault", "ScanState", "SectionState", "fingerprint"]

#: Bytes of the hash of a sample's content; all zero where it could not be read.
DIGEST_BYTES = 16

_VERSION = 1  # of the format, and of what is checked
_FLUSH_S = 2.0  # what a kill may cost


@dataclass(frozen=True)
class Fault:
    """A sample that cannot be used: its position in the data set, its path, and why."""

    index: int
    path: str
    reason: str

    def __str__(self) -> str:
        return f"sample {self.index} ({printable(self.path)}): {self.reason}"


@dataclass(frozen=True)
class Chunk:
    """What was found in samples ``start`` to ``start + count``.

    Attributes:
        stamp: of sizes and times of the files.
        digests: hashes of the contents, ``count * DIGEST_BYTES`` bytes; empty if not asked for.
        missing, unreadable: faults by kind.
    """

    start: int
    count: int
    stamp: str = ""
    digests: bytes = b""
    missing: list[Fault] = field(default_factory=list)
    unreadable: list[Fault] = field(default_factory=list)


class ScanState:
    """The file of one command, with a section for each data set.

    Args:
        path: of the file; it is made when there is something to remember.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._prints: dict[str, str] = {}
        self._chunks: dict[str, dict[int, Chunk]] = {}
        self._pending: list[str] = []
        self._flushed_at = time.monotonic()
        self._works = True
        self._ends_open = False
        self._read()

    def section(self, name: str, print_of_data: str) -> SectionState:
        """What is known of data set ``name``; nothing if it is no longer the same."""
        if self._prints.get(name) != print_of_data:
            self._prints[name], self._chunks[name] = print_of_data, {}
            self._put({"section": name, "version": _VERSION, "fingerprint": print_of_data})
        return SectionState(self, name, self._chunks[name])

    def append(self, name: str, chunk: Chunk) -> None:
        """Remember a chunk; it is on disk within seconds."""
        self._put(
            {
                "section": name,
                "start": chunk.start,
                "count": chunk.count,
                "stamp": chunk.stamp,
                "digests": base64.b64encode(chunk.digests).decode("ascii"),
                "missing": [[f.index, f.path, f.reason] for f in chunk.missing],
                "unreadable": [[f.index, f.path, f.reason] for f in chunk.unreadable],
            }
        )
        self.flush_if_due()

    def flush_if_due(self) -> None:
        """Write what is not on disk yet, at most every two seconds."""
        if time.monotonic() - self._flushed_at > _FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write what is not on disk yet; a disk that refuses costs a warning, not the scan."""
        self._flushed_at = time.monotonic()
        if not self._pending or not self._works:
            return
        text = "\n" * self._ends_open + "".join(self._pending)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="ascii") as file:
                file.write(text)
        except OSError as error:
            self._works = False
            get_logger().warning(
                f"{self.path}: cannot be written ({error.strerror}); the scan cannot be continued "
                "if it is interrupted; choose another file with --state FILE"
            )
        self._pending, self._ends_open = [], False

    def remove(self) -> None:
        """The scan is complete: forget it."""
        self._pending = []
        self.path.unlink(missing_ok=True)

    def _put(self, record: dict[str, Any]) -> None:
        if self._works:
            self._pending.append(json.dumps(record) + "\n")

    def _read(self) -> None:
        try:
            data = self.path.read_bytes()
        except OSError:
            return
        self._ends_open = bool(data) and not data.endswith(b"\n")
        for line in data.splitlines():
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
                continue  # cut short, or no line of ours

    def _take(self, record: dict[str, Any]) -> None:
        name = record["section"]
        if "fingerprint" in record:
            self._prints[name] = record["fingerprint"] if record["version"] == _VERSION else ""
            self._chunks[name] = {}
            return
        digests = base64.b64decode(record["digests"], validate=True)
        count = int(record["count"])
        if len(digests) not in (0, count * DIGEST_BYTES):
            return
        self._chunks[name][int(record["start"])] = Chunk(
            int(record["start"]),
            count,
            str(record["stamp"]),
            digests,
            [Fault(int(index), path, reason) for index, path, reason in record["missing"]],
            [Fault(int(index), path, reason) for index, path, reason in record["unreadable"]],
        )


class SectionState:
    """One data set's part of a :class:`ScanState`."""

    def __init__(self, state: ScanState, name: str, chunks: dict[int, Chunk]) -> None:
        self._state, self._name, self._chunks = state, name, chunks

    @property
    def known_samples(self) -> int:
        """Samples that were looked at before, if their files are still the same."""
        return sum(chunk.count for chunk in self._chunks.values())

    def saved(self, start: int, count: int) -> Optional[Chunk]:
        """The chunk that begins at ``start``, if one of this length is known."""
        chunk = self._chunks.get(start)
        return chunk if chunk is not None and chunk.count == count else None

    def append(self, chunk: Chunk) -> None:
        """Remember a chunk."""
        self._state.append(self._name, chunk)

    def flush_if_due(self) -> None:
        """Write what is not on disk yet, now and then."""
        self._state.flush_if_due()


def fingerprint(dataset: Dataset) -> Optional[str]:
    """A name for what a data set of files or archives lists; None for others.

    Folder, paths and labels; of archives their paths and where in them each sample lies.
    """
    places: tuple[Optional[np.ndarray], ...] = ()
    if isinstance(dataset, FileDataset):
        source = [dataset.root]
    elif isinstance(dataset, ArchiveDataset):
        source, places = dataset.archives, dataset.places
    else:
        return None
    digest = hashlib.blake2b(digest_size=16)
    for path in source:
        digest.update(os.fsencode(path.resolve()) + b"|")
    table = dataset.table
    for part in (table.names, table.offsets, table.labels, table.label_offsets, *places):
        digest.update(b"|")
        if part is not None:
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()

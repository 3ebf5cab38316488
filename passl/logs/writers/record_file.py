"""A file that grows by whole records, each written before the call returns.

The packages of VisualDL and TensorBoard write from a thread and a queue of few places: once their
thread has died of a full disk, the training waits for room in that queue for ever.  Here what fails
fails in the call, where it costs a warning and the writer.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Optional

__all__ = ["RecordFile"]


class RecordFile:
    """Appends to ``path``; the folder is made, and the file opened, when there is something to add.

    Args:
        path: what it holds already stays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: Optional[BinaryIO] = None

    def add(self, *records: bytes) -> None:
        """Append records; if there is no room for all of them the file ends where it ended before.

        Raises:
            OSError: they cannot be written.
        """
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "ab")  # noqa: SIM115 (kept open)
        length = os.fstat(self._file.fileno()).st_size
        try:
            self._file.write(b"".join(records))
            self._file.flush()
        except OSError:
            with suppress(OSError):  # the same trouble again, as the rest is written
                self.close()
            with suppress(OSError):
                os.truncate(self.path, length)
            raise

    def close(self) -> None:
        """Close the file; adding opens it again."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

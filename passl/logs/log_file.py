"""The file of a log that runs for days: others move it, and its disk fills.

Where the file was moved or deleted, by ``logrotate`` or a person, the next line begins a new one.
A disk that is full or gone costs lines and one warning, never the run; when there is room again the
log goes on.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

__all__ = ["LogFile", "leads_to"]


class LogFile(logging.FileHandler):
    """Appends records to ``path``; its folder is made where it is missing.

    Raises:
        OSError: the file cannot be opened at first.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Names of files may have bytes that are no UTF-8, of which Python makes what UTF-8 lacks.
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self._is_written = True
        self._has_warned = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record to where ``path`` leads now."""
        self._is_written = True
        try:
            self._follow()
            super().emit(record)
        except OSError:
            self.handleError(record)
        if self._is_written:
            self._has_warned = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Tell of a disk that fails, once until it is well again; of defects as Python does."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        self._is_written = False
        if not self._has_warned:
            self._has_warned = True
            logging.getLogger(record.name).warning(
                "the log is not written: cannot write %s: %s. Training goes on.",
                self.baseFilename,
                error.strerror,
            )
            self._is_written = False

    def close(self) -> None:
        """Close the file; what the disk does not take is lost, which was told."""
        with suppress(OSError):
            super().close()

    def _follow(self) -> None:
        if self.stream is not None and leads_to(Path(self.baseFilename), self.stream):
            return
        stream, self.stream = self.stream, None
        if stream is not None:
            with suppress(OSError):
                stream.close()
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        self.stream = self._open()


def leads_to(path: Path, file: IO[Any]) -> bool:
    """Whether ``path`` is still the name of the open ``file``."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except (OSError, ValueError):  # no such file, or a closed one
        return False

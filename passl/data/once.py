"""Something that is made once, by the first of several processes that want it."""

from __future__ import annotations

import glob
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from passl.checkpoint.file_lock import FileLock, NoLocksError

__all__ = ["one_at_a_time", "remove_left_overs"]

_DEAD_AFTER_S = 600.0  # a file that is written changes more often


@contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """Hold an exclusive lock, where the file system has them and the folder can be written.

    The file of the lock goes at the end.
    """
    held = FileLock(lock)
    with suppress(NoLocksError, OSError):
        held.acquire()
    try:
        yield
    finally:
        held.release(remove=True)


def remove_left_overs(path: Path) -> None:
    """Remove what processes that were killed left of ``path``, which appears whole or not at all.

    They write to ``.NAME.tmp-PID`` beside it.  Not every file system has locks, so a file that was
    changed in the last minutes is let be: somebody may write it now.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.tmp-*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _DEAD_AFTER_S:
                left.unlink()

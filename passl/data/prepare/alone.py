"""One command at a time in a folder, and nothing left of those that were killed in it.

The lock is the kernel's, on the folder itself: it leaves no file, and ends with its process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from passl.errors import ConfigError

try:
    import fcntl
except ImportError:  # no such lock outside of Unix
    fcntl = None  # type: ignore[assignment]

__all__ = ["alone_in"]

#: The processes of a killed command keep its lock until the kernel has ended them.
_PATIENCE_S = 3.0


@contextmanager
def alone_in(folder: Path, writes: Iterable[str] = ()) -> Iterator[None]:
    """Be the only one of these commands that writes into ``folder``.

    Args:
        folder: an existing one.
        writes: names of files that are written in it; what killed commands left of them goes.

    Raises:
        ConfigError: another command is at work there.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        if not _locked(handle):
            raise ConfigError(
                f"{folder}: another passl-data is at work in this folder; wait until it has ended"
            )
        for name in writes:
            for left in folder.glob(f".{name}.tmp-*"):
                with suppress(OSError):
                    left.unlink()
        yield
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    """Whether we have the lock, or nobody can: not every file system locks folders."""
    if fcntl is None:
        return True
    limit = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= limit:
                return False
            time.sleep(0.05)
        except OSError:
            return True
        else:
            return True

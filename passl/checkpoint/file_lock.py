"""A lock that a killed process cannot leave behind.

It is the kernel's (``flock``), held by an open file: whatever ends the process gives it up, SIGKILL
and a crash included.  A file without a holder locks nothing.  It is a file of its own, opened for
writing, since NFS locks no folders and nothing that is only read.
"""

from __future__ import annotations

import errno
import math
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Optional

try:
    import fcntl
except ImportError:  # no such lock outside of Unix
    fcntl = None  # type: ignore[assignment]

__all__ = ["PATIENCE_S", "FileLock", "NoLocksError"]

#: A process that was just killed keeps its files until the kernel is done with it, which a slow
#: disk delays; a restart within this time should not be refused.
PATIENCE_S = 3.0
_ASK_EVERY_S = 0.05
#: How file systems say that they have no such locks.
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK)


class NoLocksError(Exception):
    """Why nothing can be locked here."""


class FileLock:
    """The right to what a file stands for.

    Args:
        path: the file; it is made if needed.

    Attributes:
        handle: of the open file while we have the lock, else None.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.handle: Optional[int] = None

    def acquire(self, patience_s: float = math.inf) -> bool:
        """Take the lock; nothing to do if this object has it.

        Args:
            patience_s: seconds to wait for a holder to end.

        Returns:
            Whether we have it; else another holder does.

        Raises:
            NoLocksError: the system or the file system has no locks.
            OSError: the file cannot be opened, or not locked for another reason.
        """
        if fcntl is None:
            raise NoLocksError("this system has no file locks")
        limit = time.monotonic() + patience_s
        while self.handle is None:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                if _lock(handle, wait=patience_s == math.inf) and _is_at(handle, self.path):
                    self.handle = handle
                    return True
            except OSError as error:
                if error.errno in _NO_LOCKS:
                    raise NoLocksError(
                        f"the file system cannot lock files ({error.strerror})"
                    ) from error
                raise
            finally:
                if self.handle is None:
                    os.close(handle)
            if time.monotonic() >= limit:
                return False
            time.sleep(_ASK_EVERY_S)
        return True

    def release(self, *, remove: bool = False) -> None:
        """Give the lock back.

        Args:
            remove: and its file, which is safe: who waited for it looks whether it is still there.
        """
        if self.handle is not None:
            if remove:
                with suppress(OSError):
                    self.path.unlink()
            os.close(self.handle)
            self.handle = None


def _lock(handle: int, *, wait: bool) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file still has this name: its last holder may have removed it."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False

"""One run at a time in a folder: a lock that a killed process cannot leave behind.

The lock is the kernel's (``flock``), held by an open file: whatever ends the process gives it up,
SIGKILL and a crash included.  What the file says is only for the message; a file without a holder
locks nothing.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional

from passl.checkpoint.disk import os_errors_become_sentences
from passl.errors import CheckpointError

try:
    import fcntl
except ImportError:  # no such lock outside of Unix
    fcntl = None  # type: ignore[assignment]

__all__ = ["LOCK_NAME", "RunLock"]

LOCK_NAME = "run.lock"
#: A process that was just killed keeps its files until the kernel is done with it, which a slow
#: disk delays; a restart within this time is not refused.
_PATIENCE_S = 3.0
#: How file systems say that they have no such locks.
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK)


class RunLock:
    """The right to write into a run's folder.

    Args:
        run_dir: the folder; the file is ``run.lock`` in it.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / LOCK_NAME
        self._handle: Optional[int] = None

    def acquire(self, patience_s: float = _PATIENCE_S) -> Optional[str]:
        """Take the lock; nothing to do if this object has it.

        Args:
            patience_s: seconds to wait for a holder to end.

        Returns:
            None, or why the file system cannot lock, as a sentence: the run may go on unprotected.

        Raises:
            CheckpointError: another process has it: which one, where and since when.
        """
        if self._handle is not None:
            return None
        if fcntl is None:
            return f"{self.path}: this system has no file locks. {_UNPROTECTED}"
        with os_errors_become_sentences("open", self.path):
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _lock(handle, patience_s):
                raise CheckpointError(_in_use(self.path))
            self._handle = handle
            self._sign()
        except OSError as error:
            os.close(handle)
            if error.errno in _NO_LOCKS:
                return (
                    f"{self.path}: the file system cannot lock files ({error.strerror}). "
                    f"{_UNPROTECTED}"
                )
            raise CheckpointError(f"cannot lock {self.path}: {error.strerror}.") from error
        except CheckpointError:
            os.close(handle)
            raise
        return None

    def release(self) -> None:
        """Give the lock back; the file stays, since removing it could take away another's."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __del__(self) -> None:
        self.release()

    def _sign(self) -> None:
        """Say in the file who has it; a disk that is full leaves it unsigned."""
        assert self._handle is not None
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
        with suppress(OSError):
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, (json.dumps(holder) + "\n").encode("utf-8"), 0)


_UNPROTECTED = "See to it yourself that no second run writes into this folder."


def _lock(handle: int, patience_s: float) -> bool:
    limit = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= limit:
                return False
            time.sleep(0.05)
        else:
            return True


def _in_use(path: Path) -> str:
    holder: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        holder = dict(json.loads(path.read_text(encoding="utf-8")))
    who = (
        f"process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}"
        if holder
        else "another process"
    )
    if (holder.get("pid"), holder.get("host")) == (os.getpid(), socket.gethostname()):
        return (
            f"{path.parent} is in use by another run of this very process, built at "
            f"{holder.get('since')} and not trained to its end; give the folder back with its "
            "close(), or choose another folder with -o Global.output_dir=PATH"
        )
    return (
        f"{path.parent} is in use by another run ({who}); two runs in one folder would overwrite "
        f"each other's files. Wait for its end, stop it (touch {path.parent / 'STOP'}), or choose "
        "another folder with -o Global.output_dir=PATH"
    )


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z")

"""One run at a time in a folder: a lock that a killed process cannot leave behind.

What the file of the lock says is only for the message; see :mod:`passl.checkpoint.file_lock`.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional

from passl.checkpoint.disk import os_errors_become_sentences
from passl.checkpoint.file_lock import PATIENCE_S, FileLock, NoLocksError
from passl.errors import CheckpointError
from passl.json_text import from_json

__all__ = ["LOCK_NAME", "RunLock"]

LOCK_NAME = "run.lock"


class RunLock:
    """The right to write into a run's folder.

    Args:
        run_dir: the folder; the file is ``run.lock`` in it.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / LOCK_NAME
        self._lock = FileLock(self.path)

    def acquire(self, patience_s: float = PATIENCE_S) -> Optional[str]:
        """Take the lock; nothing to do if this object has it.

        Args:
            patience_s: seconds to wait for a holder to end.

        Returns:
            None, or why the file system cannot lock, as a sentence: the run may go on unprotected.

        Raises:
            CheckpointError: another process has it: which one, where and since when.
        """
        if self._lock.handle is not None:
            return None
        try:
            with os_errors_become_sentences("lock", self.path):
                is_ours = self._lock.acquire(patience_s)
        except NoLocksError as error:
            return f"{self.path}: {error}. {_UNPROTECTED}"
        if not is_ours:
            raise CheckpointError(_in_use(self.path))
        self._sign()
        return None

    def release(self) -> None:
        """Give the lock back; its file stays, as a note of who was here last."""
        self._lock.release()

    def __del__(self) -> None:
        self.release()

    def _sign(self) -> None:
        """Say in the file who has it; a disk that is full leaves it unsigned."""
        handle = self._lock.handle
        assert handle is not None
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
        with suppress(OSError):
            os.ftruncate(handle, 0)
            os.pwrite(handle, (json.dumps(holder) + "\n").encode("utf-8"), 0)


_UNPROTECTED = "See to it yourself that no second run writes into this folder."


def _in_use(path: Path) -> str:
    holder: dict[str, Any] = {}
    with suppress(OSError, ValueError, TypeError):
        holder = dict(from_json(path.read_text(encoding="utf-8")))
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

"""What lies in /dev/shm, which is the whole machine's: other programs come and go meanwhile."""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

__all__ = ["files_in_shared_memory", "left_in_shared_memory"]

FOLDER = "/dev/shm/"  # noqa: S108  looked at, not used
_LIMIT_S = 60


def files_in_shared_memory() -> set[str]:
    """Names of the files there."""
    return set(os.listdir(FOLDER))


def left_in_shared_memory(before: set[str]) -> set[str]:
    """Files that are new since ``before`` and stay, and that no living process holds.

    A lock of ``multiprocessing`` that another program makes is there for a moment, and shared
    memory for as long as its process lives; so one look proves nothing.
    """
    deadline = time.monotonic() + _LIMIT_S
    while True:
        left = files_in_shared_memory() - before
        left = left and left - _held()
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def _held() -> set[str]:
    """Names of files there that some process has open or mapped."""
    found: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            maps = (process / "maps").read_text(errors="replace")
            found |= set(re.findall(rf" {FOLDER}(.+)$", maps, re.M))
            for link in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    target = os.readlink(link)
                    if target.startswith(FOLDER):
                        found.add(target[len(FOLDER) :])
    return found

"""How much memory there is for batches that are prepared in advance, and how much they take."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Optional

__all__ = ["available_memory", "gib", "processes_here", "tight_memory"]

_SHARE = 0.5  # of what is available; above it a warning is due
_PLENTY = 1 << 60  # cgroups write "no limit" as a number near 2**63


def available_memory(root: Path = Path("/")) -> Optional[int]:
    """Bytes that this process could still take: of the machine, or of its container if fewer.

    Args:
        root: where ``proc`` and ``sys`` are.

    Returns:
        None where the system does not say.

    Source: ``MemAvailable`` of proc(5); the kernel's documents on cgroup v1 and v2 memory limits,
    whose usage counts file pages that are given up when needed (``inactive_file``).
    """
    found = [_machine(root / "proc/meminfo")]
    group = root / "sys/fs/cgroup"
    found.append(_group(group, "memory.max", "memory.current", "inactive_file"))
    found.append(
        _group(
            group / "memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        )
    )
    known = [value for value in found if value is not None]
    return min(known) if known else None


def tight_memory(
    batch_bytes: int, num_batches: int, available: Optional[int], processes: int = 1
) -> Optional[str]:
    """A sentence if prepared batches take more than half of the available memory, else None.

    Args:
        batch_bytes: of one batch of one process.
        num_batches: batches that one process holds at a time.
        available: bytes that are free; None: unknown.
        processes: that share this machine's memory.
    """
    needed = batch_bytes * num_batches * processes
    if available is None or needed <= _SHARE * available:
        return None
    several = f" x {processes} processes" if processes > 1 else ""
    return (
        f"batches prepared in advance take {gib(needed)} ({num_batches} batches of "
        f"{gib(batch_bytes)}{several}), more than half of the {gib(available)} of memory that are "
        "available; lower loader.prefetch_batches or the batch size"
    )


def processes_here() -> int:
    """Processes of the job on this machine, as the launcher says; 1 without one."""
    text = os.environ.get("PADDLE_LOCAL_SIZE", "")
    return max(int(text), 1) if text.isdigit() else 1


def gib(count: float) -> str:
    """Bytes as people read them."""
    if count >= 1 << 30:
        return f"{count / (1 << 30):.1f} GiB"
    return f"{count / (1 << 20):.1f} MiB"


def _machine(path: Path) -> Optional[int]:
    try:
        for line in path.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    except (OSError, ValueError, IndexError):
        pass
    return None


def _group(folder: Path, limit_file: str, usage_file: str, cache_key: str) -> Optional[int]:
    try:
        limit = int((folder / limit_file).read_text(encoding="ascii"))
        usage = int((folder / usage_file).read_text(encoding="ascii"))
        cached = 0
        for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines():
            key, _, value = line.partition(" ")
            if key == cache_key:
                cached = int(value)
    except (OSError, ValueError):  # no such limit; "max" is no number either
        return None
    return None if limit >= _PLENTY else max(0, limit - usage + cached)

"""Writing that survives a power cut, and sentences for what the operating system refuses.

The order is always the same: write beside, fsync the file, rename it, fsync the folder.  A reader
sees the old content or the new one, never a mixture.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Optional, Union

from passl.errors import CheckpointError

__all__ = [
    "FileDigest",
    "HashingFile",
    "atomic_file",
    "digest_of",
    "human_size",
    "os_errors_become_sentences",
    "remove_tree",
    "sync_folder",
]

_MAKE_ROOM = "Free some space or choose another Global.output_dir."
_CHUNK_BYTES = 4 << 20
#: Pieces that may wait to be hashed: enough to keep the thread busy, few enough to hold no memory.
_MAX_UNHASHED = 4
_UNITS = ("bytes", "KB", "MB", "GB", "TB")


@dataclass(frozen=True)
class FileDigest:
    """What a manifest records of one file: its length in bytes and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


class HashingFile:
    """A binary file open for writing that hashes what passes, so that nothing is read back.

    Large pieces are hashed by a thread while they are written; both release Python's lock, so the
    hash costs time only where it is slower than the disk.  :meth:`close` ends the thread.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._size = 0
        self._hasher: Optional[ThreadPoolExecutor] = None
        self._newest: Optional[Future[None]] = None
        self._room = threading.Semaphore(_MAX_UNHASHED)

    def write(self, data: Union[bytes, memoryview]) -> None:
        """Append ``data`` (contiguous bytes), without a copy: it must not change until the end."""
        for start in range(0, len(data), _CHUNK_BYTES):
            piece = data[start : start + _CHUNK_BYTES]
            self._hash(piece)
            self._file.write(piece)
        self._size += len(data)

    def digest(self) -> FileDigest:
        """Length and hash of everything written so far."""
        if self._newest is not None:
            self._newest.result()
        return FileDigest(self._size, self._sha256.hexdigest())

    def close(self) -> None:
        """Wait for what is still to be hashed and end the thread."""
        if self._hasher is not None:
            self._hasher.shutdown()

    def _hash(self, piece: Union[bytes, memoryview]) -> None:
        """Now, or after what was given to the thread before."""
        if self._hasher is None:
            if len(piece) < _CHUNK_BYTES:
                self._sha256.update(piece)
                return
            self._hasher = ThreadPoolExecutor(1, thread_name_prefix="passl-sha256")
        self._room.acquire()
        self._newest = self._hasher.submit(self._hash_later, piece)

    def _hash_later(self, piece: Union[bytes, memoryview]) -> None:
        self._sha256.update(piece)
        self._room.release()


@contextmanager
def atomic_file(path: Path) -> Iterator[HashingFile]:
    """Write a file that appears under ``path`` complete and durable, or not at all.

    The content goes to a hidden neighbour, which is removed if the block raises.

    Raises:
        OSError: the operating system refused; ``path`` keeps its old content.
    """
    beside = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with open(beside, "wb") as file, closing(HashingFile(file)) as hashing:
            yield hashing
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` durable; a file system that cannot sync a folder is let be."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network and FUSE file systems answer EINVAL or ENOTSUP: there is nothing more to be
        # done.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def digest_of(path: Path) -> FileDigest:
    """Length and SHA-256 of a file, read in pieces."""
    sha256, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while piece := file.read(_CHUNK_BYTES):
            sha256.update(piece)
            size += len(piece)
    return FileDigest(size, sha256.hexdigest())


def remove_tree(path: Path) -> None:
    """Delete a file or folder if it can be done; left-overs are cleaned at the next start."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def human_size(num_bytes: int) -> str:
    """``1536`` -> ``"1.5 KB"`` (powers of 1024)."""
    value, unit = float(num_bytes), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{num_bytes} bytes" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


@contextmanager
def os_errors_become_sentences(action: str, path: Path) -> Iterator[None]:
    """Turn an ``OSError`` of the block into a :class:`CheckpointError`.

    Args:
        action: what was tried, as it reads after "cannot": ``"write checkpoint"``.
        path: what it was tried on; named in the message.
    """
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"cannot {action} {path}: {_reason(error, path)}") from error


def _reason(error: OSError, path: Path) -> str:
    code = error.errno
    if code == errno.ENOSPC:
        return f"the disk is full{_free_space(path)}. {_MAKE_ROOM}"
    if code == errno.EFBIG:
        return "a file may not grow this large here (ulimit -f, or a limit of the file system)."
    if code == errno.EDQUOT:
        return f"your disk quota is used up. {_MAKE_ROOM}"
    if code in (errno.EACCES, errno.EPERM):
        return "permission denied. Change the rights of the folder or choose another path."
    if code == errno.EROFS:
        return "the file system is read-only. Choose another path."
    if code in (errno.ENOTDIR, errno.EEXIST):
        return (
            f"there is a file where a folder should be ({error.filename}). "
            "Move it away or choose another path."
        )
    if code == errno.EISDIR:
        return "it is a folder; a file was expected."
    if code == errno.ENOENT:
        return "there is no such file or folder."
    if code == errno.EIO:
        return (
            "the disk reported an input/output error. Check the disk (see dmesg) before going on."
        )
    return f"{error.strerror or error}."


def _free_space(path: Path) -> str:
    for folder in (path, *path.parents):
        if folder.is_dir():
            return f" ({human_size(shutil.disk_usage(folder).free)} free in {folder})"
    return ""

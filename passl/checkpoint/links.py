"""Names such as ``latest`` and ``best`` that lead to one of a run's checkpoints.

A link is a relative symbolic link, so that a run folder can be moved or copied.  Where the file
system has none it is a small text file that says the same.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Optional

from passl.checkpoint.disk import atomic_file, os_errors_become_sentences, sync_folder
from passl.errors import CheckpointError

__all__ = ["follow_link", "refuse_folder", "set_link"]

_TEXT_LINK = b"passl link to "
#: How file systems say that they have no symbolic links.
_NO_SYMLINKS = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
_MAX_TEXT_LINK_BYTES = 4096


def set_link(link: Path, target: Path) -> None:
    """Let ``link`` lead to ``target`` (in the same folder or below); replaced in one step.

    Raises:
        CheckpointError: something that is no link has the name, or the operating system refused.
    """
    refuse_folder(link)
    relative = os.path.relpath(target, link.parent)
    with os_errors_become_sentences("set link", link):
        try:
            _set_symlink(link, relative)
        except OSError as error:
            if error.errno not in _NO_SYMLINKS:
                raise
            with atomic_file(link) as file:
                file.write(_TEXT_LINK + relative.encode("utf-8") + b"\n")


def refuse_folder(link: Path) -> None:
    """See to it that ``link`` is free for a link, or is one.

    Raises:
        CheckpointError: it is a folder.
    """
    if link.is_dir() and not link.is_symlink():
        raise CheckpointError(
            f"{link}: is a folder, but PASSL needs the name for a link. Move it away. (Copies that "
            "follow links, such as cp -L or an object store, make folders of them; what a link of "
            "a run leads to is among its checkpoints too.)"
        )


def follow_link(path: Path) -> Optional[Path]:
    """Where a symbolic or written link leads, existing or not; None if ``path`` is no link."""
    if path.is_symlink():
        return path.parent / os.readlink(path)
    with suppress(OSError):
        if path.is_file() and path.stat().st_size <= _MAX_TEXT_LINK_BYTES:
            data = path.read_bytes()
            if data.startswith(_TEXT_LINK):
                return path.parent / data[len(_TEXT_LINK) :].decode("utf-8", "replace").strip()
    return None


def _set_symlink(link: Path, relative: str) -> None:
    beside = link.with_name(f".{link.name}.tmp-{os.getpid()}")
    with suppress(FileNotFoundError):
        beside.unlink()
    os.symlink(relative, beside)
    try:
        os.replace(beside, link)
    except OSError:
        beside.unlink()
        raise
    sync_folder(link.parent)

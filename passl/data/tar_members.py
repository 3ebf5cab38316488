"""The members of a tar archive, and a word where it does not end as an archive does.

Python's ``tarfile`` takes anything that is no header for the end of the archive, so that of one
that is damaged or was cut off in a header the rest is missing in silence.  An archive ends with two
blocks of zeros.  Source: POSIX.1-2008, ``pax``, "ustar Interchange Format".
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

from passl.logs.logger import get_logger

__all__ = ["TAR_ERRORS", "whole_members"]

#: What ``tarfile`` raises of damaged archives.  Its own errors are those of plain headers; the
#: extended ones have no checksum, and are taken apart as if nothing could be wrong with them.
TAR_ERRORS = (tarfile.TarError, EOFError, ValueError, IndexError, KeyError, OverflowError)
_BLOCK = 512
_MAGIC = slice(257, 262)  # of a header
_PIECE = 1 << 20


def whole_members(archive: tarfile.TarFile, name: str) -> Iterator[tarfile.TarInfo]:
    """All members of an archive that was opened with mode ``r:``; it does not keep them.

    Args:
        archive: just opened.
        name: of the archive, for messages.

    Raises:
        tarfile.ReadError: the archive stops at something that is no end of an archive.
    """
    for member in archive:
        vars(archive)["members"].clear()  # the library keeps them all
        yield member
    file, end = archive.fileobj, archive.offset
    assert file is not None  # it was opened
    file.seek(end)
    block = file.read(_BLOCK)
    if block.strip(b"\0"):
        raise tarfile.ReadError(
            f"at byte {end} there is neither another file nor the end of an archive"
        )
    if not block:
        get_logger().warning(
            f"{name}: ends without the mark that ends an archive; if it was cut off, files are "
            "missing"
        )
    while block and not block.strip(b"\0"):
        end += len(block)
        block = file.read(_PIECE)
    start = len(block) - len(block.lstrip(b"\0"))
    start -= (end + start) % _BLOCK
    file.seek(end + start)
    if file.read(_BLOCK)[_MAGIC] == b"ustar":
        raise tarfile.ReadError(
            f"another archive begins at byte {end + start}, behind the end of the first; join "
            "archives with tar --concatenate, not with cat"
        )

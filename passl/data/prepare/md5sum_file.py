"""The output of ``md5sum``, read and written byte for byte.

A line is 32 hexadecimal digits, two characters (``"  "``, or ``" *"`` for a file read as binary)
and the path.  A path with a line end or a backslash is escaped, and its line begins with a
backslash.  Source: the manual of GNU coreutils, ``md5sum`` and "Escaped file names".
"""

from __future__ import annotations

import codecs
import os
from pathlib import Path
from typing import Optional

import numpy as np

from passl.checkpoint.disk import FileDigest, atomic_file
from passl.data.names import SPECIAL, escape_name, unescape_name
from passl.data.prepare.listing import Excluded, Listing, ListingBuilder
from passl.data.table import SampleTable
from passl.errors import DataError

__all__ = ["excluded_text", "read_md5sum", "write_md5sum"]

_LINES = 1 << 15  # written at a time
_FORM = "wanted: 32 hexadecimal digits, two spaces and the path, as md5sum prints them"


def write_md5sum(path: Path, root: Path, table: SampleTable, digests: np.ndarray) -> FileDigest:
    """Write what ``md5sum`` prints for these files.

    Args:
        path: of the new file.
        root: is put before every path of the table.
        table: the files.
        digests: uint8 [N, 16].
    """
    before = os.path.join(os.fsencode(root), b"")
    is_plain = not any(special in before for special in SPECIAL)
    with atomic_file(path) as file:
        for start in range(0, len(table), _LINES):
            names = table.encoded_names(start, start + _LINES)
            text = digests[start : start + _LINES].tobytes().hex().encode("ascii")
            hashes = [text[at : at + 32] for at in range(0, len(text), 32)]
            joined = b"".join(names)
            if is_plain and not any(special in joined for special in SPECIAL):
                between = b"  " + before
                lines = [digest + between + name for digest, name in zip(hashes, names)]
            else:
                lines = [_line(digest, before + name) for digest, name in zip(hashes, names)]
            file.write(b"\n".join([*lines, b""]))
    return file.digest()


def _line(digest: bytes, name: bytes) -> bytes:
    escaped, is_escaped = escape_name(name)
    return (b"\\" if is_escaped else b"") + digest + b"  " + escaped


def read_md5sum(path: Path, root: Path) -> tuple[Listing, np.ndarray]:
    """Files and hashes of an ``md5sum`` listing, in its order.

    Args:
        path: the listing.
        root: what its paths begin with, or where it was made with relative paths; they become
            relative to it.

    Returns:
        The listing, and its hashes, uint8 [N, 16].

    Raises:
        DataError: the first line that is none of md5sum's or lies elsewhere, with its number.
    """
    before: Optional[bytes] = None
    builder, digests = ListingBuilder(), bytearray()
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            try:
                digest, name = _split(_without_end(line))
                if before is None:
                    before = _start_of_paths(name, root)
                builder.append(_below(before, name))
            except ValueError as error:
                shown = line[:200].decode("utf-8", "backslashreplace").rstrip("\n")
                raise DataError(f"{path}:{number}: {error}\n  the line: {shown}") from error
            digests += digest
    listing = builder.finish()
    if not len(listing):
        raise DataError(f"{path}: the listing is empty")
    return listing, np.frombuffer(bytes(digests), dtype=np.uint8).reshape(-1, 16)


def _start_of_paths(name: bytes, root: Path) -> bytes:
    """What all paths begin with, by the first: ROOT as it is spelled, or that of paths below it.

    A listing that was made in ROOT has ``./images/...`` or ``images/...``; ROOT has to be there.
    """
    spelled = os.path.join(os.fsencode(root), b"")
    if not name.startswith((spelled, b"/")) and os.path.lexists(os.path.join(spelled, name)):
        return b"./" if name.startswith(b"./") else b""
    return spelled


def _below(before: bytes, name: bytes) -> bytes:
    """What follows ``before`` in the path ``name``."""
    if not name.startswith(before) or (not before and name.startswith(b"/")):
        start = f"does not begin with {os.fsdecode(before)!r}" if before else "is not relative"
        raise ValueError(
            f"the path {start}; give ROOT as the listing "
            "spells it, or the folder that it was made in"
        )
    return name[len(before) :].lstrip(b"/")


def _without_end(line: bytes) -> bytes:
    r"""As md5sum --check reads it: a line may end with \r\n; in a name \r is escaped."""
    return line.removesuffix(b"\n").removesuffix(b"\r")


def _split(line: bytes) -> tuple[bytes, bytes]:
    is_escaped = line.startswith(b"\\")
    line = line[1:] if is_escaped else line
    if len(line) < 35 or line[32:34] not in (b"  ", b" *"):
        raise ValueError(f"this is no line of md5sum; {_FORM}")
    try:
        digest = bytes.fromhex(line[:32].decode("ascii"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"this is no line of md5sum; {_FORM}") from error
    if len(digest) != 16:  # fromhex passes over blanks
        raise ValueError(f"this is no line of md5sum; {_FORM}")
    name = line[34:]
    return digest, unescape_name(name) if is_escaped else name


def excluded_text(excluded: list[Excluded]) -> str:
    """One line a file: its name (escaped like a path of md5sum), a tab and the reason."""
    lines = []
    for entry in excluded:
        name, _ = escape_name(os.fsencode(entry.name))
        lines.append(f"{os.fsdecode(name)}\t{entry.reason}\n")
    return "".join(lines)

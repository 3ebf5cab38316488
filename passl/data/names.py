r"""File names with line ends in files that have one name a line.

The convention of GNU coreutils: the line of such a name begins with a backslash, and in the name
``\n`` stands for a line end, ``\r`` for a carriage return and ``\\`` for a backslash.  Source: the
manual of coreutils, "Escaped file names".
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from passl.errors import DataError

__all__ = [
    "SPECIAL",
    "escape_name",
    "list_name",
    "names_text",
    "printable",
    "read_names",
    "unescape_name",
]

#: What makes a name one that has to be escaped.
SPECIAL = (b"\n", b"\\", b"\r")

#: What some editors put before a text in UTF-8; it is no part of the first name.
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_CODES = {b"\\\\": b"\\", b"\\n": b"\n", b"\\r": b"\r"}
_ESCAPED = re.compile(rb"\\(.?)", re.DOTALL)


def escape_name(name: bytes) -> tuple[bytes, bool]:
    """The name as it may stand in a line, and whether it was changed."""
    if not (b"\n" in name or b"\\" in name or b"\r" in name):
        return name, False
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return escaped, True


def unescape_name(text: bytes) -> bytes:
    """The inverse of :func:`escape_name` for a name that was changed.

    Raises:
        ValueError: a backslash is followed by something else.
    """

    def decode(match: re.Match[bytes]) -> bytes:
        if match[0] not in _CODES:
            raise ValueError(f"unknown escape {match[0].decode('ascii', 'backslashreplace')!r}")
        return _CODES[match[0]]

    return _ESCAPED.sub(decode, text)


def list_name(name: bytes) -> bytes:
    """The name as it stands in a list file: as it is, unless that could not be read back."""
    if b"\n" in name or b"\r" in name or name.startswith(b"\\"):
        return b"\\" + escape_name(name)[0]
    return name


def printable(name: str) -> str:
    r"""The name in a message: codes of a terminal and bytes that are no UTF-8 as ``\x1b``."""
    if name.isprintable():
        return name
    codes = [char if char.isprintable() else ascii(char)[1:-1] for char in name]
    return "".join(codes).replace("\\udc", "\\x")  # bytes that are no UTF-8, as Python keeps them


def read_names(path: Path) -> list[str]:
    """The names of a file that has one a line, each as :func:`list_name` writes it.

    Blank lines and blanks around a name do not count, but in the line of an escaped one.

    Raises:
        DataError: a line begins with a backslash and cannot be read, with its number.
        OSError: the file cannot be read.
    """
    names, text = [], path.read_bytes().removeprefix(BYTE_ORDER_MARK)
    for number, line in enumerate(text.split(b"\n"), start=1):
        name = line.strip()
        if name.startswith(b"\\"):
            try:
                name = unescape_name(line.lstrip().rstrip(b"\r")[1:])
            except ValueError as error:
                raise DataError(
                    f"{path}:{number}: {error}; in a line that begins with a backslash \\n, \\r "
                    "and \\\\ stand for a line end, a carriage return and a backslash"
                ) from error
        if name:
            names.append(os.fsdecode(name))
    return names


def names_text(names: Iterable[str]) -> bytes:
    """What :func:`read_names` reads: one name a line."""
    return b"".join(_line_of(os.fsencode(name)) + b"\n" for name in names)


def _line_of(name: bytes) -> bytes:
    """As :func:`list_name`; here blanks around a name have to be kept as well."""
    return list_name(name) if name == name.strip() else b"\\" + escape_name(name)[0]

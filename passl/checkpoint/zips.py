"""Opening zip archives of unknown origin: the directory and the sizes are checked before use.

A small archive may claim a directory or members of any size.  Here a claim that would fill memory
or disk is refused first, and members that are stored as they are become plain places in the file.

Source: the layout of zip archives from PKWARE's APPNOTE, sections 4.3.7, 4.3.14 and 4.3.16.
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

__all__ = ["ZipBomb", "member_start", "open_zip"]

_MAX_MEMBERS = 400_000
_MAX_DIRECTORY_BYTES = 64 << 20
#: An archive may grow to this size, or by this factor, whichever is more.
_MAX_GROWN_BYTES = 256 << 20
_MAX_GROWTH = 100
_END, _END64 = b"PK\x05\x06", b"PK\x06\x06"
#: The ends of the directory, with the longest comment, lie in so many last bytes.
_TAIL_BYTES = (1 << 16) + 22 + 20 + 56
_ENCRYPTED = 0x1


class ZipBomb(ValueError):
    """The archive claims to hold absurd amounts; the text says what."""


def open_zip(file: BinaryIO) -> zipfile.ZipFile:
    """The archive in ``file``, its directory read and its claims compared with the file's size.

    Raises:
        ZipBomb: it would grow without measure.
        zipfile.BadZipFile: it is cut off or damaged.
    """
    size = file.seek(0, os.SEEK_END)
    _check_directory(file, size)
    archive = zipfile.ZipFile(file)
    members = archive.infolist()
    if len({info.filename for info in members}) != len(members):
        raise zipfile.BadZipFile("two members have the same name")
    if sum(info.compress_size for info in members) > size:
        raise ZipBomb("its members overlap, as in a zip bomb")
    grown = sum(info.file_size for info in members)
    if grown > max(_MAX_GROWN_BYTES, _MAX_GROWTH * size):
        raise ZipBomb(f"its {size} bytes would grow to {grown}, as in a zip bomb")
    for info in members:
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile(f"{info.filename} is packed in an unusual way")
        if info.flag_bits & _ENCRYPTED:
            raise zipfile.BadZipFile(f"{info.filename} is encrypted")
    return archive


def member_start(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Where the bytes of a member begin in the file.

    Raises:
        zipfile.BadZipFile: there is no such member there, or it reaches beyond the file.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) != 30 or not header.startswith(b"PK\x03\x04"):
        raise zipfile.BadZipFile(f"{info.filename} is not where it should be")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    start = info.header_offset + 30 + int(name_length) + int(extra_length)
    if start + info.compress_size > size:
        raise zipfile.BadZipFile(f"{info.filename} reaches beyond the end")
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        raise zipfile.BadZipFile(f"{info.filename} has two sizes")
    return start


def _check_directory(file: BinaryIO, size: int) -> None:
    """Refuse a directory that would fill memory; one that is not found is left to ``zipfile``.

    Which of several ends is the real one depends on the reader, so none may claim too much.
    """
    file.seek(max(0, size - _TAIL_BYTES))
    tail = file.read()
    claims = [
        struct.unpack("<HI", tail[place + 10 : place + 16])
        for place in _places(tail, _END)
        if place + 16 <= len(tail)
    ]
    claims += [
        struct.unpack("<QQ", tail[place + 32 : place + 48])
        for place in _places(tail, _END64)
        if place + 48 <= len(tail)
    ]
    for count, length in claims:
        is_elsewhere = (count, length) == (0xFFFF, 0xFFFFFFFF)  # the real numbers are in _END64
        if not is_elsewhere and (count > _MAX_MEMBERS or length > _MAX_DIRECTORY_BYTES):
            raise ZipBomb(f"its directory claims {count} members in {length} bytes")


def _places(data: bytes, signature: bytes) -> Iterator[int]:
    place = data.find(signature)
    while place >= 0:
        yield place
        place = data.find(signature, place + 1)

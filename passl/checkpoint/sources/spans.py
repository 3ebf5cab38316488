"""Where the bytes of a tensor lie, and how a tensor is made of them: one at a time, nothing else.

A reader of a format only finds out what is where.  Everything it takes from the file is a claim
until it is checked here: sizes against the file, shapes and strides against the storage.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from math import prod
from typing import BinaryIO, Optional, Protocol

import numpy as np

from passl.checkpoint.files import bfloat16_to_float32

__all__ = [
    "DTYPES",
    "Damage",
    "FileSpan",
    "JoinedSpan",
    "MemberSpan",
    "Span",
    "Stored",
    "TextSpan",
    "contiguous",
    "fortran",
    "read_stored",
]

#: Stored element types that can be read -> how NumPy spells their bytes.
DTYPES = {
    "float64": "f8",
    "float32": "f4",
    "float16": "f2",
    "bfloat16": "u2",
    "int64": "i8",
    "int32": "i4",
    "int16": "i2",
    "int8": "i1",
    "uint64": "u8",
    "uint32": "u4",
    "uint16": "u2",
    "uint8": "u1",
    "bool": "u1",
    "complex64": "c8",
    "complex128": "c16",
}
_CHUNK_BYTES = 4 << 20
#: NumPy 1 has no arrays of more axes; the largest index of an element that is still sane.
_MAX_AXES, _MAX_ELEMENTS = 32, 1 << 48
#: A tensor may repeat the elements of its storage (stride 0) up to this number of elements.
_MAX_REPEATED = 1 << 20


class Damage(ValueError):
    """The file contradicts itself; the text completes "the file is damaged (...)"."""


class Span(Protocol):
    """Bytes of known number that can be fetched from any place."""

    @property
    def size(self) -> int:
        """Number of bytes."""

    def read_into(self, start: int, target: memoryview) -> None:
        """Fill ``target`` with the bytes from ``start`` on."""


@dataclass
class FileSpan:
    """Bytes of an open file.

    Args:
        file: seekable; others may move its position.
        start: of the first byte, in the file.
        size: number of bytes.
        crc32: what the bytes sum up to; None if the file does not say.
        crc32_before: the sum of what was summed up before them.
    """

    file: BinaryIO
    start: int
    size: int
    crc32: Optional[int] = None
    crc32_before: int = 0
    _is_checked: bool = False

    def read_into(self, start: int, target: memoryview) -> None:
        """Fill ``target``; the first time, the check sum of the whole span is compared as well."""
        if start < 0 or start + len(target) > self.size:
            raise Damage("a tensor reaches beyond its storage")
        self.file.seek(self.start + start)
        filled = 0
        while filled < len(target):
            count = self.file.readinto(target[filled:])  # type: ignore[attr-defined]
            if not count:
                raise Damage("it ends too early")
            filled += count
        if self.crc32 is not None and not self._is_checked:
            self._check(target if len(target) == self.size else None)

    def _check(self, content: Optional[memoryview]) -> None:
        total = self.crc32_before
        if content is not None:
            total = zlib.crc32(content, total)
        else:
            self.file.seek(self.start)
            for begin in range(0, self.size, _CHUNK_BYTES):
                total = zlib.crc32(self.file.read(min(_CHUNK_BYTES, self.size - begin)), total)
        if total != self.crc32:
            raise Damage("a check sum differs")
        self._is_checked = True


@dataclass
class MemberSpan:
    """Bytes of a compressed member of a zip archive, unpacked as they are asked for.

    Args:
        archive: open.
        info: the member.
        start: how many of its first bytes do not belong to the span.
    """

    archive: zipfile.ZipFile
    info: zipfile.ZipInfo
    start: int = 0

    @property
    def size(self) -> int:
        """Number of bytes, unpacked."""
        return self.info.file_size - self.start

    def read_into(self, start: int, target: memoryview) -> None:
        """Fill ``target``; a read that reaches the end also compares the check sum."""
        if start < 0 or start + len(target) > self.size:
            raise Damage("a tensor reaches beyond its storage")
        with self.archive.open(self.info) as stream:
            left = self.start + start
            while left:
                left -= len(_some(stream, left))
            filled = 0
            while filled < len(target):
                piece = _some(stream, len(target) - filled)
                target[filled : filled + len(piece)] = piece
                filled += len(piece)
            if start + filled == self.size and stream.read(1):
                raise Damage("a member of the archive is longer than it claims")


@dataclass
class TextSpan:
    """Bytes that a pickle of protocol 2 holds as text: each a character of Latin-1, as UTF-8."""

    text: FileSpan
    size: int

    def read_into(self, start: int, target: memoryview) -> None:
        """Fill ``target``; the whole text is decoded for it."""
        encoded = bytearray(self.text.size)
        self.text.read_into(0, memoryview(encoded))
        content = encoded.decode("utf-8").encode("latin-1")
        if start or len(content) != len(target):
            raise Damage(f"an array of {len(target)} bytes with {len(content)}")
        target[:] = content


@dataclass
class JoinedSpan:
    """Bytes that lie in several places, one after the other."""

    parts: list[Span]

    @property
    def size(self) -> int:
        """Number of bytes of all parts."""
        return sum(part.size for part in self.parts)

    def read_into(self, start: int, target: memoryview) -> None:
        """Fill ``target``, which must take everything."""
        if start or len(target) != self.size:
            raise Damage("an array of several slices is read by halves")
        for part in self.parts:
            part.read_into(0, target[: part.size])
            target = target[part.size :]


@dataclass(frozen=True)
class Stored:
    """One tensor as a file describes it.

    Args:
        dtype: a key of :data:`DTYPES`.
        shape: axes.
        data: its storage, which other tensors may share.
        order: ``"<"`` or ``">"``.
        offset: index of its first element in the storage.
        strides: elements between neighbours of each axis; None for C order.
    """

    dtype: str
    shape: tuple[int, ...]
    data: Span
    order: str = "<"
    offset: int = 0
    strides: Optional[tuple[int, ...]] = None

    def check(self) -> None:
        """Compare the claims with the storage.

        Raises:
            Damage: they cannot be true.
        """
        strides = self.strides if self.strides is not None else contiguous(self.shape)
        if len(self.shape) > _MAX_AXES or len(strides) != len(self.shape):
            raise Damage(f"a tensor of {len(self.shape)} axes with {len(strides)} strides")
        for value in (*self.shape, *strides, self.offset):
            if type(value) is not int or not 0 <= value < _MAX_ELEMENTS:
                raise Damage("a tensor with a size, stride or offset that is no proper number")
        num_held = self.data.size // np.dtype(DTYPES[self.dtype]).itemsize
        num_elements = prod(self.shape)
        if num_elements > max(num_held, _MAX_REPEATED):
            raise Damage(f"a tensor of {num_elements} elements in a storage of {num_held}")
        if num_elements and self.offset + _reach(self.shape, strides) > num_held:
            raise Damage(f"a tensor of shape {self.shape} reaches beyond its storage")


def read_stored(stored: Stored) -> np.ndarray:
    """The tensor, in memory of its own and native byte order; bfloat16 as the same float32.

    Raises:
        Damage: its bytes are not there or differ from their check sum.
    """
    stored.check()
    dtype = np.dtype(stored.order + DTYPES[stored.dtype])
    shape = stored.shape
    strides = stored.strides if stored.strides is not None else contiguous(shape)
    reach = _reach(shape, strides) if prod(shape) else 0
    flat = np.empty(reach, dtype)
    if reach:
        stored.data.read_into(stored.offset * dtype.itemsize, flat.view(np.uint8).data)
    if not dtype.isnative:
        flat = flat.byteswap(inplace=True).view(dtype.newbyteorder("="))
    if not reach:
        array = flat.reshape(shape)
    else:
        steps = tuple(step * dtype.itemsize for step in strides)
        array = np.lib.stride_tricks.as_strided(flat, shape, steps)
        is_whole = reach == prod(shape) and 0 not in strides
        array = array.view() if is_whole else np.array(array)
    if stored.dtype == "bfloat16":
        return bfloat16_to_float32(array)
    return array != 0 if stored.dtype == "bool" else array


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of C order, in elements."""
    strides, step = [], 1
    for length in reversed(shape):
        strides.append(step)
        step *= length
    return tuple(reversed(strides))


def fortran(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of Fortran order, in elements."""
    return tuple(reversed(contiguous(tuple(reversed(shape)))))


def _reach(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Elements from the first to the last of a tensor that is not empty."""
    return 1 + sum((length - 1) * step for length, step in zip(shape, strides))


def _some(stream: object, limit: int) -> bytes:
    piece: bytes = stream.read(min(_CHUNK_BYTES, limit))  # type: ignore[attr-defined]
    if not piece:
        raise Damage("a member of the archive ends too early")
    return piece

"""Arrays in one file that is mapped into memory, so that all processes of a machine share them.

    8 bytes   PASSLTB3
    8 bytes   length of the header, little-endian
    8 bytes   CRC-32 of the header, little-endian
    header    JSON: {"meta": {...}, "arrays": {name: {"dtype", "shape", "offset", "crc32"}}}
    arrays    each at a multiple of 64 bytes, little-endian

A file of indexes or of a sample table; it is data, and reading it runs nothing.  A flipped bit
would be a wrong label or path that nobody notices, so the arrays are compared with their checksums
when they are opened; that reads them all, a few gigabytes a second.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from passl.checkpoint.disk import atomic_file
from passl.errors import DataError

__all__ = ["open_table_file", "write_table_file"]

_MAGIC = b"PASSLTB3"
_NUMBERS = struct.Struct("<QQ")  # length and CRC-32 of the header
_START = len(_MAGIC) + _NUMBERS.size
_ALIGN = 64
_MAX_HEADER = 1 << 24
_KINDS = "uif"


def write_table_file(path: Path, meta: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write the file, whole or not at all.

    Args:
        path: an existing file is replaced.
        meta: JSON-able.
        arrays: numbers of any shape.

    Raises:
        OSError: the operating system refused.
    """
    stored = {
        name: np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        for name, array in arrays.items()
    }
    entries, at = {}, 0
    for name, array in stored.items():
        entries[name] = {
            "dtype": array.dtype.str,
            "shape": list(array.shape),
            "offset": at,
            "crc32": zlib.crc32(_bytes_of(array)),
        }
        at += -(-array.nbytes // _ALIGN) * _ALIGN
    header = json.dumps({"meta": dict(meta), "arrays": entries}).encode()
    header += b" " * (-(_START + len(header)) % _ALIGN)
    with atomic_file(path) as file:
        file.write(_MAGIC + _NUMBERS.pack(len(header), zlib.crc32(header)) + header)
        for array in stored.values():
            file.write(_bytes_of(array))
            file.write(b"\0" * (-array.nbytes % _ALIGN))


def open_table_file(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The meta data and the arrays, mapped read-only.

    Raises:
        DataError: it is no such file, or damaged.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_START)
        if len(head) < _START or not head.startswith(_MAGIC):
            raise DataError(f"{path}: is no table of PASSL's; remove it, and it is made anew")
        length, checksum = _NUMBERS.unpack(head[len(_MAGIC) :])
        text = file.read(length) if length <= min(size, _MAX_HEADER) else b""
    try:
        if zlib.crc32(text) != checksum:
            raise ValueError("its header has another checksum")
        content = json.loads(text)
        start = _START + length
        arrays = {
            str(name): _mapped(path, start, size, entry)
            for name, entry in content["arrays"].items()
        }
        return dict(content["meta"]), arrays
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: is damaged ({error}); remove it, and it is made anew") from error


def _mapped(path: Path, start: int, size: int, entry: Mapping[str, Any]) -> np.ndarray:
    dtype, shape = np.dtype(entry["dtype"]), tuple(int(side) for side in entry["shape"])
    offset = start + int(entry["offset"])
    if dtype.kind not in _KINDS or min(shape, default=0) < 0:
        raise ValueError(f"an array of type {dtype} and shape {shape}")
    num_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if offset < start or offset + num_bytes > size:
        raise ValueError("it ends too early")
    if not num_bytes:
        return np.zeros(shape, dtype)
    array = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)
    if zlib.crc32(_bytes_of(array)) != entry["crc32"]:
        raise ValueError("an array has another checksum")
    return array


def _bytes_of(array: np.ndarray) -> memoryview:
    """The bytes of a contiguous array, without a copy."""
    return array.reshape(-1).view(np.uint8).data

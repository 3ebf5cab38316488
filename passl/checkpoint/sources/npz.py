"""Reading NumPy archives, as Google publishes ViT weights: one member at a time, objects refused.

Source: the ``.npy`` format as documented in ``numpy.lib.format``, whose parser of headers is used.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Optional

import numpy as np

from passl.checkpoint.sources.source import TensorSource
from passl.checkpoint.sources.spans import (
    DTYPES,
    Damage,
    FileSpan,
    MemberSpan,
    Span,
    Stored,
    fortran,
)
from passl.checkpoint.zips import member_start, open_zip
from passl.errors import CheckpointError

__all__ = ["open_npz"]

_SUFFIX = ".npy"
_NAMES = {code: name for name, code in reversed(list(DTYPES.items())) if name != "bfloat16"}
#: How bfloat16 arrays look where NumPy does not know the type, as big_vision writes them.
_BFLOAT16 = "V2"


def open_npz(file: BinaryIO, path: Path) -> TensorSource:
    """The arrays of an ``.npz``; names keep their ``/``.

    Args:
        file: open; belongs to the source afterwards.
        path: for messages.

    Raises:
        CheckpointError: it holds arrays of Python objects.
        Exception: damage of any kind, for :func:`damage_becomes_sentences`.
    """
    archive = open_zip(file)
    tensors: dict[str, Stored] = {}
    ignored: dict[str, str] = {}
    for info in archive.infolist():
        name = info.filename[: -len(_SUFFIX)]
        if not info.filename.endswith(_SUFFIX):
            ignored[info.filename] = f"a file of {info.file_size} bytes"
            continue
        with archive.open(info) as stream:
            shape, is_fortran, dtype = _header(stream)
            start = stream.tell()
        stored_type = _type_name(dtype, name, path)
        if stored_type is None:
            ignored[name] = f"an array of {dtype}"
            continue
        data = _data(file, archive, info, start)
        tensors[name] = Stored(
            stored_type,
            shape,
            data,
            ">" if dtype.byteorder == ">" else "<",
            strides=fortran(shape) if is_fortran else None,
        )
        num_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if num_bytes != data.size:
            raise Damage(f"array {name!r} of shape {shape} has {data.size} bytes")
    if not tensors:
        raise CheckpointError(f"{path}: holds no arrays of numbers.")
    return TensorSource(path, "npz", tensors, file, ignored=ignored)


def _header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise Damage(f"an array in version {version} of the .npy format")


def _type_name(dtype: np.dtype[Any], name: str, path: Path) -> Optional[str]:
    """The element type; None for text, which is no tensor."""
    if dtype.hasobject:
        raise CheckpointError(
            f"{path}: array {name!r} holds Python objects, which NumPy stores as a pickle: a "
            "program that runs when it is read. Refused; nothing was run. Save plain arrays."
        )
    if dtype.fields is not None:
        raise CheckpointError(f"{path}: array {name!r} has named fields; only plain ones are read.")
    if dtype.kind in "SUMm":
        return None
    code = dtype.str[1:]
    if code == _BFLOAT16:
        return "bfloat16"
    if code == "b1":
        return "bool"
    if code not in _NAMES:
        raise CheckpointError(f"{path}: array {name!r} is of type {dtype}, which cannot be read.")
    return _NAMES[code]


def _data(file: BinaryIO, archive: zipfile.ZipFile, info: zipfile.ZipInfo, start: int) -> Span:
    place = member_start(file, info)
    if info.compress_type != zipfile.ZIP_STORED:
        return MemberSpan(archive, info, start)
    file.seek(place)
    before = zlib.crc32(file.read(start))
    return FileSpan(file, place + start, info.file_size - start, info.CRC, before)

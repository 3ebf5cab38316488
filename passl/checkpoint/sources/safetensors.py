"""Reading safetensors: eight bytes of length, a JSON header of that length, the tensors.

A reader of our own because the format is this small and the library's reader for NumPy fails for
bfloat16.  The rules are those of the format: tensors fill the rest of the file without a gap and
without overlap.

Source: the format's description in the README of huggingface/safetensors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from passl.checkpoint.sources.source import TensorSource
from passl.checkpoint.sources.spans import DTYPES, Damage, FileSpan, Stored
from passl.errors import CheckpointError

__all__ = ["TYPE_NAMES", "open_safetensors"]

#: The format's names of element types -> ours.
TYPE_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}
#: A hundred bytes a tensor are usual; the format itself allows 100 MB.
_MAX_HEADER_BYTES = 32 << 20
_METADATA = "__metadata__"


def open_safetensors(file: BinaryIO, path: Path) -> TensorSource:
    """The tensors of a safetensors file.

    Args:
        file: open at its start; belongs to the source afterwards.
        path: for messages.

    Raises:
        CheckpointError: an element type that cannot be read.
        Exception: damage of any kind, for :func:`damage_becomes_sentences`.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length > _MAX_HEADER_BYTES:
        raise Damage(f"its header claims to be {length} bytes long")
    if length > size - 8:
        raise Damage("it ends too early")
    header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_without_repetition)
    if not isinstance(header, dict):
        raise Damage("its header is no table")
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise Damage(f"its {_METADATA} is no table of text")
    _check_tiling(header, size - 8 - length)
    tensors = {name: _stored(name, entry, file, 8 + length, path) for name, entry in header.items()}
    return TensorSource(path, "safetensors", tensors, file, metadata=metadata)


def _stored(name: str, entry: Mapping[str, Any], file: BinaryIO, start: int, path: Path) -> Stored:
    kind, shape = entry["dtype"], entry["shape"]
    if kind not in TYPE_NAMES:
        raise CheckpointError(
            f"{path}: tensor {name!r} is of type {kind!r}, which cannot be read. Weights of 8 bits "
            "or fewer must be turned into float16 or float32 with the tool that made them."
        )
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise Damage(f"tensor {name!r} has no proper shape")
    begin, end = entry["data_offsets"]
    itemsize = np.dtype(DTYPES[TYPE_NAMES[kind]]).itemsize
    if prod(shape) * itemsize != end - begin:
        raise Damage(f"tensor {name!r} of shape {shape} has {end - begin} bytes")
    return Stored(TYPE_NAMES[kind], tuple(shape), FileSpan(file, start + begin, end - begin))


def _check_tiling(header: Mapping[str, Any], size: int) -> None:
    place = 0
    for begin, end in sorted(tuple(entry["data_offsets"]) for entry in header.values()):
        if type(begin) is not int or type(end) is not int or end < begin:
            raise Damage("a tensor's place is no proper pair of numbers")
        if begin != place:
            raise Damage("its tensors overlap or leave gaps")
        place = end
    if place > size:
        raise Damage("it ends too early")
    if place < size:
        raise Damage(f"there are {size - place} bytes after its end")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise Damage("two entries of its header have the same name")
    return table

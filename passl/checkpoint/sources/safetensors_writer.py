"""Writing safetensors: for tools that read nothing else, and for weights that go back to timm.

Source: the format's description in the README of huggingface/safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Optional, Union

import numpy as np

from passl.checkpoint.disk import FileDigest, atomic_file, os_errors_become_sentences
from passl.checkpoint.sources.safetensors import TYPE_NAMES
from passl.checkpoint.sources.spans import DTYPES

__all__ = ["write_safetensors"]

_CODES = {name: code for code, name in TYPE_NAMES.items()}
_FLOATS = ("float32", "float16", "bfloat16")
_ALIGNMENT = 8


def write_safetensors(
    path: Union[str, Path],
    arrays: Mapping[str, np.ndarray],
    metadata: Optional[Mapping[str, str]] = None,
    *,
    dtype: Optional[str] = None,
) -> FileDigest:
    """Write arrays by name; the file appears whole or not at all.

    Args:
        path: where; an existing file is replaced in one step.
        arrays: numbers of any shape.  Each is fetched twice, first for its shape and then for its
            values, so that a lazy mapping need not hold them all.
        metadata: text to be stored beside them; ``{"format": "pt"}`` is what timm expects.
        dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"`` (rounded to nearest, ties to even) for
            every array of floats; None to keep each as it is.

    Returns:
        The file's length and SHA-256.

    Raises:
        ValueError: no such dtype.
        TypeError: an array of something else than numbers.
        CheckpointError: the operating system refused.
    """
    if dtype is not None and dtype not in _FLOATS:
        raise ValueError(f"dtype {dtype!r} is none of {', '.join(_FLOATS)}")
    path = Path(path)
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    place = 0
    for name in arrays:
        stored, shape = _stored_type(arrays[name], dtype), arrays[name].shape
        size = int(np.prod(shape, dtype=object)) * np.dtype(DTYPES[stored]).itemsize
        header[name] = {
            "dtype": _CODES[stored],
            "shape": list(shape),
            "data_offsets": [place, place + size],
        }
        place += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % _ALIGNMENT)
    with os_errors_become_sentences("write", path), atomic_file(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in arrays:
            file.write(_content(arrays[name], dtype))
    return file.digest()


def _stored_type(array: np.ndarray, dtype: Optional[str]) -> str:
    name = str(array.dtype.newbyteorder("="))
    if name not in _CODES:
        raise TypeError(f"an array of {array.dtype} cannot be stored as safetensors")
    return dtype if dtype is not None and array.dtype.kind == "f" else name


def _content(array: np.ndarray, dtype: Optional[str]) -> memoryview:
    if array.dtype.kind == "f" and dtype is not None:
        array = float32_to_bfloat16(array) if dtype == "bfloat16" else array.astype(dtype)
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    flat = np.ascontiguousarray(little).reshape(-1).view(np.uint8)
    return flat.data if flat.size else memoryview(b"")


def float32_to_bfloat16(array: np.ndarray) -> np.ndarray:
    """The nearest bfloat16 of each value, ties to even, as uint16; NaN stays NaN."""
    flat = np.ascontiguousarray(array, np.float32).reshape(-1)
    bits, half = flat.view(np.uint32), np.uint32(16)
    rounded = bits + (np.uint32(0x7FFF) + ((bits >> half) & np.uint32(1)))
    rounded = np.where(np.isnan(flat), bits | np.uint32(0x00400000), rounded)
    return (rounded >> half).astype(np.uint16).reshape(array.shape)

"""Reading Paddle's ``.pdparams`` as a source: the arrays stay in the file until they are asked for.

Source: what ``ndarray.__reduce__``, ``dtype.__reduce__`` and ``paddle.save`` write.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Optional

import numpy as np

from passl.checkpoint.sources.allowed import refuse_code
from passl.checkpoint.sources.inert_pickle import Made, read_pickle, span_of
from passl.checkpoint.sources.source import TensorSource
from passl.checkpoint.sources.spans import (
    DTYPES,
    Damage,
    JoinedSpan,
    Span,
    Stored,
    TextSpan,
    fortran,
)
from passl.checkpoint.sources.wrappers import find_tensors

__all__ = ["open_paddle"]

#: Paddle has no uint16: it stores bfloat16 under that name.
_NAMES = {code: name for name, code in reversed(list(DTYPES.items())) if name != "uint16"}
_NAMES["b1"] = "bool"
_NAMES["u1"] = "uint8"
_RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_FROM_BUFFER = ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer")
_NAME_TABLE = "StructuredToParameterName@@"
_SLICE_TABLE = "UnpackBigParamInfor@@"


def open_paddle(file: BinaryIO, path: Path, wrapper: Optional[str]) -> TensorSource:
    """The arrays of a Paddle file.

    Args:
        file: open at its start; belongs to the source afterwards.
        path: for messages.
        wrapper: see :func:`open_source`.

    Raises:
        CheckpointError: it would run code, or holds no arrays by name.
        Exception: damage of any kind, for :func:`damage_becomes_sentences`.
    """
    pickle = read_pickle(file, is_lazy=True)
    if file.read(1):
        raise Damage("there are bytes after its end")
    refuse_code(pickle, path)
    content = pickle.value
    slices: Any = None
    if isinstance(content, dict):
        content.pop(_NAME_TABLE, None)
        slices = content.pop(_SLICE_TABLE, None)
    found = find_tensors(content, path, _to_array, wrapper)
    tensors = _join(found.tensors, slices) if slices else found.tensors
    return TensorSource(path, "paddle", tensors, file, wrapper=found.wrapper, ignored=found.ignored)


def _to_array(value: Any) -> Optional[Stored]:
    """The array of a record; Paddle writes a tensor inside other objects as (name, array)."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        value = value[1]
    if not isinstance(value, Made):
        return None
    if str(value.maker) in _FROM_BUFFER:  # protocol 5
        data, dtype, shape, layout = value.args
        is_fortran = layout == "F"
    elif str(value.maker) in _RECONSTRUCT and isinstance(value.state, tuple):
        _, shape, dtype, is_fortran, data = value.state
    else:
        return None
    name, order = _dtype(dtype)
    shape = tuple(shape)
    span = _exactly(span_of(data), prod(shape) * np.dtype(DTYPES[name]).itemsize)
    return Stored(name, shape, span, order, strides=fortran(shape) if is_fortran else None)


def _exactly(span: Span, size: int) -> Span:
    """``span``, which must be ``size`` bytes long; how many a text stands for shows on decoding."""
    if isinstance(span, TextSpan) and size <= span.text.size <= 2 * size:
        return TextSpan(span.text, size)
    if span.size != size:
        raise Damage(f"an array of {size} bytes with {span.size}")
    return span


def _dtype(record: Any) -> tuple[str, str]:
    """Name and byte order of ``numpy.dtype(code)`` with its state."""
    code = record.args[0]
    if code not in _NAMES:
        raise Damage(f"an array of elements {code!r}")
    state = record.state
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "<"
    return _NAMES[code], ">" if order == ">" else "<"


def _join(tensors: dict[str, Stored], table: Any) -> dict[str, Stored]:
    """Put together what Paddle's protocols 2 and 3 cut up: arrays above one gigabyte."""
    for name, entry in table.items():
        parts = [tensors.pop(part) for part in entry["slices"]]
        if not parts or any(p.dtype != parts[0].dtype or p.order != parts[0].order for p in parts):
            raise Damage(f"the slices of {name!r} differ in type")
        data = JoinedSpan([part.data for part in parts])
        shape = tuple(entry["OriginShape"])
        if prod(shape) != sum(prod(part.shape) for part in parts):
            raise Damage(f"the slices of {name!r} do not fill its shape")
        tensors[name] = Stored(parts[0].dtype, shape, data, parts[0].order)
    return tensors

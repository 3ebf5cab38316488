"""One file of named arrays: ``.pdparams`` for weights, ``.pdopt`` for optimizer state.

Reading accepts what any version of Paddle writes and executes nothing of it.  Writing produces a
plain pickle of ``{name: numpy array}``, which ``paddle.load`` reads (2.6 and 3.x), straight from
the arrays' memory: no second copy, hashed on the way, durable when the function returns.

Source: layout of the pickle opcodes from CPython's ``pickletools``; the reserved keys from what
``paddle.save`` writes.
"""

from __future__ import annotations

import pickle  # for the exceptions of the restricted reader
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Union

import numpy as np

from passl.checkpoint.disk import FileDigest, HashingFile, atomic_file, os_errors_become_sentences
from passl.checkpoint.formats import READ_FORMATS, foreign_format
from passl.checkpoint.unpickle import ForbiddenName, load_inert, to_array
from passl.errors import CheckpointError

__all__ = [
    "bfloat16_to_float32",
    "float32_as_stored",
    "read_arrays",
    "stream_arrays",
    "write_arrays",
]

PathLike = Union[str, Path]

#: Paddle's own entries beside the arrays.
_NAME_TABLE = "StructuredToParameterName@@"
_SLICE_TABLE = "UnpackBigParamInfor@@"
#: A file of weights is shallow; deeper or longer is damage or malice.
_MAX_DEPTH = 16
_MAX_ENTRIES = 1_000_000


def read_arrays(path: PathLike) -> dict[str, np.ndarray]:
    """Read a Paddle file of arrays without executing anything in it.

    Nested dictionaries and lists become one level, keys joined by ``/``
    (``"LR_Scheduler/last_epoch"``); plain numbers become 0-d arrays; text and None are left out,
    as is Paddle's table of internal names.  Paddle stores bfloat16 as uint16: see
    :func:`bfloat16_to_float32`.

    Args:
        path: a ``.pdparams`` or ``.pdopt`` file of any Paddle version.

    Returns:
        name -> array, in the file's order.  The arrays may be read-only: copy before writing into
        one.

    Raises:
        CheckpointError: the file is missing, damaged, of another format, or names code to be run.
    """
    path = Path(path)
    with os_errors_become_sentences("read", path), open(path, "rb") as file:
        foreign = foreign_format(file)
        if foreign is not None:
            raise CheckpointError(f"{path}: {foreign}")
        file.seek(0)
        content = _unpickle(file, path)
        if file.read(1):
            raise CheckpointError(f"{path}: {_DAMAGED.format('there are bytes after its end')}")
    return _flat_arrays(content, path)


def write_arrays(path: PathLike, arrays: Mapping[str, np.ndarray]) -> FileDigest:
    """Write ``{name: array}`` so that ``paddle.load`` reads it; it appears whole or not at all.

    Args:
        path: where; an existing file is replaced in one step.
        arrays: numbers of any shape, 0-d and empty included; each is fetched once, in order, so
            that a lazy mapping need not hold them all.

    Returns:
        The file's length and SHA-256.

    Raises:
        CheckpointError: the operating system refused (disk full, no permission, ...).
    """
    path = Path(path)
    with os_errors_become_sentences("write", path), atomic_file(path) as file:
        stream_arrays(file, arrays)
    return file.digest()


def stream_arrays(file: HashingFile, arrays: Mapping[str, np.ndarray]) -> None:
    """The content of :func:`write_arrays`, into a file that is open."""
    file.write(pickle.PROTO + b"\x04" + pickle.EMPTY_DICT)
    for name, array in arrays.items():
        file.write(_text(name))
        _write_array(file, array)
        file.write(pickle.SETITEM)
        del array  # before a lazy mapping reads the next
    file.write(pickle.STOP)


def bfloat16_to_float32(stored: np.ndarray) -> np.ndarray:
    """The values of bfloat16 stored as uint16: each is the upper half of a float32, exactly."""
    wide = stored.astype(np.uint32)
    np.left_shift(wide, np.uint32(16), out=wide)  # NumPy 1 would make a 0-d array an int64
    return wide.view(np.float32)


def float32_as_stored(array: np.ndarray) -> np.ndarray:
    """bfloat16 stored as uint16 if every value of a float32 array is one; else the array itself.

    Readers widen bfloat16; this undoes it without losing a digit.
    """
    if array.dtype != np.float32:
        return array
    bits = array.view(np.uint32)
    return array if (bits & 0xFFFF).any() else (bits >> 16).astype(np.uint16)


# -- reading ---------------------------------------------------------------------------------------

_DAMAGED = (
    "the file is damaged ({}). Was the copy or download interrupted? "
    "Fetch it again, or use another checkpoint."
)


def _unpickle(file: BinaryIO, path: Path) -> Any:
    try:
        return load_inert(file)
    except ForbiddenName as error:
        raise CheckpointError(
            f"{path}: refused, because loading it would run {error}, and a file of arrays needs no "
            "code. Nothing was run. PASSL 2's .pdopt files hold whole Python objects and cannot be "
            "continued; the .pdparams file beside one can be used as Global.pretrained_model. "
            "A file of any other origin is not to be trusted."
        ) from error
    except EOFError as error:
        raise CheckpointError(f"{path}: {_DAMAGED.format('it ends too early')}") from error
    except OSError:
        raise
    except Exception as error:  # pickle documents that damage may raise anything
        reason = (
            "it ends too early" if "truncated" in str(error) else str(error) or type(error).__name__
        )
        raise CheckpointError(f"{path}: {_DAMAGED.format(reason)}") from error


def _flat_arrays(content: Any, path: Path) -> dict[str, np.ndarray]:
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds one object, not arrays by name. {READ_FORMATS}")
    slices = content.pop(_SLICE_TABLE, None)
    content.pop(_NAME_TABLE, None)
    arrays: dict[str, np.ndarray] = {}
    try:
        for name, value in _leaves(content):
            if name in arrays:
                raise ValueError(f"two entries are called {name!r}")
            array = to_array(value)
            if array is not None:
                arrays[name] = array
        return _join_slices(arrays, slices) if slices else arrays
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path}: {_DAMAGED.format(error)}") from error


def _leaves(content: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Entries of nested dictionaries and lists, depth first, with joined names."""
    num_seen = 0
    stack: list[tuple[str, Any, int]] = [("", content, 0)]
    while stack:
        name, value, depth = stack.pop()
        num_seen += 1
        if depth > _MAX_DEPTH or num_seen > _MAX_ENTRIES:
            raise ValueError("its entries are nested without end")
        if isinstance(value, dict):
            items = [(str(key), item) for key, item in value.items()]
        elif _is_named_tensor(value):
            yield name, value[1]
            continue
        elif isinstance(value, (list, tuple)):
            items = [(str(index), item) for index, item in enumerate(value)]
        else:
            yield name, value
            continue
        prefix = f"{name}/" if name else ""
        stack.extend((prefix + key, item, depth + 1) for key, item in reversed(items))


def _is_named_tensor(value: Any) -> bool:
    """Paddle writes a tensor inside other objects as the pair (internal name, array)."""
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and isinstance(value[0], str)
        and to_array(value[1]) is not None
    )


def _join_slices(arrays: dict[str, np.ndarray], table: dict[str, Any]) -> dict[str, np.ndarray]:
    """Put together what Paddle's protocols 2 and 3 cut up: arrays above one gigabyte."""
    for name, entry in table.items():
        parts = [arrays.pop(part) for part in entry["slices"]]
        arrays[name] = np.concatenate(parts).reshape(entry["OriginShape"])
    return arrays


# -- writing ---------------------------------------------------------------------------------------


def _write_array(file: HashingFile, array: np.ndarray) -> None:
    """The opcodes of ``ndarray.__reduce__``, with the data taken from the array's own memory.

    The old module path ``numpy.core`` is written on purpose: every NumPy since 1.0 can resolve it.
    """
    array = np.asarray(array)
    if array.dtype.kind not in "biufc":
        raise TypeError(
            f"an array of {array.dtype} cannot be stored; only numbers and booleans can"
        )
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    flat = np.ascontiguousarray(little).reshape(-1).view(np.uint8)
    data = flat.data if flat.size else memoryview(b"")
    file.write(
        _name("numpy.core.multiarray", "_reconstruct")
        + _name("numpy", "ndarray")
        + _tuple(_int(0))
        + _bytes_header(b"b")
        + b"b"
        + pickle.TUPLE3
        + pickle.REDUCE
        + pickle.MARK
        + _int(1)
        + _tuple(*(_int(n) for n in array.shape))
        + _dtype(little.dtype)
        + pickle.NEWFALSE
        + _bytes_header(data)
    )
    file.write(data)
    file.write(pickle.TUPLE + pickle.BUILD)


def _dtype(dtype: np.dtype[Any]) -> bytes:
    order = "|" if dtype.itemsize == 1 else "<"
    none = pickle.NONE * 3
    state = _tuple(_int(3), _text(order), none, _int(-1), _int(-1), _int(0))
    arguments = _tuple(_text(dtype.str[1:]), pickle.NEWFALSE, pickle.NEWTRUE)
    return _name("numpy", "dtype") + arguments + pickle.REDUCE + state + pickle.BUILD


def _tuple(*items: bytes) -> bytes:
    return pickle.MARK + b"".join(items) + pickle.TUPLE


def _name(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode("ascii")


def _int(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return pickle.BININT + struct.pack("<i", value)
    return pickle.LONG1 + b"\x09" + value.to_bytes(9, "little", signed=True)


def _text(value: str) -> bytes:
    data = value.encode("utf-8")
    return pickle.BINUNICODE + struct.pack("<I", len(data)) + data


def _bytes_header(data: Union[bytes, memoryview]) -> bytes:
    return pickle.BINBYTES8 + struct.pack("<Q", len(data))

"""Reading Paddle's pickle files without running them.

``.pdparams`` and ``.pdopt`` files are pickles: a program that may call any function of any module
when it is loaded.  Here a file may name only the handful of things that arrays are made of, and
even those are not NumPy's: each name leads to an inert record of its arguments, from which the
array is made afterwards under our own checks.  So neither a function of choice nor a crafted
``dtype`` reaches the interpreter.

This is CPython's own machine, for files of our own form: quick, and in memory whole.  Files from
elsewhere go through :mod:`passl.checkpoint.sources.inert_pickle`, which runs no machine of
CPython's, leaves long contents in the file, and is 25 times slower for small arrays.

Source: the pickle protocol as documented in CPython's ``pickletools``; what NumPy writes is
``ndarray.__reduce__`` and ``dtype.__reduce__``.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from math import prod
from typing import Any, BinaryIO, NoReturn, Union

import numpy as np

__all__ = ["ForbiddenName", "load_inert", "to_array"]

#: Element types that weights and optimizer states have: kind and width in bytes, as NumPy spells
#: them.
_DTYPES = frozenset(
    ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
)


class ForbiddenName(Exception):
    """The file asks for something that no file of arrays needs; its text is ``module.name``."""


class InertDtype:
    """``numpy.dtype(name)`` with its byte order, not yet made."""

    __slots__ = ("name", "order")

    def __init__(self, name: str) -> None:
        self.name = name
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        # (version, byte order, subdtype, names, fields, elsize, alignment, flags)
        if any(part is not None for part in state[2:5]):
            raise ValueError("an array with named fields")
        self.order = ">" if state[1] == ">" else "<"

    def make(self) -> np.dtype[Any]:
        """The element type, if it is a plain number."""
        if self.name not in _DTYPES:
            raise ValueError(f"an array of elements {self.name!r}")
        return np.dtype(self.order + self.name)


class InertArray:
    """An array as the file describes it: state, not memory."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def make(self) -> np.ndarray:
        """The array, read-only, sharing the bytes that were read."""
        _, shape, dtype, fortran, data = self.state
        if not isinstance(dtype, InertDtype) or not all(
            isinstance(n, int) and n >= 0 for n in shape
        ):
            raise ValueError("an array without a proper shape and type")
        return _view(data, dtype.make(), shape, "F" if fortran else "C")


class InertScalar:
    """A NumPy scalar as the file describes it."""

    __slots__ = ("data", "dtype")

    def __init__(self, dtype: InertDtype, data: Union[bytes, str]) -> None:
        self.dtype, self.data = dtype, data

    def make(self) -> np.ndarray:
        """The scalar as a 0-d array."""
        return _view(self.data, self.dtype.make(), (), "C")


def load_inert(file: BinaryIO) -> Any:
    """The object a pickle describes, arrays still inert (see :func:`to_array`).

    Raises:
        ForbiddenName: the file names something outside the allow-list; nothing of it was run.
        Exception: the file is damaged; pickle raises many kinds.
    """
    return _InertUnpickler(file).load()


def to_array(value: object) -> Union[np.ndarray, None]:
    """The array that an inert record or a plain number stands for; None for anything else.

    Raises:
        ValueError: the record is damaged or its elements are no numbers.
    """
    if isinstance(value, (InertArray, InertScalar)):
        return value.make()
    if isinstance(value, (bool, int, float)):
        return np.asarray(value)
    return None


def _view(data: object, dtype: np.dtype[Any], shape: tuple[int, ...], order: str) -> np.ndarray:
    if isinstance(data, str):  # how Python 2 wrote bytes
        data = data.encode("latin-1")
    if not isinstance(data, bytes):
        raise ValueError("an array without its bytes")
    if len(data) != prod(shape) * dtype.itemsize:
        raise ValueError(f"an array of shape {shape} with {len(data)} bytes")
    flat = np.frombuffer(data, dtype=dtype) if data else np.empty(0, dtype)
    array = flat.reshape(shape, order="F" if order == "F" else "C")
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


class _InertUnpickler(pickle.Unpickler):
    """Knows eight names.

    Python's own types among them cannot be changed, and the rest are bound methods, on which a
    file cannot set attributes: one file cannot prepare the ground for the next.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            module = "multiarray"
        if module == "__builtin__":  # Python 2's name of it, in protocols up to 2
            module = "builtins"
        allowed: dict[str, Any] = {
            "builtins.tuple": tuple,
            "builtins.bytes": self._no_bytes,
            "collections.OrderedDict": OrderedDict,
            "numpy.ndarray": "numpy.ndarray",  # only ever an argument of _reconstruct
            "numpy.dtype": self._dtype,
            "multiarray._reconstruct": self._array,
            "multiarray.scalar": self._scalar,
            "_codecs.encode": self._encode,
        }
        full_name = f"{module}.{name}"
        if full_name not in allowed:
            raise ForbiddenName(full_name)
        return allowed[full_name]

    def persistent_load(self, pid: Any) -> NoReturn:
        raise ForbiddenName(f"external object {pid!r}")

    def _array(self, *_: Any) -> InertArray:
        return InertArray()

    def _dtype(self, name: str, *_: Any) -> InertDtype:
        return InertDtype(str(name))

    def _scalar(self, dtype: InertDtype, data: Union[bytes, str]) -> InertScalar:
        return InertScalar(dtype, data)

    def _no_bytes(self, *args: Any) -> bytes:
        # How protocol 2 writes the data of an empty array.
        if args:
            raise ForbiddenName("bytes with arguments")
        return b""

    def _encode(self, text: str, encoding: str) -> bytes:
        # Protocol 2 writes bytes as text; any other codec would be somebody's experiment.
        if encoding != "latin1":
            raise ForbiddenName(f"_codecs.encode with {encoding!r}")
        return text.encode("latin-1")

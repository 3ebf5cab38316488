"""The type in which converted numbers are stored, and arrays that exist one at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import ItemsView, Iterator, Mapping
from typing import Callable, Optional

import numpy as np

from passl.checkpoint.files import float32_as_stored
from passl.checkpoint.sources.safetensors_writer import float32_to_bfloat16
from passl.errors import CheckpointError

__all__ = ["DTYPES", "ArraysInOrder", "CastArrays", "as_stored"]

#: What ``--dtype`` takes -> bytes a number.
DTYPES = {"float32": 4, "float16": 2, "bfloat16": 2}


class CastArrays(Mapping[str, np.ndarray]):
    """Arrays in the type wanted, contiguous, one at a time.

    Args:
        arrays: floating-point arrays.
        dtype: a key of :data:`DTYPES`; bfloat16 becomes uint16, as Paddle stores it.
        watch: called with the number of bytes of each array that is handed out.

    Raises:
        CheckpointError: a value is too large for the type.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        dtype: str,
        watch: Callable[[int], None] = lambda num_bytes: None,  # noqa: ARG005
    ) -> None:
        self._arrays, self._dtype, self._watch = arrays, dtype, watch

    def __getitem__(self, name: str) -> np.ndarray:
        array = self._arrays[name]
        is_bfloat16 = self._dtype == "bfloat16"
        kept = np.dtype("float32" if is_bfloat16 else self._dtype)
        with np.errstate(over="ignore"):
            cast = np.ascontiguousarray(array, dtype=kept)
        if array.dtype.itemsize > kept.itemsize and np.isinf(cast).sum() > np.isinf(array).sum():
            hint = "; use --dtype bfloat16 or float32" if kept == np.float16 else ""
            raise CheckpointError(
                f"{name}: {float(np.abs(array).max()):g} is too large for {kept}, which ends at "
                f"{float(np.finfo(kept).max):g}{hint}."
            )
        if is_bfloat16:
            cast = float32_to_bfloat16(cast)
        self._watch(cast.nbytes)
        return cast

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


class ArraysInOrder(Mapping[str, np.ndarray]):
    """Arrays of a large file, made one after the other and never two at a time.

    A sub-class says in :meth:`pairs` how.  Asking for one by name makes those before it as well,
    and lets them go.
    """

    @abstractmethod
    def pairs(self) -> Iterator[tuple[str, np.ndarray]]:
        """Name and array, each made when it is asked for."""

    def items(self) -> ItemsView[str, np.ndarray]:
        """The pairs, as writers ask for them."""
        return _Pairs(self)

    def __getitem__(self, name: str) -> np.ndarray:
        for other, array in self.pairs():
            if other == name:
                return array
            del array  # before the next is made
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self.pairs())

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Pairs(ItemsView[str, np.ndarray]):
    def __init__(self, arrays: ArraysInOrder) -> None:
        super().__init__(arrays)
        self._arrays = arrays

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        return self._arrays.pairs()


def as_stored(name: str, array: np.ndarray, dtype: Optional[str]) -> np.ndarray:
    """One array in the type wanted, contiguous.

    Args:
        name: for messages.
        array: floating-point numbers.
        dtype: a key of :data:`DTYPES`; None: bfloat16 where that loses nothing, else as it is.

    Raises:
        CheckpointError: a value is too large for it.
    """
    if dtype is None:
        return float32_as_stored(np.ascontiguousarray(array))
    return CastArrays({name: array}, dtype)[name]

"""The type in which converted numbers are stored, and arrays that exist one at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import ItemsView, Iterator, Mapping
from typing import Callable, Optional

import numpy as np

from passl.checkpoint.files import float32_as_stored
from passl.checkpoint.sources.safetensors_writer import float32_to_bfloat16
from passl.errors import CheckpointError

__all__ = ["DTYPES", "ArraysInOrder", "BecameZero", "CastArrays", "as_stored"]

#: What ``--dtype`` takes -> bytes a number.
DTYPES = {"float32": 4, "float16": 2, "bfloat16": 2}


class BecameZero:
    """Counts the numbers that are 0 in a type which has none so small."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, float]] = {}  # by tensor, which may be cast twice

    def note(self, name: str, before: np.ndarray, after: np.ndarray) -> None:
        """One tensor as it was, and as it is written."""
        lost = int(np.count_nonzero(before)) - int(np.count_nonzero(after))
        if lost > 0:
            largest = float(np.abs(before[(after == 0).reshape(before.shape)]).max())
            self._found[name] = lost, largest

    def as_json(self) -> Optional[dict[str, object]]:
        """For the provenance; None: there is none."""
        if not self._found:
            return None
        count = sum(count for count, _ in self._found.values())
        largest, name = max((largest, name) for name, (_, largest) in self._found.items())
        return {"numbers": count, "largest": largest, "in": name}

    def sentence(self, dtype: str) -> str:
        """How many, and the largest of them; empty if there is none."""
        found = self.as_json()
        if found is None:
            return ""
        return (
            f"{found['numbers']:,} numbers too small for {dtype} became 0, the largest "
            f"{found['largest']:.3g} in {found['in']}"
        )


class CastArrays(Mapping[str, np.ndarray]):
    """Arrays in the type wanted, contiguous, one at a time.

    Args:
        arrays: floating-point arrays.
        dtype: a key of :data:`DTYPES`; bfloat16 becomes uint16, as Paddle stores it.
        watch: called with the number of bytes of each array that is handed out.
        lost: counts numbers that become 0 in a narrower type.

    Raises:
        CheckpointError: a value is too large for the type.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        dtype: str,
        watch: Callable[[int], None] = lambda num_bytes: None,  # noqa: ARG005
        lost: Optional[BecameZero] = None,
    ) -> None:
        self._arrays, self._dtype, self._watch, self._lost = arrays, dtype, watch, lost

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
        if self._lost is not None and array.dtype.itemsize > cast.itemsize:
            self._lost.note(name, array, cast & 0x7FFF if is_bfloat16 else cast)
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


def as_stored(
    name: str, array: np.ndarray, dtype: Optional[str], lost: Optional[BecameZero] = None
) -> np.ndarray:
    """One array in the type wanted, contiguous.

    Args:
        name: for messages.
        array: floating-point numbers.
        dtype: a key of :data:`DTYPES`; None: bfloat16 where that loses nothing, else as it is.
        lost: counts numbers that become 0.

    Raises:
        CheckpointError: a value is too large for it.
    """
    if dtype is None:
        return float32_as_stored(np.ascontiguousarray(array))
    return CastArrays({name: array}, dtype, lost=lost)[name]

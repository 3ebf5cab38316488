"""The type in which converted numbers are stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Callable

import numpy as np

from passl.checkpoint.sources.safetensors_writer import float32_to_bfloat16
from passl.errors import CheckpointError

__all__ = ["DTYPES", "CastArrays"]

#: What ``--dtype`` takes -> bytes a number.
DTYPES = {"float32": 4, "float16": 2, "bfloat16": 2}


class CastArrays(Mapping[str, np.ndarray]):
    """Arrays in the type wanted, contiguous, one at a time.

    Args:
        arrays: floating-point arrays.
        dtype: a key of :data:`DTYPES`; bfloat16 becomes uint16, as Paddle stores it.
        watch: called with the number of bytes of each array that is handed out.

    Raises:
        CheckpointError: a value is too large for float16.
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
        if self._dtype == "bfloat16":
            cast = float32_to_bfloat16(array)
        else:
            with np.errstate(over="ignore"):
                cast = np.ascontiguousarray(array, dtype=self._dtype)
            if self._dtype == "float16" and np.isinf(cast).sum() > np.isinf(array).sum():
                raise CheckpointError(
                    f"{name}: {float(np.abs(array).max()):g} is too large for float16, which ends "
                    "at 65504; use --dtype bfloat16 or float32."
                )
        self._watch(cast.nbytes)
        return cast

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

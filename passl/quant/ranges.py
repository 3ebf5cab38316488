"""The ranges of int8: one for the input of each layer, measured once or moving with training.

They stay on the device, so that a step of training waits for nothing.

Source: Jacob et al. 2018, section 3.1: an exponential moving average of the ends of each batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Callable, Optional, Union

import numpy as np
import paddle
from paddle import Tensor

from passl.errors import PasslError
from passl.quant.int8 import grids

__all__ = ["Ranges"]


class Ranges:
    """Lowest and highest input of each layer.

    Args:
        names: of the layers.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = list(names)
        self._index = {name: number for number, name in enumerate(self.names)}
        self._ends: Optional[Tensor] = None
        self._known: set[str] = set()
        self._grids: list[tuple[Tensor, Tensor]] = []
        self._seen: dict[str, tuple[Tensor, Tensor]] = {}

    @property
    def are_set(self) -> bool:
        """Whether anything was measured."""
        return self._ends is not None

    def set(self, ends: Mapping[str, tuple[float, float]]) -> None:
        """Take ranges over; of a layer that has none, or one that is not finite, none is known.

        Args:
            ends: lowest and highest input by layer; they are rounded to float32.
        """
        table = np.full((len(self.names), 2), np.nan, np.float32)
        for name, (lowest, highest) in ends.items():
            if name in self._index:
                table[self._index[name]] = lowest, highest
        self._put(paddle.to_tensor(table))
        self._known = {name for name in self.names if np.isfinite(table[self._index[name]]).all()}

    def to_dict(self) -> dict[str, list[float]]:
        """The known ranges, exactly; :meth:`set` takes them again."""
        if self._ends is None:
            return {}
        table = self._ends.numpy()
        rows = {name: table[self._index[name]] for name in self.names if name in self._known}
        return {name: [float(end) for end in row] for name, row in rows.items()}

    def grid(self, name: str) -> tuple[Tensor, Tensor]:
        """Scale and zero point of a layer's input, float32 [1] each.

        Raises:
            PasslError: its range is not known.
        """
        if name not in self._known:
            raise PasslError(
                f"int8: the range of {name}'s input is not known: the layer did not run while "
                "ranges were measured, or its input was not finite"
            )
        return self._grids[self._index[name]]

    def see(self, name: str, x: Tensor) -> None:
        """Remember the ends of an input until :meth:`move`."""
        x = x.detach().astype("float32")
        # Infinities outlast whatever a minimum or an all-reduce makes of NaN: Paddle 2.6 skips it.
        is_finite, infinity = paddle.isfinite(x).all(), paddle.full([1], np.inf)
        lowest = paddle.where(is_finite, x.min().reshape([1]), infinity * -1.0)
        highest = paddle.where(is_finite, x.max().reshape([1]), infinity)
        if name in self._seen:
            before = self._seen[name]
            lowest = paddle.minimum(lowest, before[0])
            highest = paddle.maximum(highest, before[1])
        self._seen[name] = lowest, highest

    def move(
        self,
        momentum: float,
        accepted: Union[bool, Tensor],
        highest_of_all: Callable[[Tensor], Tensor],
    ) -> None:
        """``end = momentum * end + (1 - momentum) * end of what was seen``, where that is finite.

        Args:
            momentum: share that is kept.
            accepted: false, perhaps on the device, leaves the ranges as they are.
            highest_of_all: the element-wise maximum over all processes.
        """
        seen, self._seen = self._seen, {}
        if accepted is False or self._ends is None:
            return
        nothing = paddle.full([1], -np.inf)
        ends = [(seen[n][0] * -1.0, seen[n][1]) if n in seen else (nothing, nothing)
                for n in self.names]  # fmt: skip
        columns = [paddle.concat(list(column)) for column in zip(*ends)]
        found = highest_of_all(paddle.stack(columns, axis=1))
        found = paddle.stack([found[:, 0] * -1.0, found[:, 1]], axis=1)
        moved = self._ends * momentum + found * (1.0 - momentum)
        moves = paddle.isfinite(moved)
        if accepted is not True:
            moves = paddle.logical_and(moves, accepted.astype("bool").reshape([1, 1]))
        self._put(paddle.where(moves, moved, self._ends))

    def _put(self, ends: Tensor) -> None:
        self._ends = ends
        scales, zeros = grids(ends)
        self._grids = list(zip(scales.split(len(self.names)), zeros.split(len(self.names))))

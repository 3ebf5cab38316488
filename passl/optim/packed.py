"""Tensors moved into one buffer, so that an operator on it works on all of them at once.

Where only the device knows whether a step counts, weights and state are copied before the update
and chosen from after it, and masters are rounded into half weights.  A few operators a tensor for
that would be more than all the rest of the update, and launching them is what a GPU waits for; in
buffers they are a few for some hundred tensors.

A packed tensor stays the object that it is: its storage alone moves, as in Paddle's own parameter
storage for sharding (``paddle.distributed.fleet.meta_parallel``, ``ParamStorage``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional, Union

import numpy as np
import paddle

from passl.trial import works_here

__all__ = ["Loose", "Packed", "pack"]

#: Each tensor begins at a multiple of so many numbers (256 bytes), as one on its own does: kernels
#: read several numbers at once only from addresses that allow it.
_ALIGNMENT = 64


def pack(tensors: Sequence[paddle.Tensor]) -> Union[Packed, Loose]:
    """``tensors`` in one buffer, or as they are on a device where that was tried and fails."""
    one_buffer = "one buffer for many tensors"
    works = works_here(one_buffer, _problem, "a step launches more operators instead")
    return Packed(tensors) if works else Loose(tensors)


class Packed:
    """Tensors of one dtype, side by side in one buffer.

    Args:
        tensors: one or more; their storage moves, and nothing else may share it.
    """

    def __init__(self, tensors: Sequence[paddle.Tensor]) -> None:
        self._tensors = [tensor for tensor in tensors if tensor.size]
        starts, total = [], 0
        for tensor in self._tensors:
            starts.append(total)
            total += -(-int(tensor.size) // _ALIGNMENT) * _ALIGNMENT
        with paddle.no_grad():
            self._buffer = paddle.zeros([total], dtype=tensors[0].dtype)
            for tensor, start in zip(self._tensors, starts):
                self._move(tensor, start)
        self._addresses = [tensor.data_ptr() for tensor in self._tensors]

    @property
    def is_whole(self) -> bool:
        """No tensor was given another storage meanwhile."""
        return self._addresses == [tensor.data_ptr() for tensor in self._tensors]

    def copy(self) -> paddle.Tensor:
        """All numbers as they are now."""
        return self._buffer.clone()

    def keep_if(self, accepted: paddle.Tensor, before: Any) -> None:
        """Put back what :meth:`copy` gave, every bit, where ``accepted`` (bool []) is false."""
        paddle.where_(accepted.expand(self._buffer.shape), self._buffer, before)

    def round(self, masters: Any) -> None:
        """Take the numbers of as many tensors of the same shapes, rounded to the dtype of these."""
        paddle.assign(masters._buffer.astype(self._buffer.dtype), output=self._buffer)

    def _move(self, tensor: paddle.Tensor, start: int) -> None:
        size, shape = int(tensor.size), list(tensor.shape)
        piece = self._buffer._slice(start, start + size)
        paddle.assign(tensor.detach().reshape([size]), output=piece)
        storage = tensor.get_tensor()
        storage._share_data_with(piece.get_tensor())
        storage._set_dims(shape)


class Loose:
    """What :class:`Packed` does, with tensors that stay where they are: operators a tensor.

    Args:
        tensors: of one dtype.
    """

    is_whole = True

    def __init__(self, tensors: Sequence[paddle.Tensor]) -> None:
        self._tensors = list(tensors)

    def copy(self) -> list[paddle.Tensor]:
        """See :meth:`Packed.copy`."""
        return [tensor.clone() for tensor in self._tensors]

    def keep_if(self, accepted: paddle.Tensor, before: Any) -> None:
        """See :meth:`Packed.keep_if`."""
        for tensor, old in zip(self._tensors, before):
            paddle.where_(accepted.expand(tensor.shape), tensor, old)

    def round(self, masters: Any) -> None:
        """See :meth:`Packed.round`."""
        for tensor, master in zip(self._tensors, masters._tensors):
            paddle.assign(master.astype(tensor.dtype), output=tensor)


def _problem() -> Optional[str]:
    """What is wrong with small tensors in a buffer, None if nothing is."""
    shapes: tuple[list[int], ...] = ([3, 5], [], [70])
    values = [np.arange(1.0, 1.0 + np.prod(shape)).reshape(shape) for shape in shapes]
    with paddle.no_grad():
        tensors = [paddle.to_tensor(value.astype("float32")) for value in values]
        packed = Packed(tensors)
        before = packed.copy()
        for accepted in (False, True):
            for tensor in tensors:
                tensor.scale_(2.0)
            packed.keep_if(paddle.to_tensor(accepted), before)
            wanted = [value * (1 + accepted) for value in values]
            if not all(np.array_equal(t.numpy(), w) for t, w in zip(tensors, wanted)):
                return "they do not have their numbers there"
        product = paddle.matmul(tensors[0], tensors[0], transpose_y=True).numpy()
        if not packed.is_whole or not np.allclose(product, wanted[0] @ wanted[0].T, rtol=1e-2):
            return "other operators do not see them there"
    return None

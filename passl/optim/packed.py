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

import paddle

__all__ = ["Packed"]

#: Each tensor begins at a multiple of so many numbers (256 bytes), as one on its own does: kernels
#: read several numbers at once only from addresses that allow it.
_ALIGNMENT = 64


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

    def keep_if(self, accepted: paddle.Tensor, before: paddle.Tensor) -> None:
        """Put back what :meth:`copy` gave, every bit, where ``accepted`` (bool []) is false."""
        paddle.where_(accepted.expand(self._buffer.shape), self._buffer, before)

    def round(self, masters: Packed) -> None:
        """Take the numbers of as many tensors of the same shapes, rounded to the dtype of these."""
        paddle.assign(masters._buffer.astype(self._buffer.dtype), output=self._buffer)

    def _move(self, tensor: paddle.Tensor, start: int) -> None:
        size, shape = int(tensor.size), list(tensor.shape)
        piece = self._buffer._slice(start, start + size)
        paddle.assign(tensor.detach().reshape([size]), output=piece)
        storage = tensor.get_tensor()
        storage._share_data_with(piece.get_tensor())
        storage._set_dims(shape)

"""Gradients of half-precision weights, in float32 as soon as a backward pass is over.

The backward pass leaves a gradient in the dtype of its parameter.  Added up there over the
micro-batches of a step, or over processes, fp16 would lose what is below 1/2048 of the sum and
overflow at 65504 times the inverse of the loss scale.  So only the gradient of one micro-batch is
ever in half precision; sums, norm, division by the loss scale, clipping and update are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import paddle
from paddle import Tensor

from passl.distributed.reducer import Gradients

__all__ = ["WideGradients"]


class WideGradients(Gradients):
    """Adds the gradients of half-precision parameters up in float32; leaves all others alone.

    A step: backward passes, :meth:`keep` after each but the last, and :meth:`finish` at the end.

    Args:
        parameters: ``(name, parameter)`` of what is trained.
    """

    def __init__(self, parameters: Sequence[tuple[str, Tensor]]) -> None:
        self._half = [each for _, each in parameters if each.dtype != paddle.float32]
        self._sums: dict[int, Tensor] = {}

    def keep(self) -> None:
        """Take in what a backward pass left; the next one finds no gradient to add to."""
        for parameter in self._half:
            if parameter.grad is None:
                continue
            is_own = parameter.grad.dtype == paddle.float32 and id(parameter) not in self._sums
            total = self.take(parameter)
            assert total is not None
            # What is cleared must not be what is kept.
            self._sums[id(parameter)] = total.clone() if is_own else total
            parameter.clear_gradient(False)

    def take(self, parameter: Tensor) -> Optional[Tensor]:
        """The whole gradient of a parameter in float32, which this object then forgets.

        None if no backward pass left one.
        """
        with paddle.no_grad():
            total = self._sums.pop(id(parameter), None)
            newest = parameter.grad
            if newest is None:
                return total
            if newest.dtype != paddle.float32:
                newest = newest.astype("float32")
            return newest if total is None else total.add_(newest)

    def finish(self) -> None:
        """Let ``parameter.grad`` be the whole gradient in float32."""
        for parameter in self._half:
            there = parameter.grad
            if id(parameter) in self._sums or (there is not None and there.dtype != paddle.float32):
                total = self.take(parameter)
                assert total is not None
                self.hand_over(parameter, total)

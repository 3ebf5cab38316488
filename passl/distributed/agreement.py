"""One answer for all ranks to a question that each may answer differently: is it time to stop?

A signal reaches one process earlier than another, or only one of them.  Ranks that left the loop at
different steps would wait for each other for ever, so they ask each other at fixed places.
"""

from __future__ import annotations

from typing import Optional

import paddle
from paddle import Tensor

from passl.distributed.talk import talking
from passl.distributed.world import World

__all__ = ["Agreement"]


class Agreement:
    """Whether any rank says yes: the same answer on every rank, in one tiny collective a call.

    Every rank must call it equally often.  Alone it costs nothing.

    On an accelerator reading a tensor waits for the queue of the device, and waiting every step
    would stall it.  There a call starts its collective and returns the answer of the call before:
    the device always has the newest step to work on, and a stop comes one step later.  On a CPU
    the answer is immediate.

    Args:
        world: this process among all.
        deferred: answer one call later; None: where the current device is no CPU.
    """

    def __init__(self, world: World, deferred: Optional[bool] = None) -> None:
        self._world = world
        self._deferred = not paddle.get_device().startswith("cpu") if deferred is None else deferred
        self._previous: Optional[Tensor] = None

    def __call__(self, wish: bool) -> Optional[int]:
        """The highest rank that says yes, or None if none does.

        Args:
            wish: what this rank says.
        """
        if not self._world.is_distributed:
            return 0 if wish else None
        answer = paddle.to_tensor([self._world.rank + 1 if wish else 0], dtype="int32")
        with talking("the wish to stop"):
            paddle.distributed.all_reduce(answer, op=paddle.distributed.ReduceOp.MAX)
        if self._deferred:
            answer, self._previous = self._previous, answer
            if answer is None:
                return None
        highest = int(answer.numpy()[0])
        return highest - 1 if highest else None

"""One answer for all ranks to a question that each may answer differently: is it time to stop?

A signal reaches one process earlier than another, or only one of them.  Ranks that left the loop at
different steps would wait for each other for ever, so they ask each other at fixed places.  A save
that a clock asks for goes the same way, as only one of the clocks can decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import paddle
from paddle import Tensor

from passl.distributed.talk import talking
from passl.distributed.world import World

__all__ = ["Agreement", "Answer"]


@dataclass(frozen=True)
class Answer:
    """What the ranks agreed on.

    Attributes:
        stop: the highest rank that wants to stop, or None if none does.
        save: a rank wants to save; it is not said where one wants to stop, which saves anyway.
    """

    stop: Optional[int] = None
    save: bool = False


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

    def __call__(self, stop: bool, save: bool = False) -> Answer:
        """What all ranks together want.

        Args:
            stop, save: what this rank wants.
        """
        if not self._world.is_distributed:
            return Answer(0 if stop else None, save and not stop)
        # The largest wins: 0 for nothing, 1 for a save, the rank + 2 for a stop.
        wish = self._world.rank + 2 if stop else int(save)
        answer = paddle.to_tensor([wish], dtype="int32")
        with talking("the wish to stop or to save"):
            paddle.distributed.all_reduce(answer, op=paddle.distributed.ReduceOp.MAX)
        if self._deferred:
            answer, self._previous = self._previous, answer
            if answer is None:
                return Answer()
        highest = int(answer.numpy()[0])
        return Answer(highest - 2 if highest > 1 else None, highest == 1)

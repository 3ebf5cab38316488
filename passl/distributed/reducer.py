"""Summing gradients over the processes: in fused buffers, once a step.

The parameters are dealt into buckets, last layer first, as the backward pass reaches them.  A
bucket travels as one flat fp32 buffer: the gradients, then for each parameter the number of ranks
that have one; in fp32 whatever the parameters are in, so that a sum over many ranks neither rounds
nor overflows where the gradient of one does not.  A parameter that some ranks did not use gets the
sum of the others, and one that no rank used keeps the gradient None, exactly as in a single
process.

Plain, on a CPU: all buckets after the last micro-batch, by calls of ours, so that a dead peer is an
exception here instead of an abort inside Paddle (measured on Paddle 3.3: a failure within its own
reducer ends the process with SIGABRT).

Overlapped, on an accelerator: in the last micro-batch a bucket leaves as soon as its gradients are
complete, while the backward pass goes on.  Buckets leave in one fixed order whatever is ready
first, and what is left leaves in :meth:`GradientReducer.finish`: every rank makes the same calls,
also one without samples.  Both ways send the same buffers, so their sums are equal bit for bit.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from typing import Any, Callable, Optional

import numpy as np
import paddle
from paddle import Tensor

from passl.distributed.talk import talking
from passl.distributed.world import World
from passl.errors import PasslError

__all__ = ["GradientReducer", "Gradients"]

#: Numbers in a buffer (32 MiB of fp32): large enough that latency does not matter, small enough
#: that the copy stays a fraction of the model's memory and the first one leaves early.
BUFFER_NUMEL = 8 * 2**20


class Gradients:
    """Where the gradients of a step are: at their parameters, in ``grad``."""

    def take(self, parameter: Tensor) -> Optional[Tensor]:
        """All that the backward passes of a step left for a parameter, once a step; or None."""
        return parameter.grad

    def put(self, parameter: Tensor, gradient: Tensor) -> None:
        """Let ``parameter.grad`` be a copy of ``gradient``, float32 whatever the parameter is in.

        A copy, since a piece of a buffer may begin where no vector of a GPU's kernel may.
        """
        there = parameter.grad
        if there is not None and there.dtype == gradient.dtype:
            # assign, as set_value of Paddle 2.6 goes through the host's memory.
            paddle.assign(gradient, output=there)
        else:
            self.hand_over(parameter, gradient.clone())

    def hand_over(self, parameter: Tensor, gradient: Tensor) -> None:
        """Let ``parameter.grad`` be ``gradient`` itself, which nobody else may use then."""
        parameter.clear_gradient(False)  # Paddle refuses another dtype unless it was cleared
        # The setter of ``grad`` copies, on a GPU by a call that waits for all streams.
        parameter.grad_ = gradient


class GradientReducer:
    """Replaces gradients by their sums over all ranks; does nothing alone.

    Each step: backward passes, :meth:`arm` before the last of them, then :meth:`finish`.

    Args:
        parameters: ``(name, parameter)``, the same in the same order on every rank.
        world: this process among all.
        overlap: send during the backward pass; None: where the current device is no CPU.
        buffer_numel: the most numbers in a buffer that holds more than one gradient.
        gradients: where the gradients of a step are.
    """

    def __init__(
        self,
        parameters: Sequence[tuple[str, Tensor]],
        world: World,
        overlap: Optional[bool] = None,
        buffer_numel: int = BUFFER_NUMEL,
        gradients: Optional[Gradients] = None,
    ) -> None:
        self.world = world
        on_device = not paddle.get_device().startswith("cpu")
        self.overlaps = world.is_distributed and (on_device if overlap is None else overlap)
        gradients = gradients or Gradients()
        parts = _deal(reversed(parameters), buffer_numel)
        self.buckets = [_Bucket(part, gradients) for part in parts]
        self._armed = False
        self._sent = 0
        self._late: Optional[str] = None
        if self.overlaps:
            for number, bucket in enumerate(self.buckets):
                for position, parameter in enumerate(bucket.parameters):
                    # Called when the gradient is added up; a hook of Paddle cannot be removed.
                    parameter._register_backward_hook(_hook(self, number, position))

    def arm(self) -> None:
        """The next backward pass is the last one of the step."""
        self._armed = self.overlaps

    def finish(self) -> None:
        """Wait for what was sent, send the rest, and put the sums in place.

        Raises:
            PeerLostError: another process is gone.
            PasslError: the gradients changed after they were sent.
        """
        if not self.world.is_distributed:
            return
        with paddle.no_grad():
            self._send(len(self.buckets))
            for bucket in self.buckets:
                bucket.learn(armed=self._armed)
                bucket.receive()
        late, self._late = self._late, None
        self._armed, self._sent = False, 0
        if late is not None:
            raise PasslError(
                f"the gradient of {late} grew after it was sent to the other processes: the model "
                "used it more often than in its first step. Send gradients after the backward "
                "pass with -o DistributedStrategy.overlap=false"
            )

    def gradient_is_complete(self, number: int, position: int) -> None:
        """A backward pass has added to a gradient of bucket ``number``."""
        if not self._armed:
            return
        bucket = self.buckets[number]
        bucket.count(position)
        if number < self._sent:
            self._late = bucket.names[position]
        upto = self._sent
        while upto < len(self.buckets) and self.buckets[upto].is_complete:
            upto += 1
        with paddle.no_grad():
            self._send(upto)

    def _send(self, upto: int) -> None:
        for bucket in self.buckets[self._sent : upto]:
            bucket.send(wait=not self.overlaps)
        self._sent = max(self._sent, upto)


class _Bucket:
    """Parameters whose gradients travel together."""

    def __init__(self, parameters: Sequence[tuple[str, Tensor]], gradients: Gradients) -> None:
        self._gradients = gradients
        self.names = [name for name, _ in parameters]
        self.parameters = [parameter for _, parameter in parameters]
        self._sizes = [int(np.prod(parameter.shape)) for parameter in self.parameters]
        self._here = paddle.ones([len(parameters)], dtype="float32")
        self._flat: Optional[Tensor] = None
        self._task: Any = None
        #: How often each gradient is added to in a backward pass (a parameter that is used by
        #: several recomputed blocks: more than once); None before the first, 0 if unused in it.
        self._expected: Optional[list[int]] = None
        self._counted = [0] * len(parameters)

    def count(self, position: int) -> None:
        """The gradient at ``position`` was added to."""
        self._counted[position] += 1

    @property
    def is_complete(self) -> bool:
        """Nothing is to be expected from the rest of the backward pass, as far as is known."""
        return self._expected is not None and all(
            0 < expected <= counted for expected, counted in zip(self._expected, self._counted)
        )

    def learn(self, armed: bool) -> None:
        """The step is over: the first backward pass shows what later ones will do."""
        if self._expected is None and armed:
            self._expected = list(self._counted)
        self._counted = [0] * len(self._counted)

    def send(self, wait: bool) -> None:
        """Start the sum over the ranks; ``wait`` for it or not."""
        grads = [self._gradients.take(parameter) for parameter in self.parameters]
        self._missing = [grad is None for grad in grads]
        here = self._here
        if any(self._missing):
            here = paddle.to_tensor([float(not missing) for missing in self._missing])
        pieces = [
            paddle.zeros([size]) if grad is None else grad.astype("float32").flatten()
            for grad, size in zip(grads, self._sizes)
        ]
        self._flat = paddle.concat([*pieces, here])
        with talking("gradients"):
            self._task = paddle.distributed.all_reduce(self._flat, sync_op=wait)

    def receive(self) -> None:
        """Wait for the sums and make them the gradients."""
        flat, task = self._flat, self._task
        assert flat is not None, "send() comes first"
        if task is not None:
            with talking("gradients"):
                task.wait()
        self._flat = self._task = None
        # Read only where this rank lacks a gradient: reading waits for the device.
        ranks = flat[sum(self._sizes) :].numpy() if any(self._missing) else None
        start = 0
        for position, (parameter, size) in enumerate(zip(self.parameters, self._sizes)):
            summed = flat[start : start + size].reshape(parameter.shape)
            start += size
            if not self._missing[position] or (ranks is not None and ranks[position] > 0):
                self._gradients.put(parameter, summed)


def _hook(reducer: GradientReducer, number: int, position: int) -> Callable[..., None]:
    """A hook that does not keep the reducer, and with it the parameters, alive."""
    kept = weakref.ref(reducer)

    def call(*_: Any) -> None:
        alive = kept()
        if alive is not None:
            alive.gradient_is_complete(number, position)

    return call


def _deal(
    parameters: Iterable[tuple[str, Tensor]], numel: int
) -> Iterable[list[tuple[str, Tensor]]]:
    bucket: list[tuple[str, Tensor]] = []
    filled = 0
    for name, parameter in parameters:
        size = int(np.prod(parameter.shape))
        if bucket and filled + size > numel:
            yield bucket
            bucket, filled = [], 0
        bucket.append((name, parameter))
        filled += size
    if bucket:
        yield bucket

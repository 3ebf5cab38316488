"""The collectives of data-parallel training, each a plain call that does nothing alone.

Gradients are summed by one call of ours after the last micro-batch, not by hooks inside the
backward pass: accumulation communicates once, and a dead peer is an exception here instead of an
abort inside Paddle (facts measured on Paddle 3.3: a reducer's failure ends the process with
SIGABRT).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import paddle
from paddle import Tensor

from passl.distributed.world import World

__all__ = [
    "all_ranks_have",
    "broadcast_parameters",
    "init_world",
    "sum_gradients",
    "sum_over_ranks",
]

#: Gradients travel in flat buffers of at most this many numbers (64 MiB of fp32): large enough that
#: latency does not matter, small enough that the copy stays a fraction of the model's memory.
_BUFFER_NUMEL = 16 * 2**20


def init_world(world: World) -> None:
    """Join the other processes; nothing to do alone."""
    if world.is_distributed:
        paddle.distributed.init_parallel_env()


def broadcast_parameters(tensors: Iterable[Tensor], world: World) -> None:
    """Give every rank the values of rank 0."""
    if world.is_distributed:
        for tensor in tensors:
            paddle.distributed.broadcast(tensor, src=0)


def sum_gradients(parameters: Sequence[Tensor], world: World) -> None:
    """Replace every gradient by its sum over all ranks, in fused fp32 buffers.

    A rank whose parameter got no gradient contributes zeros, so that the ranks cannot wait for each
    other for ever.

    Args:
        parameters: the same trainable parameters in the same order on every rank.
        world: this process among all.
    """
    if not world.is_distributed:
        return
    for bucket in _buckets(parameters):
        flat = paddle.concat(
            [
                (p.grad.astype("float32") if p.grad is not None else paddle.zeros_like(p)).flatten()
                for p in bucket
            ]
        )
        paddle.distributed.all_reduce(flat)
        start = 0
        for parameter in bucket:
            numel = int(np.prod(parameter.shape))
            summed = flat[start : start + numel].reshape(parameter.shape)
            if parameter.grad is None:
                parameter.grad = summed.astype(parameter.dtype)
            else:
                # assign, as set_value of Paddle 2.6 goes through the host's memory.
                paddle.assign(summed.astype(parameter.grad.dtype), output=parameter.grad)
            start += numel


def sum_over_ranks(values: np.ndarray, world: World) -> np.ndarray:
    """The element-wise sum of a small float64 array over all ranks.

    Args:
        values: float64, the same shape on every rank.
        world: this process among all.
    """
    if not world.is_distributed:
        return values
    tensor = paddle.to_tensor(np.asarray(values, dtype=np.float64))
    paddle.distributed.all_reduce(tensor)
    return tensor.numpy()


def all_ranks_have(number: int, world: World) -> bool:
    """Whether ``number`` is the same on every rank; all ranks get the same answer.

    Args:
        number: up to about a hundred million, so that its square is exact in float64.
        world: this process among all.
    """
    total, squares = sum_over_ranks(np.array([number, number**2], dtype=np.float64), world)
    return bool(squares * world.size == total**2)  # no variance


def _buckets(parameters: Sequence[Tensor]) -> Iterable[list[Tensor]]:
    bucket: list[Tensor] = []
    filled = 0
    for parameter in parameters:
        numel = int(np.prod(parameter.shape))
        if bucket and filled + numel > _BUFFER_NUMEL:
            yield bucket
            bucket, filled = [], 0
        bucket.append(parameter)
        filled += numel
    if bucket:
        yield bucket

"""The collectives of data-parallel training, each a plain call that does nothing alone.

Gradients have a module of their own, :mod:`passl.distributed.reducer`.
"""

from __future__ import annotations

import hashlib
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn

from passl.distributed.talk import talking
from passl.distributed.world import World
from passl.errors import PasslError

__all__ = [
    "all_ranks_have",
    "broadcast_parameters",
    "check_equal",
    "init_world",
    "share_batch_statistics",
    "sum_integers",
    "sum_over_ranks",
    "wait_for_all",
]


def init_world(world: World) -> None:
    """Join the other processes; nothing to do alone."""
    if world.is_distributed:
        with _signals_end(), talking("addresses"):
            paddle.distributed.init_parallel_env()


def wait_for_all(world: World) -> None:
    """Go on when every rank has come here; nothing to do alone."""
    if world.is_distributed:
        with talking("that all are here"):
            paddle.distributed.barrier()


def broadcast_parameters(tensors: Iterable[Tensor], world: World) -> None:
    """Give every rank the values of rank 0."""
    if world.is_distributed:
        with talking("initial weights"):
            for tensor in tensors:
                paddle.distributed.broadcast(tensor, src=0)


def share_batch_statistics(model: Any, world: World) -> None:
    """Give every rank the running averages of rank 0's batch normalisations.

    Each process averages over its own samples.  Rank 0's count, as in PyTorch's
    DistributedDataParallel: they are what a checkpoint holds, so a run that continues evaluates as
    one that never stopped.  Nothing in training reads them.
    """
    if not world.is_distributed:
        return
    with talking("batch statistics"):
        for layer in model.sublayers(include_self=True):
            for name in ("_mean", "_variance"):
                if isinstance(layer, nn.layer.norm._BatchNormBase):
                    paddle.distributed.broadcast(getattr(layer, name), src=0)


def check_equal(tensors: Mapping[str, Any], world: World, advice: str) -> None:
    """Refuse to go on with tensors that are not the same, bit for bit, on every rank.

    Costs a copy to the host, one tensor at a time, and 16 bytes a tensor on the network.

    Args:
        tensors: by name.
        world: this process among all.
        advice: what to do about a difference, a sentence.

    Raises:
        PasslError: on all ranks together, with the names of what differs.
    """
    if not world.is_distributed:
        return
    shapes, digests = [], []
    for name, value in tensors.items():
        array = value.numpy() if hasattr(value, "numpy") else np.asarray(value)
        shapes.append(f"{name} {list(array.shape)} {array.dtype}")
        digests.append(_digest(np.ascontiguousarray(array)))
    if not all_ranks_have(_digest("\n".join(shapes).encode()), world):
        raise PasslError(
            f"the processes hold different tensors; this one (rank {world.rank}) has "
            f"{len(shapes)}, the first of them {', '.join(shapes[:2])}. {advice}"
        )
    names = [name for name, is_same in zip(tensors, _are_equal(digests)) if not is_same]
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise PasslError(
            f"{len(names)} of {len(digests)} tensors are not the same on all {world.size} "
            f"processes: {', '.join(names[:3])}{more}. {advice}"
        )


def sum_over_ranks(values: np.ndarray, world: World) -> np.ndarray:
    """The element-wise sum of a small float64 array over all ranks.

    Args:
        values: float64, the same shape on every rank.
        world: this process among all.
    """
    return _sum(np.asarray(values, dtype=np.float64), world)


def sum_integers(values: np.ndarray, world: World) -> np.ndarray:
    """The element-wise, exact sum of a small int64 array over all ranks.

    Args:
        values: int64, the same shape on every rank.
        world: this process among all.
    """
    return _sum(np.asarray(values, dtype=np.int64), world)


def all_ranks_have(number: int, world: World) -> bool:
    """Whether ``number`` is the same on every rank; all ranks get the same answer.

    Args:
        number: any of 63 bits; such as a step, or digits of a hash.
        world: this process among all.
    """
    return not world.is_distributed or bool(_are_equal([number])[0])


def _are_equal(numbers: Sequence[int]) -> np.ndarray:
    """Which of ``numbers``, of 63 bits, are the same on all ranks; all get the same answer."""
    own = np.array(numbers, dtype=np.int64)
    # One maximum finds both ends: the lowest is minus the highest of the negatives.
    ends = paddle.to_tensor(np.stack([own, -own]))
    with talking("digests"):
        paddle.distributed.all_reduce(ends, op=paddle.distributed.ReduceOp.MAX)
    highest, minus_lowest = ends.numpy()
    return highest == -minus_lowest


def _sum(values: np.ndarray, world: World) -> np.ndarray:
    if not world.is_distributed:
        return values
    tensor = paddle.to_tensor(values)
    with talking("sums"):
        paddle.distributed.all_reduce(tensor)
        return tensor.numpy()


def _digest(data: Any) -> int:
    """63 bits of a hash of bytes or a contiguous array."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") >> 1


@contextmanager
def _signals_end() -> Iterator[None]:
    """Let SIGTERM, Ctrl-C and a closed terminal end the process at once.

    While Paddle waits for the others no handler of Python runs, so a process whose peer died before
    it came would ignore the launcher, which kills only after 30 s, or a person, and wait on unseen.
    There is nothing to save yet.  What is ignored, as ``nohup`` has SIGHUP, stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            # None: not installed from Python, so Python cannot put it back.
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

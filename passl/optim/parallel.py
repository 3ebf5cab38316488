"""Running one-tensor CPU kernels on several tensors at once.

Most of Paddle's elementwise CPU kernels use one thread.  They release Python's lock, so handing
different tensors to different threads uses the other cores; each tensor is still computed by one
kernel, and the result does not depend on the number of threads.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, TypeVar

import paddle

__all__ = ["map_tensors", "on_cpu", "on_gpu"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

#: Below this many numbers the hand-over to threads costs more than it saves (about 0.1 ms).
_WORTH_IT = 1_000_000


def on_cpu() -> bool:
    """Whether Paddle computes on the CPU now."""
    return str(paddle.device.get_device()).startswith("cpu")


def on_gpu() -> bool:
    """Whether Paddle computes on a GPU (CUDA or ROCm) now."""
    return str(paddle.device.get_device()).startswith("gpu")


def map_tensors(
    work: Callable[[_Item], _Result], items: Sequence[_Item], sizes: Sequence[int]
) -> list[_Result]:
    """``[work(item) for item in items]``, on several threads where that helps.

    Args:
        work: runs Paddle kernels on one tensor; called under ``no_grad``.
        items: what to work on.
        sizes: numbers in each item, to share the work out evenly.
    """
    threads = _num_threads()
    if threads == 1 or sum(sizes) < _WORTH_IT or not on_cpu():
        with paddle.no_grad():
            return [work(item) for item in items]
    results: list[_Result] = [None] * len(items)  # type: ignore[list-item]

    def run(share: list[int]) -> None:
        with paddle.no_grad():  # a thread has its own switch
            for index in share:
                results[index] = work(items[index])

    list(_pool(os.getpid(), threads).map(run, _shares(sizes, threads)))
    return results


def _shares(sizes: Sequence[int], count: int) -> list[list[int]]:
    """Indices dealt to ``count`` shares, the biggest first, each to the lightest share."""
    shares: list[list[int]] = [[] for _ in range(count)]
    loads = [0] * count
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        lightest = loads.index(min(loads))
        shares[lightest].append(index)
        loads[lightest] += sizes[index]
    return [share for share in shares if share]


def _num_threads() -> int:
    """What Paddle's own threaded kernels use: OMP_NUM_THREADS, within what this process may use."""
    try:
        wanted = int(os.environ.get("OMP_NUM_THREADS", "1").split(",")[0])  # "4,2": nested
    except ValueError:
        return 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else wanted
    return max(1, min(wanted, allowed))


@functools.lru_cache(maxsize=2)
def _pool(pid: int, threads: int) -> ThreadPoolExecutor:
    """One pool a process: threads do not survive a fork, hence ``pid`` in the key."""
    return ThreadPoolExecutor(threads, thread_name_prefix=f"passl-optim-{pid}")

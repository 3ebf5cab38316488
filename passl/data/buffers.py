"""Memory of batches that are done with, for batches to come.

A batch of images is tens of megabytes.  As fresh memory it comes page by page from the system,
zeroed, while samples are written to it, which can take as long as decoding them; and goes back when
the batch is done with.  Here it is kept for the next batch, once nobody holds the array any more.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import weakref
from collections import deque

import numpy as np

__all__ = ["BufferPool"]


class BufferPool:
    """Hands out arrays; memory of those that nobody refers to is handed out again.

    Safe to use from several threads.  Slices and other views of an array keep its memory, as ever.

    Args:
        most: pieces of memory that are kept at a time.
    """

    def __init__(self, most: int) -> None:
        self._free: deque[mmap.mmap] = deque(maxlen=max(1, most))

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array with anything in it, as ``numpy.empty`` gives."""
        size = math.prod(shape) * dtype.itemsize
        if not size:
            return np.empty(shape, dtype)
        memory = self._take(size)
        # Not an array's view: a view of a view would refer to the first array and not to this.
        owner = np.frombuffer(memory, dtype, math.prod(shape))
        weakref.finalize(owner, self._free.append, memory).atexit = False
        return owner.reshape(shape)

    def clear(self) -> None:
        """Free what is not in use."""
        self._free.clear()

    def _take(self, size: int) -> mmap.mmap:
        while True:
            try:
                memory = self._free.popleft()
            except IndexError:
                break
            if len(memory) >= size:
                return memory
        memory = mmap.mmap(-1, size)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # a kernel without them
                memory.madvise(mmap.MADV_HUGEPAGE)
        return memory

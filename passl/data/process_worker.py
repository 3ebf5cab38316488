"""The program of worker processes: what makes samples on the other side of a socket.

It is started anew, not forked from the training process, so it holds neither Paddle nor threads nor
locks of it.  One *keeper* receives the data set, imports what it needs, and forks the workers,
which so share one copy of it.  It keeps no Paddle, runs nothing of the user's after that, tells the
training process how each worker ended, and ends all of them when that process is gone:

- the keeper leads a process group of its own, so Ctrl-C at the terminal does not reach the workers,
  and one signal ends them all;
- its control socket ends with the training process, however that ends; the kernel kills the keeper
  with the training process as well, and each worker with the keeper (``PR_SET_PDEATHSIG``).

Images come back in anonymous memory (``memfd_create``): no file in /dev/shm is ever made, so none
can be left behind and its size does not matter.  :mod:`passl.data.processes` is the other side.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import json
import mmap
import os
import pickle
import select
import signal
import socket
import struct
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from passl.data.faults import FetchedSample, SampleFetcher, is_out_of_memory, root_of
from passl.errors import DataError
from passl.runtime import keep_image_blocks

__all__ = ["MAX_MESSAGE", "REQUEST", "serve"]

#: A request: epoch, index and repeat.
REQUEST = struct.Struct("<qqq")
#: Bytes of the longest reply; images are not part of it.
MAX_MESSAGE = 1 << 18

_LONGEST_TEXT = 3000  # of one text; they all must fit into a message, however they are escaped
_ALIGN = 64  # bytes, of arrays in shared memory
_POLL_S = 0.1
_PR_SET_PDEATHSIG = 1  # Source: prctl(2)
_PREFERRED_VICTIM = "500"  # of the kernel, when memory runs out; Source: proc(5), oom_score_adj


def serve(
    parent: Optional[int], control: int, payload: int, workers: Sequence[tuple[int, int]]
) -> None:
    """Run the keeper; never returns normally before the training process is gone.

    Args:
        parent: the training process; None: do not ask the kernel to be killed with it.
        control: a socket, on which lines of JSON say what happens.
        payload: a file with a pickled :class:`SampleFetcher`, from the training process.
        workers: of each, its socket and the file for its stack.
    """
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if parent is not None:
        _die_with(parent)
    keep_image_blocks()
    channel = socket.socket(fileno=control)
    try:
        fetcher = _received(payload)
    except BaseException as error:
        _tell(channel, {"error": f"{type(error).__name__}: {error}"[:_LONGEST_TEXT]})
        raise SystemExit(1) from None
    gc.freeze()  # the workers' collector leaves what they share untouched, and so shared
    pids: dict[int, int] = {}
    for number in range(len(workers)):
        pid = os.fork()
        if pid == 0:
            channel.close()
            _be_worker(fetcher, number, workers)
        pids[pid] = number
    for sock, stack in workers:
        os.close(sock)
        os.close(stack)
    _tell(channel, {"pids": list(pids)})
    _watch(channel, pids)


def _watch(channel: socket.socket, pids: dict[int, int]) -> None:
    """Report the end of each worker, until the training process is gone; then end them all."""
    while True:
        readable, _, _ = select.select([channel], [], [], _POLL_S)
        if readable and _is_closed(channel):
            os.killpg(os.getpgrp(), signal.SIGKILL)
        while pids:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            _tell(channel, {"worker": pids.pop(pid), "status": status})


def _is_closed(channel: socket.socket) -> bool:
    try:
        return not channel.recv(1)
    except OSError:  # it was closed before all that we told was read
        return True


def _tell(channel: socket.socket, what: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more: the next look at it ends this
        channel.sendall(json.dumps(what).encode() + b"\n")


def _received(payload: int) -> SampleFetcher:
    from passl.data.images import opencv

    with os.fdopen(payload, "rb") as file:
        fetcher: SampleFetcher = pickle.load(file)  # noqa: S301  written by the parent process
    opencv()  # imported once, here, for all workers
    return fetcher


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before that was asked for
        os._exit(1)


def _be_worker(fetcher: SampleFetcher, number: int, workers: Sequence[tuple[int, int]]) -> None:
    """What a worker does, from its first moment to its last."""
    try:
        _die_with(os.getpgrp())  # the keeper leads the group, which has its number
        for other, (sock, stack) in enumerate(workers):
            if other != number:
                os.close(sock)
                os.close(stack)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(_PREFERRED_VICTIM, encoding="ascii")
        sock, stack = workers[number]
        faulthandler.register(signal.SIGUSR1, file=stack, all_threads=False)
        _answer(fetcher, socket.socket(fileno=sock))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _answer(fetcher: SampleFetcher, sock: socket.socket) -> None:
    """Make what is asked for, until nobody is left to ask."""
    room = _Room()
    while True:
        request = sock.recv(REQUEST.size)
        if not request:
            return
        descriptors: list[int] = []
        try:
            sample = fetcher.fetch(*REQUEST.unpack(request))
            reply, descriptors = room.put(sample)
            message = json.dumps(reply)
        except BaseException as error:  # also SystemExit: it is told, and the worker stays
            message = json.dumps({"error": _described(error)})
        socket.send_fds(sock, [message.encode()], descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


class _Room:
    """Anonymous shared memory for one image at a time, and behind it its label, if an array."""

    def __init__(self) -> None:
        self._memory: Optional[mmap.mmap] = None

    def put(self, sample: FetchedSample) -> tuple[dict[str, Any], list[int]]:
        """What to reply; with it goes a new file where the memory had to grow."""
        arrays, label = [sample.image], sample.label
        if isinstance(label, (np.ndarray, np.generic)):
            arrays, label = [*arrays, np.asarray(label)], 0
        for array in arrays:
            if array.dtype.hasobject:
                raise DataError(f"sample {sample.index} holds objects of Python, not numbers")
        places, end = [], 0
        for array in arrays:
            places.append(end)
            end += -(-array.nbytes // _ALIGN) * _ALIGN
        descriptors = []
        if self._memory is None or len(self._memory) < end:
            descriptors.append(self._grow(end))
        for array, at in zip(arrays, places):
            target = np.frombuffer(self._memory, array.dtype, array.size, at)  # type: ignore[arg-type]
            np.copyto(target.reshape(array.shape), array)
        reply = {
            "arrays": [[a.dtype.str, a.shape, at] for a, at in zip(arrays, places)],
            "label": label,
            "index": sample.index,
            "bad": [[bad.index, bad.path, bad.reason[: _LONGEST_TEXT // 10]] for bad in sample.bad],
        }
        return reply, descriptors

    def _grow(self, size: int) -> int:
        descriptor = os.memfd_create("passl-data")
        try:
            # Now, as an error that can be told: a page that is missing later would be a SIGBUS.
            os.posix_fallocate(descriptor, 0, max(size, mmap.PAGESIZE))
            self._memory = mmap.mmap(descriptor, max(size, mmap.PAGESIZE))
        except OSError as error:
            os.close(descriptor)
            raise MemoryError(f"{size} bytes of shared memory for an image: {error}") from error
        return descriptor


def _described(error: BaseException) -> dict[str, str]:
    root = root_of(error)
    kind = "error" if isinstance(error, Exception) else "end"
    return {
        "kind": "memory" if is_out_of_memory(error) else kind,
        "text": str(error)[:_LONGEST_TEXT],
        "type": type(error).__name__,
        "root": str(root)[:_LONGEST_TEXT],
        "trace": "".join(traceback.format_exception(type(error), error, error.__traceback__))[
            -_LONGEST_TEXT:
        ],
    }

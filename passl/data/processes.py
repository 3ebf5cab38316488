"""Worker processes that make samples: the side of the training process.

For transforms that hold Python's lock, where threads would take turns.  A thread of the loader
stands in for each process: it asks for one sample at a time and waits, without holding the lock.
So order, substitutes, errors and time limits are the ones of threads, and batches are equal to the
last bit.  :mod:`passl.data.process_worker` is the other side, and says how they live and die.
"""

from __future__ import annotations

import contextlib
import copyreg
import json
import mmap
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from passl.data.faults import BadSample, FetchedSample, SampleFetcher
from passl.data.memory import available_memory, gib
from passl.data.process_worker import MAX_MESSAGE, REQUEST
from passl.data.watch import EndedWorker, WorkerError
from passl.errors import ConfigError, DataError
from passl.installed import python_for

__all__ = ["ProcessPool", "wants_processes"]

_BOOT = (
    "import json; given = json.loads(sys.argv[1]); sys.path[:] = given.pop('path'); "
    "from passl.data.process_worker import serve; serve(**given)"
)
_END_S = 5.0  # to hear how a worker ended; the keeper looks ten times a second
_STACK_S = 5.0  # to get a stack, from a process that may wait for a processor
_FRAME = re.compile(r'File "(.*)", line (\d+) in (.*)')
_STATES = {"T": "stopped by a signal (SIGSTOP)", "D": "waiting for a disk or a network disk"}


def wants_processes(workers: Optional[str], num_workers: int, parts: list[Any]) -> bool:
    """Whether samples are to be made by processes.

    Args:
        workers: ``threads``, ``processes``, or None: processes if a part says ``holds_lock``.
        num_workers: 0: neither.
        parts: the data set and its transforms.

    Raises:
        ConfigError: the system has no such processes.
    """
    if workers is None:
        wanted = any(getattr(part, "holds_lock", False) for part in parts)
        return wanted and num_workers > 0 and sys.platform == "linux"
    if workers == "processes" and sys.platform != "linux":
        raise ConfigError("loader.workers: processes needs Linux; set loader.workers=threads")
    return workers == "processes" and num_workers > 0


class ProcessPool:
    """Processes that make samples, alive until ``close``, the end of this process, or collection.

    Args:
        fetcher: what makes samples; sent to the processes.
        num_workers: how many.

    Raises:
        ConfigError: the data set cannot be sent.
        OSError: the processes cannot be started.
    """

    def __init__(self, fetcher: SampleFetcher, num_workers: int) -> None:
        payload = _pickled(fetcher)
        control, theirs = socket.socketpair()
        pairs = [socket.socketpair(type=socket.SOCK_SEQPACKET) for _ in range(num_workers)]
        self._stacks = [os.memfd_create("passl-stack") for _ in range(num_workers)]
        in_main_thread = threading.current_thread() is threading.main_thread()
        ends = [(pair[1].fileno(), stack) for pair, stack in zip(pairs, self._stacks)]
        given: dict[str, Any] = {
            "path": sys.path,
            # The kernel would kill them with the thread that started them.
            "parent": os.getpid() if in_main_thread else None,
            "control": theirs.fileno(),
            "payload": payload,
            "workers": ends,
        }
        inherited = [theirs.fileno(), payload, *(number for end in ends for number in end)]
        try:
            keeper = subprocess.Popen(  # noqa: S603  this very interpreter
                [*python_for(_BOOT), json.dumps(given)],
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
                env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **os.environ},
            )
        except BaseException:
            for sock in (control, *(pair[0] for pair in pairs)):
                sock.close()
            for stack in self._stacks:
                os.close(stack)
            raise
        finally:
            theirs.close()
            os.close(payload)
            for pair in pairs:
                pair[1].close()
        self._control, self._sockets = control, [pair[0] for pair in pairs]
        self._locks = [threading.Lock() for _ in pairs]
        self._rooms: list[Optional[mmap.mmap]] = [None] * num_workers
        self._told = _Told(control)
        self.close = weakref.finalize(self, _end, keeper, control, self._sockets, self._stacks)

    def wait_until_ready(self, timeout_s: float) -> None:
        """Wait until the workers have the data set.

        Args:
            timeout_s: how long; 0: for ever.

        Raises:
            ConfigError: they cannot use it.
            WorkerError: they take longer.
        """
        self._told.wait_for("pids", timeout_s or None)
        if self._told.error is None and not self._told.pids:
            raise WorkerError(
                f"the worker processes did not get ready within {timeout_s:g} s "
                "(loader.timeout_s); does Python or the data lie on a network disk that hangs? If "
                "starting may take that long, raise loader.timeout_s"
            )
        if self._told.error is not None:
            raise ConfigError(
                f"worker processes cannot use the data set: {self._told.error}. They import its "
                "class and those of its transforms by name, so these must stand in a module "
                "(Global.imports), not in the program that is run; or set loader.workers=threads"
            )

    def pid(self, worker: int) -> int:
        """Process number of a worker."""
        return self._told.pids[worker]

    def fetch(self, worker: int, epoch: int, index: int, repeat: int) -> FetchedSample:
        """Have ``worker`` make a sample; the rest as :meth:`SampleFetcher.fetch`.

        Raises:
            DataError: the sample cannot be used.
            EndedWorker: the process has ended.
        """
        with self._locks[worker]:
            try:
                sock = self._sockets[worker]
                sock.sendall(REQUEST.pack(epoch, index, repeat))
                message, descriptors, _, _ = socket.recv_fds(sock, MAX_MESSAGE, 1)
            except OSError:
                message, descriptors = b"", []
            if not message:
                raise EndedWorker(*self._ending(worker))
            for descriptor in descriptors:
                self._rooms[worker] = mmap.mmap(descriptor, 0)
                os.close(descriptor)
            return _sample(json.loads(message), self._rooms[worker])

    def stack_of(self, worker: int) -> str:
        """Where a process is in its program: ``in file.py line 12, in read``, or nothing."""
        pid = self.pid(worker)
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")[2][0]
            if state in _STATES:
                return _STATES[state]
            os.kill(pid, signal.SIGUSR1)
        except (OSError, IndexError):
            return ""
        deadline = time.monotonic() + _STACK_S
        while time.monotonic() < deadline:
            found = _FRAME.search(os.pread(self._stacks[worker], MAX_MESSAGE, 0).decode())
            if found is not None:
                return f"in {found[1]} line {found[2]}, in {found[3]}"
            time.sleep(0.02)
        return ""

    def _ending(self, worker: int) -> tuple[str, str]:
        """How a worker ended, and what to do about it."""
        self._told.wait_for(worker, _END_S)
        status = self._told.endings.get(worker)
        if status is None:
            return "ended, as did the process that keeps the workers", _AGAIN
        if not os.WIFSIGNALED(status):
            return f"ended with status {os.WEXITSTATUS(status)}", _AGAIN
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name
        if number in (signal.SIGKILL, signal.SIGBUS):
            free = available_memory()
            now = f" ({gib(free)} are free now)" if free is not None else ""
            return f"was killed by {name}", (
                f"If nobody sent it, memory ran out{now}; the kernel's log (dmesg) tells. Lower "
                "loader.num_workers, loader.prefetch_batches or the batch size, or raise the "
                "container's memory limit; /dev/shm is not used. The same command continues from "
                "the last checkpoint"
            )
        return f"was killed by {name}", _AGAIN


_AGAIN = (
    "No worker is started in its place. Look at these samples with loader.num_workers=0, or run "
    "the same command again to continue from the last checkpoint"
)


class _Told:
    """What the keeper has said."""

    def __init__(self, control: socket.socket) -> None:
        self._control, self._lock, self._rest = control, threading.Lock(), b""
        self.pids: list[int] = []
        self.endings: dict[int, int] = {}
        self.error: Optional[str] = None

    def wait_for(self, what: Any, seconds: Optional[float]) -> None:
        """Listen until ``pids`` or the end of a worker was told, or the keeper is gone."""
        with self._lock:
            deadline = None if seconds is None else time.monotonic() + seconds
            while not (self.pids if what == "pids" else what in self.endings):
                if self.error is not None:
                    return
                left = None if deadline is None else max(0.001, deadline - time.monotonic())
                try:
                    self._control.settimeout(left)
                    heard = self._control.recv(MAX_MESSAGE)
                except OSError:  # the time is over
                    return
                if not heard:
                    self.error = self.error or "the process that keeps the workers has ended"
                self._take(heard)

    def _take(self, heard: bytes) -> None:
        *lines, self._rest = (self._rest + heard).split(b"\n")
        for line in lines:
            said = json.loads(line)
            self.pids = said.get("pids", self.pids)
            self.error = said.get("error", self.error)
            if "worker" in said:
                self.endings[said["worker"]] = said["status"]


class _InWorker(Exception):
    """The traceback of a worker process, to be shown with the error."""

    def __str__(self) -> str:
        return f"in a worker process:\n{self.args[0]}"


def _sample(reply: dict[str, Any], room: Optional[mmap.mmap]) -> FetchedSample:
    if "error" in reply:
        said = reply["error"]
        if said["kind"] == "memory":
            raise DataError(said["text"]) from MemoryError(said["root"])
        if said["kind"] == "end":
            raise SystemExit(said["text"])
        raise DataError(said["text"]) from _InWorker(said["trace"])
    arrays = [_copied(room, *place) for place in reply["arrays"]]
    label = arrays[1][()] if len(arrays) > 1 else reply["label"]
    bad = tuple(BadSample(*item) for item in reply["bad"])
    return FetchedSample(arrays[0], label, reply["index"], bad)


def _copied(room: Optional[mmap.mmap], dtype: str, shape: Sequence[int], at: int) -> np.ndarray:
    """An array from the shared memory; a copy, as the next sample comes to the same place."""
    count = int(np.prod(shape, dtype=np.int64))
    return np.frombuffer(room, dtype, count, at).reshape(shape).copy()  # type: ignore[arg-type]


class _Pickler(pickle.Pickler):
    """Sends arrays that are mapped from a file as the name of the file."""

    dispatch_table = copyreg.dispatch_table.copy()

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.memmap) and isinstance(obj.base, mmap.mmap) and obj.mode == "r":
            return np.memmap, (obj.filename, obj.dtype, "r", obj.offset, obj.shape)
        return NotImplemented


def _pickled(fetcher: SampleFetcher) -> int:
    """A file in memory with the pickled fetcher, at its beginning."""
    descriptor = os.memfd_create("passl-dataset")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(fetcher)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        os.close(descriptor)
        raise ConfigError(
            f"the data set cannot be sent to worker processes ({error}); its class and those of "
            "its transforms must stand in a module and hold nothing like an open file, a lock or "
            "a lambda; or set loader.workers=threads"
        ) from error
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _end(
    keeper: subprocess.Popen[bytes],
    control: socket.socket,
    sockets: list[socket.socket],
    stacks: list[int],
) -> None:
    """End all processes and whoever waits for them; their group has the keeper's number."""
    for sock in (control, *sockets):
        with contextlib.suppress(OSError):  # the other side is gone
            sock.shutdown(socket.SHUT_RDWR)  # wakes threads that wait for it
        sock.close()
    for descriptor in stacks:
        os.close(descriptor)
    try:
        os.killpg(keeper.pid, signal.SIGKILL)  # the number is not reused before wait()
    except OSError:  # it has not come as far as leading a group
        keeper.kill()
    keeper.wait()

"""What each worker of a loader is doing, so that a dead or stuck one is reported, not waited for.

Workers are numbers here: they may be threads or processes.  They say which sample they begin; the
one who waits for a batch says how long it has been waiting, and gets a sentence if that was for a
single sample.  Only time spent waiting counts, in small portions, so a process that was stopped
for a night (SIGSTOP, a suspended machine) raises no alarm in the morning.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Callable, Optional, Union

from passl.data.faults import is_out_of_memory
from passl.data.memory import available_memory, gib
from passl.errors import DataError

__all__ = ["CALLER", "EndedWorker", "WorkerError", "WorkerWatch", "thread_stack"]

#: The number of the "worker" that is the caller's own thread (``num_workers: 0``).
CALLER = -1

_LAST_SAMPLES = 3
_POLL_S = 1.0


class WorkerError(DataError):
    """A data worker that died, ran out of memory or is stuck."""


class EndedWorker(DataError):
    """A worker process that is no more; :meth:`WorkerWatch.explain` makes a sentence of it.

    Args:
        cause: what happened to it, such as ``was killed by SIGKILL``.
        advice: what to do.
    """

    def __init__(self, cause: str, advice: str) -> None:
        super().__init__(cause)
        self.cause, self.advice = cause, advice


@dataclass
class _Slot:
    """One worker: what it does now, and what it did before."""

    serial: int = 0
    doing: Optional[Union[int, str]] = None
    recent: deque[int] = field(default_factory=lambda: deque(maxlen=_LAST_SAMPLES))


class WorkerWatch:
    """Watches the workers of one epoch.

    Args:
        rank: of this process.
        num_workers: how many there are, numbered from 0.
        timeout_s: seconds that a caller waits for a single sample; 0 waits forever.
        path_of: path of a sample.
        name_of: what a worker is, for messages.
    """

    def __init__(
        self,
        rank: int,
        num_workers: int,
        timeout_s: float,
        path_of: Callable[[int], str],
        name_of: Callable[[int], str] = "thread passl-data-{}".format,
    ) -> None:
        self._rank, self._timeout_s, self._path_of = rank, timeout_s, path_of
        self.name_of = name_of
        self._slots = {number: _Slot() for number in range(CALLER, num_workers)}
        self._deaths: dict[int, BaseException] = {}

    # -- said by the workers -----------------------------------------------------------------

    def begin(self, worker: int, task: Union[int, str]) -> None:
        """``worker`` begins to make a sample (its index), or something else (its name)."""
        slot = self._slots[worker]
        slot.serial += 1
        slot.doing = task

    def end(self, worker: int) -> None:
        """``worker`` has finished it."""
        slot = self._slots[worker]
        if isinstance(slot.doing, int):
            slot.recent.append(slot.doing)
        slot.doing = None

    def died(self, worker: int, error: BaseException) -> None:
        """``worker`` has ended by ``error``."""
        self._deaths[worker] = error

    # -- asked by whoever waits --------------------------------------------------------------

    def wait(
        self,
        finished: threading.Event,
        dead: Callable[[], list[int]],
        stack_of: Callable[[int], str] = lambda _: "",
    ) -> None:
        """Wait until ``finished`` is set.

        Args:
            finished: set when the batch is there.
            dead: gives the numbers of the workers that have ended.
            stack_of: where a worker is in its program, for the message, or nothing.

        Raises:
            WorkerError: a worker has ended, or one has been at a single sample for too long.
        """
        poll_s = min(_POLL_S, self._timeout_s / 4) if self._timeout_s else _POLL_S
        waited: dict[tuple[int, int], float] = {}
        self._check_alive(dead())
        while not finished.wait(poll_s):
            self._check_alive(dead())
            if not self._timeout_s:
                continue
            for worker, slot in self._slots.items():
                if slot.doing is None or worker == CALLER:
                    continue
                key = (worker, slot.serial)
                waited[key] = waited.get(key, 0.0) + poll_s
                if waited[key] > self._timeout_s:
                    raise WorkerError(self._stuck(worker, stack_of(worker)))

    def explain(self, worker: int, error: BaseException) -> BaseException:
        """``error`` of a sample as it should be raised: what is not of the sample gets a sentence.

        An ordinary exception stays as it is, and so does what was raised in the caller's own thread
        and is not of the sample, such as KeyboardInterrupt.
        """
        if isinstance(error, EndedWorker):
            return self._caused(worker, error.cause, error.advice)
        if is_out_of_memory(error):
            return self._caused(worker, f"ran out of memory ({_name(error)})", _memory_advice())
        if isinstance(error, Exception):
            return error
        if worker == CALLER and not isinstance(error, SystemExit):
            return error
        return self._caused(
            worker,
            f"was ended by {_name(error)}",
            "A data set or transform must raise an ordinary exception, such as ValueError, and "
            "must not end the program",
        )

    # -- sentences ---------------------------------------------------------------------------

    def _check_alive(self, dead: list[int]) -> None:
        for worker in dead:
            error = self._deaths.get(worker)
            if error is not None and is_out_of_memory(error):
                raise self.explain(worker, error) from error
            cause = f"died ({_name(error)})" if error is not None else "died without an exception"
            raise self._caused(
                worker,
                cause,
                "No worker is started in its place, as samples of a batch are lost with it. Look "
                "at these samples with loader.num_workers=0, or run the same command again to "
                "continue from the last checkpoint",
            ) from error

    def _caused(self, worker: int, cause: str, advice: str) -> WorkerError:
        return WorkerError(f"{self._who(worker)} {cause}{self._samples(worker)}. {advice}")

    def _stuck(self, worker: int, stack: str) -> str:
        where = f", now {stack}" if stack else ""
        return (
            f"{self._who(worker)} is stuck: more than {self._timeout_s:g} s (loader.timeout_s)"
            f"{self._samples(worker)}{where}. Is the file on a network disk that hangs, or does a "
            "transform wait for something? If a sample may take that long, raise loader.timeout_s "
            "(0 waits forever); the run continues from its last checkpoint with the same command"
        )

    def _who(self, worker: int) -> str:
        if worker == CALLER:
            return f"rank {self._rank}: loading in the training thread (num_workers 0)"
        return f"rank {self._rank}: data worker {worker} ({self.name_of(worker)})"

    def _samples(self, worker: int) -> str:
        slot = self._slots[worker]
        now = f" while making {self._sample(slot.doing)}" if slot.doing is not None else ""
        before = ", ".join(self._sample(index) for index in reversed(slot.recent))
        return now + (f"; before it: {before}" if before else "")

    def _sample(self, task: Union[int, str]) -> str:
        return task if isinstance(task, str) else f"sample {task} ({self._path_of(task)})"


def thread_stack(ident: Optional[int]) -> str:
    """Where a thread of this process is: ``in file.py line 12, in read``, or nothing."""
    frame = sys._current_frames().get(ident) if ident is not None else None
    if frame is None:
        return ""
    code = frame.f_code
    return f"in {code.co_filename} line {frame.f_lineno}, in {code.co_name}"


def _name(error: BaseException) -> str:
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = str(cause)
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__


def _memory_advice() -> str:
    free = available_memory()
    now = f"{gib(free)} of memory are free now. " if free is not None else ""
    return (
        f"{now}Lower loader.num_workers, loader.prefetch_batches or the batch size, or make the "
        "images smaller before they are loaded"
    )

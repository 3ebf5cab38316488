"""A small pool of threads whose work is done in the order it was given.

The standard library's pool joins its threads only at the end of the interpreter and drops an
abandoned generator's work late; this one can be closed at any moment and leaves nothing behind.
"""

from __future__ import annotations

import queue
import threading
import time
import weakref
from typing import Callable, Optional

__all__ = ["ThreadPool"]

#: Called with the number of the thread that runs it.
_Task = Callable[[int], None]
_OnDeath = Callable[[int, BaseException], None]
_NAME = "passl-data"
_GRACE_S = 5.0  # what a running sample is given at the end; a stuck one is left to the daemon


class ThreadPool:
    """``num_threads`` daemon threads that run tasks; a task must not raise.

    A pool that is not closed is closed when it is collected, or at the end of the interpreter.

    Args:
        num_threads: how many.
        on_death: called in a thread that ends by an exception all the same, with its number.

    Raises:
        RuntimeError: the system gives no more threads; those that were started are ended.
    """

    def __init__(self, num_threads: int, on_death: Optional[_OnDeath] = None) -> None:
        tasks: queue.SimpleQueue[Optional[_Task]] = queue.SimpleQueue()
        stop = threading.Event()
        self._threads = [
            threading.Thread(
                target=_work, args=(tasks, stop, n, on_death), name=f"{_NAME}-{n}", daemon=True
            )
            for n in range(num_threads)
        ]
        self._tasks = tasks
        # The finalizer must not refer to the pool, nor must the threads, or it would never run.
        self._close = weakref.finalize(self, _finish, tasks, stop, self._threads)
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError:
            self.close()
            raise

    def submit(self, task: _Task) -> None:
        """Queue ``task``."""
        self._tasks.put(task)

    def dead(self) -> list[int]:
        """Numbers of the threads that have ended, which none does while the pool is open."""
        return [n for n, thread in enumerate(self._threads) if not thread.is_alive()]

    def idents(self) -> list[Optional[int]]:
        """Python's identifier of each thread, for looking at its stack."""
        return [thread.ident for thread in self._threads]

    def close(self) -> None:
        """Drop what is queued, wait a few seconds for what is running, end.

        A thread that is stuck in a sample is not waited for: it cannot be ended from outside, ends
        by itself if the sample ever does, and does not keep the process alive.
        """
        self._close()


def _work(
    tasks: queue.SimpleQueue[Optional[_Task]],
    stop: threading.Event,
    number: int,
    on_death: Optional[_OnDeath],
) -> None:
    try:
        while True:
            task = tasks.get()
            if task is None or stop.is_set():
                return
            task(number)
            del task  # do not keep the last batch alive while waiting for the next task
    except BaseException as error:  # handed over: whoever waits for the work must hear of it
        if on_death is not None:
            on_death(number, error)


def _finish(
    tasks: queue.SimpleQueue[Optional[_Task]],
    stop: threading.Event,
    threads: list[threading.Thread],
) -> None:
    stop.set()
    for _ in threads:
        tasks.put(None)
    deadline = time.monotonic() + _GRACE_S
    for thread in threads:
        if thread.is_alive() and thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))

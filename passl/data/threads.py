"""A small pool of threads whose work is done in the order it was given.

The standard library's pool joins its threads only at the end of the interpreter and drops an
abandoned generator's work late; this one can be closed at any moment and leaves nothing behind.
"""

from __future__ import annotations

import queue
import threading
import weakref
from typing import Callable, Optional

__all__ = ["ThreadPool"]

_Task = Callable[[], None]
_NAME = "passl-data"


class ThreadPool:
    """``num_threads`` daemon threads that run tasks; a task must not raise.

    A pool that is not closed is closed when it is collected, or at the end of the interpreter.
    """

    def __init__(self, num_threads: int) -> None:
        tasks: queue.SimpleQueue[Optional[_Task]] = queue.SimpleQueue()
        stop = threading.Event()
        threads = [
            threading.Thread(target=_work, args=(tasks, stop), name=f"{_NAME}-{n}", daemon=True)
            for n in range(num_threads)
        ]
        self._tasks = tasks
        # The finalizer must not refer to the pool, nor must the threads, or it would never run.
        self._close = weakref.finalize(self, _finish, tasks, stop, threads)
        for thread in threads:
            thread.start()

    def submit(self, task: _Task) -> None:
        """Queue ``task``."""
        self._tasks.put(task)

    def close(self) -> None:
        """Drop what is queued, wait for what is running (one sample a thread at most), end."""
        self._close()


def _work(tasks: queue.SimpleQueue[Optional[_Task]], stop: threading.Event) -> None:
    while True:
        task = tasks.get()
        if task is None or stop.is_set():
            return
        task()
        del task  # do not keep the last batch alive while waiting for the next task


def _finish(
    tasks: queue.SimpleQueue[Optional[_Task]],
    stop: threading.Event,
    threads: list[threading.Thread],
) -> None:
    stop.set()
    for _ in threads:
        tasks.put(None)
    for thread in threads:
        if thread.is_alive() and thread is not threading.current_thread():
            thread.join()

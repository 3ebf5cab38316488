"""Saving beside training: the loop hands over a copy, a thread writes it.

    loop     step 99 | step 100 | copy | step 101 | step 102 | ...
    thread                             | write, hash, fsync, rename, link, prune |

The copy is what the loop is held up for.  One write goes on at a time; what is due meanwhile waits
in memory, and a newer snapshot takes the place of a waiting one if it takes over all of its links.
So at most one snapshot waits that is only ``latest``, while one that is to be ``best`` keeps the
weights of its own step.

A write that fails is tried again where that can help, in files of their own: a file whose fsync
failed is never trusted.  Then it is given up with a sentence, training goes on, and the checkpoints
and links from before stay.  Only :meth:`Saver.finish`, the end of a run, insists.

A disk that neither writes nor fails, such as a network mount whose server is gone, blocks the
thread for as long as it likes.  Nothing can end that from here, but it is told.
"""

from __future__ import annotations

import errno
import math
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

from passl.checkpoint.store import CheckpointStore, Part
from passl.errors import CheckpointError
from passl.logs.logger import get_logger

__all__ = ["SaveResult", "Saver"]

#: Seconds between two tries of one write: long enough for a hiccup of a network file system, short
#: enough for the half minute that a scheduler leaves.
_PAUSES_S = (0.5, 2.0)
#: Seconds that a run which failed waits for its newest checkpoint.
_PATIENCE_S = 5.0
#: Seconds of one write, and of waiting for it at the end, between two warnings that it takes long.
_LONG_S = 300.0
_LONG_AT_END_S = 30.0
#: What may have gone away at the next try.
_PASSING = frozenset(
    getattr(errno, name)
    for name in ("EIO", "EAGAIN", "EINTR", "EBUSY", "ESTALE", "ETIMEDOUT", "EREMOTEIO", "ECOMM")
    if hasattr(errno, name)
)


@dataclass(frozen=True)
class _Snapshot:
    """What one checkpoint is to hold; nothing of it may change any more."""

    step: int
    parts: Mapping[str, Part]
    links: frozenset[str]
    scores: Mapping[str, float]


@dataclass(frozen=True)
class SaveResult:
    """How a write ended.

    Attributes:
        step: of the checkpoint.
        links: that lead to it, or should have.
        folder: of the checkpoint; None if it could not be written.
        error: why it could not.
        tries: how often it was tried.
        seconds: from the start of the first try to the end of the last.
    """

    step: int
    links: frozenset[str]
    folder: Optional[Path]
    error: Optional[Exception]
    tries: int
    seconds: float


class Saver:
    """Writes the checkpoints of a run in a thread of its own, one at a time.

    All methods are for one thread, that of the loop.  The thread of the writes ends when nothing is
    left to write, so none stays behind.

    Args:
        store: where they go.
        tell: hears of every write that ended, in the thread that calls these methods.
        in_background: False: :meth:`submit` waits for its write.
        pauses_s: seconds before each further try of a write that may succeed then.
    """

    def __init__(
        self,
        store: CheckpointStore,
        tell: Callable[[SaveResult], None],
        *,
        in_background: bool = True,
        pauses_s: Sequence[float] = _PAUSES_S,
    ) -> None:
        self._store, self._tell = store, tell
        self._in_background, self._pauses_s = in_background, tuple(pauses_s)
        self._lock = threading.Lock()
        #: The last one; it may be past its last write and not yet gone.
        self._thread: Optional[threading.Thread] = None
        self._is_at_work = False
        self._writing: Optional[_Snapshot] = None
        self._began_s = self._told_s = 0.0
        self._waiting: list[_Snapshot] = []
        self._results: list[SaveResult] = []
        self._newest: Optional[SaveResult] = None
        self._gives_up = threading.Event()
        #: Link -> value of the evaluation that the linked checkpoint was saved for.
        self.scores: dict[str, float] = {}

    def submit(
        self,
        step: int,
        parts: Mapping[str, Part],
        links: Iterable[str] = ("latest",),
        scores: Optional[Mapping[str, float]] = None,
    ) -> None:
        """Have one checkpoint written; returns at once unless the saver has no background.

        Args:
            step: number of optimizer steps done.
            parts: as of :meth:`CheckpointStore.save <passl.checkpoint.store.CheckpointStore.save>`,
                copies that nobody changes any more.
            links: names that are to lead to it.
            scores: link -> value of the evaluation that gives the checkpoint the link.
        """
        snapshot = _Snapshot(step, parts, frozenset(links), dict(scores or {}))
        with self._lock:
            self._waiting = [other for other in self._waiting if other.links - snapshot.links]
            self._waiting.append(snapshot)
            if not self._is_at_work:
                self._thread = threading.Thread(
                    target=self._write_all, name="passl-checkpoints", daemon=True
                )
                self._thread.start()
                self._is_at_work = True
        if not self._in_background:
            self._join()
        self.poll()

    def is_better(self, link: str, value: float) -> bool:
        """Whether ``value`` beats what ``link`` leads to, or will when all is written.

        A link that leads nowhere is beaten by anything but NaN.
        """
        with self._lock:
            under_way = [*self._waiting, *([self._writing] if self._writing else [])]
            scores = [self.scores, *(snapshot.scores for snapshot in under_way)]
        best = max((known[link] for known in scores if link in known), default=-math.inf)
        return value > best or (best == -math.inf and value == best)

    def poll(self) -> None:
        """Tell of the writes that ended.

        Raises:
            Exception: a write met a defect of the program, which no disk explains.
        """
        for result in self._ended():
            self._hear(result)
        self._tell_of_long_write(_LONG_S)

    def finish(self) -> None:
        """Wait for everything that is to be written; the newest checkpoint must be whole.

        Raises:
            CheckpointError: it could not be written; the ones before are as they were.
        """
        self._join()
        for result in self._ended():
            if result is not self._newest or result.error is None:
                self._hear(result)
        if self._newest is not None and self._newest.error is not None:
            raise self._newest.error

    def abandon(self, patience_s: float = _PATIENCE_S) -> None:
        """The run failed: wait a little for what is being written, and never raise.

        A write that takes longer goes on by itself as long as the process lives; one that is cut
        off was never visible.
        """
        limit = time.monotonic() + patience_s
        while self._is_at_work and time.monotonic() < limit:
            self._join(limit - time.monotonic())
        with self._lock:
            self._waiting.clear()
        self._gives_up.set()
        for result in self._ended():
            self._tell(result)

    # -- the thread of the loop ----------------------------------------------------------------

    def _join(self, timeout_s: Optional[float] = None) -> None:
        thread = self._thread
        if thread is None:
            return
        if timeout_s is not None:
            thread.join(timeout_s)
            return
        while thread.is_alive():
            thread.join(_LONG_AT_END_S)
            self._tell_of_long_write(_LONG_AT_END_S)

    def _tell_of_long_write(self, every_s: float) -> None:
        """A warning for every so many seconds that a write takes."""
        now = time.monotonic()
        with self._lock:
            writing = self._writing
            is_due = writing is not None and now - max(self._began_s, self._told_s) >= every_s
            if is_due:
                self._told_s = now
        if is_due and writing is not None:
            get_logger().warning(
                "the checkpoint of step %d has been written to %s for %.0f s and is not complete: "
                "the disk is slow or does not answer; those before it are kept",
                writing.step,
                self._store.folder,
                now - self._began_s,
            )

    def _ended(self) -> list[SaveResult]:
        with self._lock:
            results, self._results = self._results, []
        if results:
            self._newest = results[-1]
        return results

    def _hear(self, result: SaveResult) -> None:
        if result.error is not None and not isinstance(result.error, CheckpointError):
            raise result.error
        self._tell(result)

    # -- the thread of the writes --------------------------------------------------------------

    def _write_all(self) -> None:
        while True:
            with self._lock:
                self._writing = self._waiting.pop(0) if self._waiting else None
                if self._writing is None:
                    self._is_at_work = False
                    return
                snapshot = self._writing
                self._began_s = time.monotonic()
            result = self._write(snapshot)
            with self._lock:
                self._results.append(result)
                if result.folder is not None:
                    self.scores.update(snapshot.scores)

    def _write(self, snapshot: _Snapshot) -> SaveResult:
        began, tries = time.monotonic(), 0
        while True:
            folder, error = self._try(snapshot)
            tries += 1
            is_last = tries > len(self._pauses_s)
            if error is None or is_last or not _may_pass(error):
                break
            if self._gives_up.wait(self._pauses_s[tries - 1]):
                break
        seconds = time.monotonic() - began
        return SaveResult(snapshot.step, snapshot.links, folder, error, tries, seconds)

    def _try(self, snapshot: _Snapshot) -> tuple[Optional[Path], Optional[Exception]]:
        try:
            links = sorted(snapshot.links)
            return self._store.save(snapshot.step, snapshot.parts, links), None
        except MemoryError:
            return None, CheckpointError("cannot write checkpoint: no memory is left.")
        except Exception as error:  # a defect: raised again in the thread of the loop
            return None, error


def _may_pass(error: Exception) -> bool:
    cause = error.__cause__
    return isinstance(error, CheckpointError) and (
        isinstance(cause, OSError) and cause.errno in _PASSING
    )

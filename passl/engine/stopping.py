"""Stopping a run from outside, without losing anything: signals, a file, a limit of time.

A scheduler that takes a machine away, a person at the keyboard and a limit of wall time all end the
same way: the step that is running is finished, the state is saved, the command exits with status 75
and the next start of the same command goes on.  A signal only sets a flag; the loop looks at it
after every step and before every evaluation batch, and several ranks stop at the same place because
they ask each other there (:class:`~passl.distributed.agreement.Agreement`).

``paddle.distributed.launch`` sends SIGTERM three times within 0.4 s and SIGKILL after 30 s, so a
second signal never means "quit now".
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Callable, Optional

from passl.distributed.world import World
from passl.engine.faults.attempt import Attempt
from passl.errors import EXIT_STOPPED, PasslError
from passl.logs.terminal import is_terminal

if TYPE_CHECKING:
    from passl.distributed.agreement import Answer

__all__ = [
    "STOP_FILE",
    "STOP_SIGNALS",
    "RunStopped",
    "StopRequest",
    "StopWatch",
    "catching_signals",
    "dying_with_this_process",
    "heeded_signals",
    "holding_signals",
    "process_age_s",
    "stop_with_launcher",
]

#: A file of this name in the run's folder asks it to stop; it is removed when that is done.
STOP_FILE = "STOP"
#: Signals that ask a run to stop.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1  # Source: prctl(2)


class RunStopped(PasslError):
    """The run was asked to stop and did; what was trained is saved."""

    exit_code = EXIT_STOPPED


class StopRequest:
    """The wish that a run stops: set from a signal handler or any thread, as often as you like.

    Attributes:
        reason: the first wish in words, such as ``SIGTERM``; None while nobody asked.
        started_s: ``time.monotonic()`` from which ``Global.max_time`` counts.
    """

    def __init__(self, age_s: float = 0.0) -> None:
        self.reason: Optional[str] = None
        self.started_s = time.monotonic() - age_s

    def set(self, reason: str) -> None:
        """Ask the run to stop after the current step; only the first reason is kept."""
        if self.reason is None:
            self.reason = reason


class StopWatch:
    """Looks, at fixed places of the loop, whether the run is to stop; the same answer on all ranks.

    Args:
        request: the flag of the signals.
        world: this process among all.
        stop_file: the file that asks the run to stop; only the main process looks for it.
        max_time_s: seconds after ``request.started_s`` at which to stop.
        agree: maps the wishes of this rank, to stop and to save, to those of all; None: alone.
        attempt: where the progress is noted for a supervisor.
    """

    def __init__(
        self,
        request: Optional[StopRequest] = None,
        world: Optional[World] = None,
        *,
        stop_file: Optional[Path] = None,
        max_time_s: Optional[float] = None,
        agree: Optional[Callable[[bool, bool], Answer]] = None,
        attempt: Optional[Attempt] = None,
    ) -> None:
        self.request = request or StopRequest()
        self._world = world or World()
        self._stop_file = stop_file if self._world.is_main else None
        # Found even if the code of a user changes the working folder.
        self._stop_path = stop_file.absolute() if stop_file is not None else None
        self._max_time_s = max_time_s
        self._agree = agree
        self._save_is_due = False
        self.attempt = attempt or Attempt(None, self._world.rank)
        #: It was ``Global.max_time`` of this rank that asked first.
        self.is_out_of_time = False
        #: Why the run stops; None while it goes on.  Set by :meth:`poll`, on all ranks together.
        self.reason: Optional[str] = None

    def poll(self, save: bool = False) -> bool:
        """Whether the run is to stop here; every rank must ask equally often.

        Once true it stays true, without asking the other ranks again.

        Args:
            save: this rank wants a checkpoint: :meth:`take_save` tells all ranks of it together.
        """
        if self.reason is None:
            self._look()
            stop = self.request.reason is not None
            if self._agree is None:
                rank, agreed = (self._world.rank if stop else None), save
            else:
                answer = self._agree(stop, save)
                rank, agreed = answer.stop, answer.save
            self._save_is_due = self._save_is_due or agreed
            if rank is not None:
                asked = self.request.reason or f"process {rank}, which was asked to"
                self.reason = asked
        return self.reason is not None

    def take_save(self) -> bool:
        """Whether a checkpoint was asked for since the last call; the same on all ranks."""
        due, self._save_is_due = self._save_is_due, False
        return due

    def remove_file(self) -> None:
        """Remove the file that asked to stop: the wish is honoured, or nothing is left to stop."""
        if self._stop_file and self._stop_path:
            with suppress(OSError):  # not there, or a read-only folder: nothing to be done about it
                self._stop_path.unlink()

    def _look(self) -> None:
        if self._stop_file and self._stop_path and self._stop_path.exists():
            self.request.set(f"the file {self._stop_file}")
        if (
            self._max_time_s is not None
            and time.monotonic() - self.request.started_s >= self._max_time_s
        ):
            self.is_out_of_time = self.is_out_of_time or self.request.reason is None
            self.request.set(f"Global.max_time ({self._max_time_s:g} s)")


@contextmanager
def catching_signals(request: StopRequest, *, ends_process: bool = False) -> Iterator[bool]:
    """Let :data:`STOP_SIGNALS` set ``request`` instead of ending the process.

    Outside the main thread Python allows no handlers, and nothing is done.  A SIGHUP that is
    ignored, as ``nohup`` has it, stays ignored.

    Args:
        request: what to set.
        ends_process: the process ends right after: the signals are ignored from then on, so that
            the repetitions of a launcher cannot turn a saved run into a killed one.  Otherwise the
            handlers from before come back.

    Yields:
        Whether the handlers are in place.
    """
    if threading.current_thread() is not threading.main_thread():
        yield False
        return

    on_screen = is_terminal(sys.stderr)

    def handle(number: int, _frame: Optional[FrameType]) -> None:
        if request.reason is None:
            name = signal.Signals(number).name
            request.set(name)
            # Not through logging or sys.stderr: a handler may interrupt them while they hold locks.
            with suppress(OSError):
                # A terminal shows ^C, and maybe a live line, where this is to stand.
                start = "\r\033[K" if on_screen else ""
                text = f"{start}{name}: stopping at the next step or batch\n"
                os.write(2, text.encode())

    before = {number: signal.signal(number, handle) for number in heeded_signals()}
    try:
        yield True
    finally:
        for number, handler in before.items():
            # None: not installed from Python, so Python cannot put it back.
            signal.signal(number, signal.SIG_IGN if ends_process else handler or signal.SIG_DFL)


def heeded_signals() -> list[signal.Signals]:
    """:data:`STOP_SIGNALS`, without SIGHUP where ``nohup`` has it ignored."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in STOP_SIGNALS if number != signal.SIGHUP or not ignored]


def dying_with_this_process() -> Optional[Callable[[], None]]:
    """What a child does before anything else (``preexec_fn``), so that it stops with this process.

    SIGKILL to this process sends SIGTERM to the child then.  None where the system cannot.
    """
    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, TypeError, AttributeError):  # not Linux
        return None
    return functools.partial(_stop_with, os.getpid(), prctl)


def _stop_with(parent: int, prctl: Callable[..., object]) -> None:
    """Have SIGTERM sent to this process when its parent dies, or now if that is dead."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def stop_with_launcher() -> None:
    """If Paddle's launcher started this process, have SIGTERM sent when that dies, in any way.

    The launcher gives each process a session of its own: neither a closed terminal nor SIGKILL to
    the launcher reaches them, and they would go on, unseen, with the devices and the run's folder.
    """
    parent = os.getppid()
    try:
        command = Path(f"/proc/{parent}/cmdline").read_bytes()
        if b"paddle.distributed.launch" not in command and b"fleetrun" not in command:
            return
        prctl = ctypes.CDLL(None).prctl
    except (OSError, TypeError, AttributeError):  # not Linux
        return
    _stop_with(parent, prctl)


@contextmanager
def holding_signals() -> Iterator[None]:
    """Hold :data:`STOP_SIGNALS` back, then see to it that Python's handlers are the ones in force.

    For the import of Paddle, whose C++ puts a handler of its own over that of SIGTERM: it prints a
    traceback and ends the process.  What arrives meanwhile is delivered at the end.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(
        signal, "pthread_sigmask"
    ):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        for number in STOP_SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def process_age_s() -> float:
    """Seconds since this process started; 0 where the system does not tell.

    Source: proc(5), ``/proc/pid/stat`` field 22: the start in clock ticks since boot.
    """
    try:
        # The name of the command, in brackets, may contain spaces.
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    except (OSError, ValueError, IndexError, AttributeError):  # not Linux
        return 0.0

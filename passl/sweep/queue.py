"""Training the runs of a sweep on this machine, as many at a time as there are places for.

Each run is a ``passl-train`` of its own, so that one which fails, or dies, disturbs no other.  A
stop is passed on: the runs save and end with 75, nothing is started after it, and the next start
of the sweep goes on with them.  Where the sweep itself is killed, the kernel stops the runs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional, Protocol

from passl.engine.faults.attempt import ATTEMPT_VARIABLE
from passl.engine.stopping import STOP_FILE, StopRequest, dying_with_this_process
from passl.errors import EXIT_FAILED, EXIT_OK, EXIT_STOPPED
from passl.sweep.records import Record, begin_start, end_start, train_command

__all__ = ["Listener", "Place", "exit_status", "run_queue"]


@dataclass(frozen=True)
class Place:
    """Where one run at a time can be trained.

    Attributes:
        name: such as ``device 0``; empty where there is only one.
        environment: variables that its runs get.
    """

    name: str
    environment: Mapping[str, str]


class Listener(Protocol):
    """Told what happens, from the thread that runs the queue."""

    def started(self, record: Record, place: Place) -> None:
        """A run was started."""

    def ended(self, record: Record) -> None:
        """A run has ended; its record says how."""

    def waiting(self, running: Sequence[Record]) -> None:
        """Nothing new; called several times a second."""


@dataclass
class _Running:
    record: Record
    place: Place
    process: subprocess.Popen[bytes]
    began: float
    is_told: bool = False

    def status(self) -> int:
        """Of its end: a stop so early that it could not even be heard loses nothing either."""
        status: int = self.process.returncode
        return EXIT_STOPPED if self.is_told and status == -signal.SIGTERM else status


def run_queue(
    records: Sequence[Record],
    places: Sequence[Place],
    launcher: Sequence[str],
    stop: StopRequest,
    listener: Listener,
    *,
    folder: Path,
    pause_s: float = 0.1,
) -> None:
    """Train the runs, the first ones first; returns when all have ended.

    To be called from the main thread: Linux ends the runs with the thread that started them.

    Args:
        records: runs to start or to continue.
        places: how many at a time, and where.
        launcher: the beginning of a command that trains, to which the arguments are added.
        stop: when set, runs are asked to stop and no other is started.
        listener: told what happens.
        folder: of the sweep; a file ``STOP`` there asks to stop as well.
        pause_s: seconds between two looks.
    """
    waiting, free = list(records), list(places)
    running: list[_Running] = []
    die_with_us = dying_with_this_process()
    while running or (waiting and stop.reason is None):
        if (folder / STOP_FILE).exists():
            stop.set(f"the file {folder / STOP_FILE}")
        for one in [one for one in running if one.process.poll() is not None]:
            running.remove(one)
            free.insert(0, one.place)
            end_start(one.record, one.status(), time.monotonic() - one.began)
            listener.ended(one.record)
        if stop.reason is not None:
            _pass_on(running)
        while waiting and free and stop.reason is None:
            record, place = waiting.pop(0), free.pop(0)
            started = _start(record, place, launcher, die_with_us)
            if started is None:
                free.insert(0, place)
                listener.ended(record)
                continue
            running.append(started)
            listener.started(record, place)
        listener.waiting([one.record for one in running])
        if running:
            time.sleep(pause_s)
    with suppress(OSError):
        (folder / STOP_FILE).unlink()


def exit_status(records: Sequence[Record], *, was_stopped: bool) -> int:
    """0: all are done; 1: some failed; 75: some are not done because they were asked to stop."""
    if all(record.state == "done" for record in records):
        return EXIT_OK
    if was_stopped:
        return EXIT_STOPPED
    failed = any(record.state == "failed" for record in records)
    return EXIT_FAILED if failed else EXIT_STOPPED


# -- inside ------------------------------------------------------------------------------------


def _start(
    record: Record,
    place: Place,
    launcher: Sequence[str],
    preparation: Optional[Callable[[], None]],
) -> Optional[_Running]:
    """Start a run; None, with its record saying why, if the system cannot."""
    try:
        begin_start(record)
        environment = {**os.environ, **place.environment}
        environment[ATTEMPT_VARIABLE] = str(record.notes.absolute())
        with open(record.output, "ab") as output:
            process = subprocess.Popen(  # noqa: S603 (our own command)
                [*launcher, *train_command(record)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                # A session of its own: a Ctrl-C of the terminal reaches it once, through us.
                start_new_session=True,
                preexec_fn=preparation,
            )
    except OSError as error:
        end_start(record, EXIT_FAILED, 0.0)
        record.error = f"it could not be started: {error}"
        with suppress(OSError):
            record.write()
        return None
    return _Running(record, place, process, time.monotonic())


def _pass_on(running: Sequence[_Running]) -> None:
    for one in running:
        if not one.is_told:
            one.is_told = True
            with suppress(ProcessLookupError):
                one.process.send_signal(signal.SIGTERM)



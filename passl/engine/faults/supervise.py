"""Restarting a job that failed: at most N times, and never twice on the same failing step.

Where the supervisor itself is killed, the kernel asks the job to stop, so that the next one does
not find the folder in use.

A supervisor wraps any command that trains, the launcher included, because only something outside
of ``paddle.distributed.launch`` survives it: its own restarts need an etcd server, and its exit
status is that of some process, often of one that died because another had.  So the ranks note how
they ended (:mod:`passl.engine.faults.attempt`), and the supervisor reads those notes.

    done           every rank ended with 0                              -> 0
    config error   a rank ended with 2: it would again                  -> 2
    stopped        ranks ended with 75 and none failed                  -> 75
    failed         anything else, killed ranks included                 -> start again
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Callable, Optional

from passl.checkpoint.disk import os_errors_become_sentences
from passl.checkpoint.manifest import Manifest
from passl.engine.faults.attempt import ATTEMPT_VARIABLE
from passl.engine.stopping import dying_with_this_process, heeded_signals
from passl.errors import EXIT_CONFIG, EXIT_FAILED, EXIT_OK, EXIT_STOPPED, CheckpointError
from passl.json_text import from_json

__all__ = ["AttemptEnd", "Supervisor", "read_attempt"]


@dataclass(frozen=True)
class AttemptEnd:
    """How one start of the job ended.

    Attributes:
        status: 0, 2, 75, or 1 for a failure.
        step: the last step that every rank had finished; None where no rank came so far.
        checkpoint: the checkpoint that ``latest`` led to afterwards; None without one.
        culprit: the failure in a sentence: the rank, its error.
        traceback: file with the culprit's traceback; None if it left none (a killed process).
    """

    status: int
    step: Optional[int] = None
    checkpoint: Optional[str] = None
    culprit: str = ""
    traceback: Optional[Path] = None


@dataclass
class Supervisor:
    """Runs ``command`` until it is done, may not be restarted, or was restarted often enough.

    Attributes:
        command: what to run; it must continue by itself (``Global.checkpoint: auto``).
        folder: where the notes of every start go, in ``attempt_1``, ``attempt_2``, ...
        max_restarts: how often to start again after a failure.
        delay_s: seconds between a failure and the next start.
        say: told what happens, in sentences.
    """

    command: Sequence[str]
    folder: Path
    max_restarts: int
    delay_s: float
    say: Callable[[str], None]
    _child: Optional[subprocess.Popen[bytes]] = field(default=None, init=False)
    _asked: threading.Event = field(default_factory=threading.Event, init=False)

    def run(self) -> int:
        """Supervise to the end; returns the exit status for the caller of the job.

        The signals of a stop are passed on to the job as SIGTERM, which every launcher
        understands; after one of them nothing is started again.

        Raises:
            PasslError: the command or the folder of the notes is not to be used.
        """
        before = {number: signal.signal(number, self._forward) for number in heeded_signals()}
        try:
            return self._run()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)

    def _run(self) -> int:
        earlier: Optional[AttemptEnd] = None
        for number in range(1, self.max_restarts + 2):
            end = self._attempt(number)
            if end.status in (EXIT_OK, EXIT_CONFIG, EXIT_STOPPED):
                return end.status
            where = f"after step {end.step}" if end.step is not None else "before the first step"
            self.say(f"start {number} failed {where}: {end.culprit}")
            if self._asked.is_set():
                # Asked to stop: killed before it could save is a stop too, an error is not.
                return EXIT_FAILED if end.traceback is not None else EXIT_STOPPED
            if earlier is not None and (earlier.step, earlier.checkpoint) == (
                end.step,
                end.checkpoint,
            ):
                self.say(
                    f"not started again: it failed twice {where}, and {_newest(end)} both times. "
                    f"Tracebacks: {_named(earlier)} and {_named(end)}"
                )
                return EXIT_FAILED
            if number <= self.max_restarts:
                self.say(
                    f"starting again ({number} of at most {self.max_restarts} restarts), "
                    f"{_newest(end)}"
                )
                self._asked.wait(self.delay_s)
                if self._asked.is_set():
                    return EXIT_STOPPED
            earlier = end
        self.say(f"not started again: {self.max_restarts} restarts are used up")
        return EXIT_FAILED

    def _attempt(self, number: int) -> AttemptEnd:
        notes = self.folder / f"attempt_{number}"
        with os_errors_become_sentences("write notes in", notes):
            notes.mkdir(parents=True)
        environment = {**os.environ, ATTEMPT_VARIABLE: str(notes.absolute())}
        # A session of its own: a Ctrl-C of the terminal reaches the job once, through us.
        with os_errors_become_sentences("start", Path(self.command[0])):
            self._child = subprocess.Popen(  # noqa: S603 (the user's own command)
                list(self.command),
                env=environment,
                start_new_session=True,
                preexec_fn=dying_with_this_process(),
            )
        if self._asked.is_set():  # between two starts
            self._child.terminate()
        status = self._child.wait()
        self._child = None
        return read_attempt(notes, status)

    def _forward(self, _number: int, _frame: Optional[FrameType]) -> None:
        self._asked.set()
        child = self._child
        if child is not None and child.returncode is None:
            child.send_signal(signal.SIGTERM)


def read_attempt(notes: Path, status: int) -> AttemptEnd:
    """What the notes of the ranks say; ``status`` of the command decides only where they do not.

    Args:
        notes: folder that the ranks wrote to.
        status: exit status of the whole command, negative for a signal.
    """
    ended = {_rank(path): _json(path) for path in notes.glob("rank_*.json")}
    began = {_rank(path): path for path in notes.glob("rank_*.run")}
    steps = [_step(path) for path in notes.glob("rank_*.step")]
    step = min(steps) if steps else None
    checkpoint = next(filter(None, map(_latest, began.values())), None)
    exits = {rank: note.get("exit", EXIT_FAILED) for rank, note in ended.items()}
    lost = sorted(began.keys() - ended.keys())
    if EXIT_CONFIG in exits.values():
        return AttemptEnd(EXIT_CONFIG, step, checkpoint)
    if not lost and exits and set(exits.values()) <= {EXIT_OK, EXIT_STOPPED}:
        stopped = EXIT_STOPPED in exits.values()
        return AttemptEnd(EXIT_STOPPED if stopped else EXIT_OK, step, checkpoint)
    if not exits and not lost and status in (EXIT_OK, EXIT_CONFIG, EXIT_STOPPED):
        return AttemptEnd(status, step, checkpoint)
    culprit, traceback = _culprit(notes, ended, lost, status)
    return AttemptEnd(EXIT_FAILED, step, checkpoint, culprit, traceback)


def _culprit(
    notes: Path, ended: Mapping[int, Mapping[str, object]], lost: Sequence[int], status: int
) -> tuple[str, Optional[Path]]:
    """The failure that came first: a rank that raised before the others lost their peer.

    A peer's death reaches the others within a second as an error of their collective, so the first
    note is the culprit's, unless the culprit was killed and could write none.
    """
    failed = [rank for rank, note in ended.items() if note.get("exit") not in (0, EXIT_STOPPED)]
    killed = f"process {', '.join(map(str, lost))} was killed without a last word" if lost else ""
    if not failed:
        return killed or f"the command ended with status {status} and no rank began", None
    first = min(failed, key=lambda rank: (notes / f"rank_{rank}.json").stat().st_mtime_ns)
    sentence = f"process {first}: {ended[first].get('error')}"
    path = notes / f"rank_{first}.traceback"
    return "; ".join(filter(None, [killed, sentence])), path if path.exists() else None


def _named(end: AttemptEnd) -> str:
    return str(end.traceback) if end.traceback is not None else f"none ({end.culprit})"


def _newest(end: AttemptEnd) -> str:
    return f"the newest checkpoint is {end.checkpoint}" if end.checkpoint else "no checkpoint yet"


def _rank(path: Path) -> int:
    return int(path.stem.partition("_")[2])


def _json(path: Path) -> Mapping[str, object]:
    try:
        return dict(from_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):  # killed while it wrote its last word
        return {}


def _step(path: Path) -> int:
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    return int(text) if text.isdecimal() and len(text) <= 20 else 0


def _latest(note: Path) -> Optional[str]:
    """The checkpoint saved last by the run that the note names; its own count, not a clock, says.

    A note that a full disk cut short names no run.
    """
    run_dir = note.read_text(encoding="utf-8", errors="replace")
    found = []
    for path in (Path(run_dir) / "checkpoints").glob("step_*") if run_dir else ():
        with suppress(CheckpointError):
            found.append((Manifest.read(path).sequence, path))
    return str(max(found)[1]) if found else None

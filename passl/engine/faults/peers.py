"""Which process failed first, said where people look: on the screen and in the run's folder.

When a process of a job dies, the others lose it in their next collective and fail as well, and
``paddle.distributed.launch`` shows rank 0's screen, then the log of the failed process with the
lowest number: often a victim.  So every rank leaves two files in the run's folder

    error_rank_N.txt    why it failed: its traceback; absent while all is well
    .ranks/N            where it runs and as which process; absent after a proper end

and one that loses its peers looks there and tells the culprit's story as its own reason.  A killed
process leaves no story, but its ``.ranks/N`` and no process of that number.  A thread looks too: a
rank that hangs in a collective (NCCL waits for half an hour) ends after a few seconds of grace.

Nothing is written or read before all ranks have met.  Only the job that has the folder comes so
far, while a second one, started by mistake, is refused (:mod:`passl.checkpoint.lock`).  And where
the addresses of a job are fixed (``--ips``, an operator of Kubernetes, ranks started by hand), what
a former start left looks like this one's until every rank has renewed its files.  Those of an
evaluation, which may be beside a training, are ``eval_error_rank_N.txt`` and ``.ranks/eval_N``.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import socket
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, TextIO

from passl.distributed.talk import PeerLostError
from passl.distributed.world import World
from passl.engine.faults.attempt import Attempt
from passl.errors import EXIT_FAILED, EXIT_STOPPED, PasslError
from passl.json_text import from_json
from passl.logs.logger import get_logger

__all__ = ["Peers", "first_failure"]

#: How long a rank that lost its peers looks for the reason before it fails without one.
_LOOK_S = 2.0
#: How long a rank may go on after another has failed, before it is taken to hang.
_GRACE_S = 5.0
_POLL_S = 0.5


@dataclass(frozen=True)
class _Note:
    """``.ranks/N``: a process and the job that it belongs to.

    Attributes:
        host: its name, for people.
        place: where ``pid`` is the number of this process and of no other.
        pid: of the process.
        job: the same on all ranks, and for most launchers another one at the next start.
        launch: which start of the launcher on this place.
        log: what the launcher wrote of its output.
    """

    host: str
    place: str
    pid: int
    job: str
    launch: str
    log: str

    @classmethod
    def of_this_process(cls, world: World, environ: Mapping[str, str]) -> _Note:
        folder = Path(environ.get("PADDLE_LOG_DIR") or "log")
        return cls(
            host=socket.gethostname(),
            place=_place(),
            pid=os.getpid(),
            job=_job_of(environ),
            launch=f"{os.getppid()} {environ.get('POD_NAME', '')}",
            log=str(folder / f"workerlog.{world.local_rank}"),
        )

    @classmethod
    def read(cls, path: Path) -> Optional[_Note]:
        try:
            return cls(**from_json(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # ended properly, or not yet
            return None


class Peers:
    """The notes of this rank, and a look at those of the others; writes nothing alone.

    Making one touches nothing; :meth:`begin` comes when the ranks have met, :meth:`watch` when all
    of them have begun.

    Args:
        run_dir: the run's folder, which all ranks see.
        world: this process among all.
        environ: of the process.
        mode: an evaluation (``eval``) has files of its own, as a training may go on beside it.
    """

    def __init__(
        self,
        run_dir: Path,
        world: World,
        environ: Optional[Mapping[str, str]] = None,
        mode: str = "train",
    ) -> None:
        self.run_dir, self.world = run_dir.absolute(), world
        self._environ = os.environ if environ is None else environ
        self._note = _Note.of_this_process(world, self._environ)
        self._prefix = "" if mode == "train" else f"{mode}_"
        self._have_begun = False
        self._over = threading.Event()
        self._error: Optional[TextIO] = None

    def begin(self) -> None:
        """Renew the files of this rank."""
        if self.world.is_main and not self._prefix:
            self._remove_of_more_ranks()
        if not self.world.is_distributed or self._is_of_another_job():
            return
        with suppress(OSError):  # the run's own files will complain in a better place
            # Emptied before the note: a note of this job vouches for the error beside it.
            self._error = open(  # noqa: SIM115
                self._error_path, "w", encoding="utf-8", errors="backslashreplace"
            )
            self._write_note()

    def _write_note(self) -> None:
        beside = self._note_path.with_suffix(".new")
        for _ in range(3):
            self._note_path.parent.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):  # an evaluation beside this took the folder away
                beside.write_text(json.dumps(vars(self._note)), encoding="utf-8")
                os.replace(beside, self._note_path)
                return

    def watch(self) -> None:
        """From now on end this process if it hangs after another has failed.

        All ranks have begun, so what they left is of this start.  Paddle is loaded: its handler of
        crashes in native code comes after ours, which writes where Python was.
        """
        if self.world.is_distributed:
            self._have_begun = True
            if self._error is not None:
                faulthandler.enable(self._error)
            threading.Thread(target=self._watch, name="passl-peers", daemon=True).start()

    @contextmanager
    def failures(self, *, ends: bool = False) -> Iterator[None]:
        """Around what may fail: leaves the reason, or finds that of the process that came first.

        Args:
            ends: this process needs the others no more after it.

        Raises:
            PeerLostError: with the story of the culprit, where there is one.
        """
        if not self.world.is_distributed:
            yield
            return
        try:
            yield
        except PeerLostError as error:
            story = self._look() if self._have_begun else None
            self.leave()
            raise PeerLostError(story or str(error)) from error
        except BaseException as error:
            if isinstance(error, PasslError) and error.exit_code == EXIT_STOPPED:
                self.leave()
            else:
                self._over.set()
                self._write_error(error)
            raise
        if ends:
            self.leave()

    def leave(self) -> None:
        """A proper end: this rank is not missing."""
        self._over.set()
        if self._error is not None:
            faulthandler.disable()
            self._error.close()
            self._error = None
            with suppress(OSError):
                self._error_path.unlink()
                self._note_path.unlink()
                self._note_path.parent.rmdir()  # the last one succeeds

    @property
    def _error_path(self) -> Path:
        return _error_path(self.run_dir, self._prefix, self.world.rank)

    @property
    def _note_path(self) -> Path:
        return _note_path(self.run_dir, self._prefix, self.world.rank)

    def _is_of_another_job(self) -> bool:
        """Whether a process of another evaluation has this rank's files; only processes of this
        host can be asked."""
        note = _Note.read(self._note_path)
        return (
            note is not None
            and (note.job, note.launch) != (self._note.job, self._note.launch)
            and note.place == self._note.place
            and note.pid != os.getpid()
            and _runs(note.pid)
        )

    def _remove_of_more_ranks(self) -> None:
        """A former start had more processes: nobody else would clear away what they left."""
        ranks = self._note_path.parent
        fewest = self.world.size if self.world.is_distributed else 0
        for path in (*ranks.glob("*"), *self.run_dir.glob("error_rank_*.txt")):
            number = path.stem.replace("error_rank_", "")
            if number.isdigit() and int(number) >= fewest:
                with suppress(OSError):
                    path.unlink()
        if not self.world.is_distributed:  # else this start's ranks are about to use the folder
            with suppress(OSError):
                ranks.rmdir()  # of an evaluation beside this run, or missing

    def _write_error(self, error: BaseException) -> None:
        if self._error is not None:
            text = str(error) if isinstance(error, PasslError) else traceback.format_exc()
            with suppress(OSError):
                self._error.write(text)
                self._error.flush()

    def _remove_empty_error(self) -> None:
        """A victim has no story of its own, and a file without one looks as if it had failed."""
        with suppress(OSError):
            if not self._error_path.stat().st_size:
                self._error_path.unlink()

    def _look(self) -> Optional[str]:
        limit = time.monotonic() + _LOOK_S
        while True:
            story = self._story()
            if story is not None or time.monotonic() >= limit:
                return story
            time.sleep(0.1)

    def _story(self) -> Optional[str]:
        return first_failure(self.run_dir, self.world, self._note, self._prefix)

    def _watch(self) -> None:
        while not self._over.wait(_POLL_S):
            story = self._story()
            if story is None:
                continue
            if self._over.wait(_POLL_S):  # it has noticed by itself, as a rule
                return
            get_logger().error(f"ending within {_GRACE_S:g} s, as another process failed: {story}")
            if self._over.wait(_GRACE_S):
                return
            if self._story() is None:  # it was a former start's, which that rank has cleared away
                get_logger().warning("no process has failed after all; the run goes on")
                continue
            text = f"this process hung after another one had failed: {story}"
            Attempt.from_environment(self._environ).ended(EXIT_FAILED, text.splitlines()[0])
            self._remove_empty_error()
            os._exit(EXIT_FAILED)


def first_failure(run_dir: Path, world: World, own: _Note, prefix: str = "") -> Optional[str]:
    """The story of the rank of this job that failed first, this one excepted; None if none did.

    A rank with a traceback comes before one that vanished: it may have vanished after it.

    Args:
        run_dir: the run's folder.
        world: this process among all.
        own: the note of this process.
        prefix: of the names of the files.
    """
    notes = {
        rank: note
        for rank in range(world.size)
        if rank != world.rank
        for note in [_Note.read(_note_path(run_dir, prefix, rank))]
        if note is not None and note.job == own.job
    }
    told = []
    for rank in notes:
        path = _error_path(run_dir, prefix, rank)
        with suppress(OSError):
            if path.stat().st_size:
                told.append((path.stat().st_mtime_ns, rank, path))
    if told:
        _, rank, path = min(told)
        with suppress(OSError):  # cleared away just now: a new start of that rank, or its end
            text = path.read_text(encoding="utf-8", errors="replace").rstrip()
            return f"process {rank} failed first ({path}):\n{text}"
    for rank, note in notes.items():
        if note.place == own.place and not _runs(note.pid):
            return (
                f"process {rank} (pid {note.pid} on {note.host}) ended without a last word: it was "
                "killed from outside, as the system does when memory runs out (see dmesg), or left "
                f"by os._exit; its output is in {note.log}"
            )
    return None


def _error_path(run_dir: Path, prefix: str, rank: int) -> Path:
    return run_dir / f"{prefix}error_rank_{rank}.txt"


def _note_path(run_dir: Path, prefix: str, rank: int) -> Path:
    return run_dir / ".ranks" / f"{prefix}{rank}"


def _runs(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return stat.rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is there, and not ours
        return True
    return not Path("/proc/self/stat").exists()


def _place() -> str:
    """Host, its boot and the namespace of process numbers: two containers may share a name.

    Source: proc_sys_kernel(5) (``random/boot_id``), pid_namespaces(7).
    """
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _job_of(environ: Mapping[str, str]) -> str:
    """The same on all ranks of a start, another for the next: the launcher draws the ports."""
    text = f"{environ.get('PADDLE_MASTER')} {environ.get('PADDLE_TRAINER_ENDPOINTS')}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]

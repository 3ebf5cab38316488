"""What a process leaves for ``tools/supervise.py``: how far it came and how it ended.

The exit status of ``paddle.distributed.launch`` is that of some process, often of a victim rather
than of the culprit, and 15 after every SIGTERM.  So each rank notes its own end in the folder that
the supervisor names in the environment:

    rank_0.run        the run's folder
    rank_0.step       the last finished step, rewritten in place: it survives SIGKILL
    rank_0.json       {"exit": 75, "error": "..."}, written when the command ends
    rank_0.traceback  of the error, if there was one

Without that variable nothing is written.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Optional

from passl.distributed.world import read_world
from passl.errors import EXIT_FAILED, EXIT_OK, PasslError

__all__ = ["ATTEMPT_VARIABLE", "Attempt", "noting_the_end"]

#: Environment variable with the folder to write to.
ATTEMPT_VARIABLE = "PASSL_ATTEMPT_DIR"


class Attempt:
    """Notes of one rank; with ``folder`` None every call does nothing.

    A note that cannot be written never disturbs the run.
    """

    def __init__(self, folder: Optional[Path], rank: int) -> None:
        self._folder, self._rank = folder, rank
        self._steps: Optional[int] = None

    @classmethod
    def from_environment(cls, environ: Optional[Mapping[str, str]] = None) -> Attempt:
        """Where the supervisor wants the notes of this process, if there is one."""
        environ = os.environ if environ is None else environ
        folder = environ.get(ATTEMPT_VARIABLE)
        return cls(Path(folder) if folder else None, read_world(environ).rank if folder else 0)

    def step(self, step: int) -> None:
        """``step`` steps are done: one small write, no fsync."""
        if self._folder is None:
            return
        with suppress(OSError):
            if self._steps is None:
                path = self._folder / f"rank_{self._rank}.step"
                self._steps = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644)
            os.pwrite(self._steps, b"%020d\n" % step, 0)

    def run_dir(self, path: Path) -> None:
        """Where the run's files are."""
        self._write("rank_{}.run", str(path.absolute()))

    def ended(self, exit_code: int, error: str = "", details: str = "") -> None:
        """The command ends: its exit status, the error in a sentence, its traceback."""
        if details:
            self._write("rank_{}.traceback", details)
        self._write("rank_{}.json", json.dumps({"exit": exit_code, "error": error}))

    def _write(self, name: str, text: str) -> None:
        if self._folder is not None:
            with suppress(OSError):
                (self._folder / name.format(self._rank)).write_text(
                    text, encoding="utf-8", errors="backslashreplace"
                )


@contextmanager
def noting_the_end() -> Iterator[None]:
    """Note for a supervisor how the commands inside end; exceptions go on."""
    attempt = Attempt.from_environment()
    try:
        yield
    except PasslError as error:
        attempt.ended(error.exit_code, str(error), traceback.format_exc())
        raise
    except BaseException as error:
        attempt.ended(EXIT_FAILED, f"{type(error).__name__}: {error}", traceback.format_exc())
        raise
    attempt.ended(EXIT_OK)

"""Runs as processes of their own, which tests signal and wait for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Optional

from small_run import RunFolder

#: Only so that what hangs fails in the end: a busy machine takes many seconds for a second.
_LIMIT_S = 300.0


class StartedRun:
    """A command in the background, in a session of its own, its output in a file.

    Args:
        command: what to run.
        output: file for stdout and stderr.
        environment: of the process.
    """

    def __init__(self, command: list[str], output: Path, environment: dict[str, str]) -> None:
        self.output = output
        with open(output, "ab") as file:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**environment, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )

    def __enter__(self) -> StartedRun:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    @property
    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def wait_until(self, is_so: Callable[[], bool], what: str) -> None:
        """Poll ``is_so`` every 5 ms; the run must not end before."""
        limit = time.monotonic() + _LIMIT_S
        while not is_so():
            assert self.process.poll() is None, f"ended before {what}:\n{self.text}"
            assert time.monotonic() < limit, f"not after {_LIMIT_S} s: {what}:\n{self.text}"
            time.sleep(0.005)

    def wait_for_file(self, path: Path) -> None:
        self.wait_until(path.exists, f"the file {path}")

    def wait_for_line(self, part: str) -> None:
        self.wait_until(lambda: part in self.text, f"the line {part!r}")

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def end(self) -> int:
        """Wait for the end; its exit status."""
        try:
            return self.process.wait(timeout=_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no end after {_LIMIT_S} s:\n{self.text}") from None


def lives(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def ends_of_starts(
    run: RunFolder, environment: dict[str, str], *overrides: str, most: int = 2
) -> list[int]:
    """Train in a process until one ends well, ``most`` times at the most; the exit statuses."""
    ends: list[int] = []
    while len(ends) < most and 0 not in ends:
        with start_training(run, environment, *overrides) as process:
            ends.append(process.end())
    return ends


def start_training(
    run: RunFolder, environment: dict[str, str], *overrides: str, command: Optional[str] = None
) -> StartedRun:
    """``passl-train`` (or another ``tools/*.py``) of this checkout on the small config."""
    tool = Path(__file__).resolve().parents[2] / "tools" / (command or "train.py")
    return StartedRun(
        [sys.executable, str(tool), "-c", str(run.config_file), *run.options(overrides)],
        run.root / "output.txt",
        environment,
    )

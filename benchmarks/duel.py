"""Contestants that take turns: a process each, which stays alive and answers one task at a time.

What the rest of the machine does then falls on all of them alike.  A contestant is a script with
``serve(tasks)`` at its end; :class:`Contestant` is the other side of its pipes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

#: What would make a contestant something other than its name says.
_OURS_TO_SET = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "MKL_DEBUG_CPU_TYPE", "PASSL_TUNE")


@dataclass
class Timing:
    """Seconds of each turn of one contestant at one task.

    Attributes:
        wall: by the clock.
        cpu: of the processor, all threads together.
    """

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def median(self, which: str) -> float:
        """Of ``wall`` or ``cpu``."""
        return statistics.median(getattr(self, which))


class Contestant:
    """A process that is asked for a task by name.

    Args:
        command: what starts it.
        environment: what is added to this process's environment, cleared of settings.
    """

    def __init__(
        self, command: Sequence[str], environment: Optional[Mapping[str, str]] = None
    ) -> None:
        clean = {
            key: value
            for key, value in os.environ.items()
            if key not in _OURS_TO_SET and not key.startswith(("FLAGS_", "MALLOC_"))
        }
        self._name = " ".join(command)
        self._process = subprocess.Popen(
            command,
            env={**clean, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, task: str) -> dict[str, float]:
        """Have ``task`` done once; what it answered, with ``wall`` and ``cpu`` seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(task + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, float] = json.loads(line)
                return answer
        raise SystemExit(f"{self._name} ended with status {self._process.wait()}")

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


def take_turns(
    contestants: Mapping[str, Contestant], task: str, rounds: int
) -> dict[str, Timing]:
    """``rounds`` turns each, after one that is not counted."""
    timings = {name: Timing() for name in contestants}
    for turn in range(rounds + 1):
        for name, contestant in contestants.items():
            answer = contestant.ask(task)
            if turn:
                timings[name].wall.append(answer["wall"])
                timings[name].cpu.append(answer["cpu"])
    return timings


def serve(tasks: Mapping[str, Callable[[], Optional[float]]]) -> None:
    """Answer the tasks that are asked for on stdin until it ends."""
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        value = tasks[line.strip()]()
        answer = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        if value is not None:
            answer["value"] = value
        print(json.dumps(answer), flush=True)


def peak_mib() -> float:
    """The most memory this process ever held."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) / 1024 for line in text.splitlines() if "VmHWM" in line)

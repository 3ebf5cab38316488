"""Components for tests that stop a run: hooks and metrics that wait or raise at a chosen moment."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import paddle

from passl.engine.hooks.base import Hook
from passl.engine.save_clock import SaveClock
from passl.registry import HOOKS, METRICS, Range

if TYPE_CHECKING:
    from passl.engine.trainer import Trainer


@HOOKS.register()
class SignalAt(Hook):
    """Send this process a signal at a step, once over all starts.

    Args:
        step: after which step; 0 before the first.
        number: of the signal.
        times: how often.
        done: file that says it was done.
    """

    def __init__(
        self, *, step: Annotated[int, Range(min=0)], number: int, times: int = 1, done: str
    ) -> None:
        self.step, self.number, self.times, self.done = step, number, times, Path(done)

    def on_start(self, trainer: Trainer) -> None:
        if self.step == 0:
            self._send()

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.state.step == self.step:
            self._send()

    def _send(self) -> None:
        if not self.done.exists():
            self.done.touch()
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


@HOOKS.register()
class Pause(Hook):
    """Wait after every step.

    Args:
        seconds: how long.
    """

    def __init__(self, *, seconds: Annotated[float, Range(min=0.0)]) -> None:
        self.seconds = seconds

    def on_step_end(self, trainer: Trainer) -> None:
        time.sleep(self.seconds)


@HOOKS.register()
class Hold(Hook):
    """Hold the run after a step, so that no test has to be quicker than the run.

    It goes on when this process is asked to stop.

    Args:
        step: after which step.
        reached: file that is made when a process is held.
        until: file that lets it go on as well.
        rank: which process; -1: every one.
    """

    def __init__(self, *, step: int, reached: str = "", until: str = "", rank: int = -1) -> None:
        self.step, self.reached, self.until, self.rank = step, reached, until, rank

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.state.step != self.step or self.rank not in (-1, trainer.parts.world.rank):
            return
        if self.reached:
            Path(self.reached).touch()
        limit = time.monotonic() + 300
        while trainer.watch.request.reason is None and not os.path.exists(self.until):
            assert time.monotonic() < limit, f"held after step {self.step} for 300 s"
            time.sleep(0.01)


@HOOKS.register()
class FastClockSlowDisk(Hook):
    """Make the clock of ``save_unit: minute`` fast, and the disk slow.

    Args:
        every_s: seconds between two checkpoints.
        write_s: seconds that a write takes more.
    """

    def __init__(self, *, every_s: float, write_s: float = 0.2) -> None:
        self.every_s, self.write_s = every_s, write_s

    def on_start(self, trainer: Trainer) -> None:
        if trainer.parts.world.is_main:
            trainer.saving.clock = SaveClock(self.every_s)
        save = trainer.parts.store.save

        def slow_save(*arguments: Any) -> Path:
            time.sleep(self.write_s)
            return save(*arguments)

        trainer.parts.store.save = slow_save  # type: ignore[method-assign]


@HOOKS.register()
class FailAt(Hook):
    """Raise, or kill the process, at a step.

    Args:
        step: after which step.
        until: how many times; every time leaves a byte in ``marks``.
        marks: file that counts.
        rank: only in this process.
        kill: SIGKILL instead of an exception.
    """

    def __init__(
        self, *, step: int, until: int, marks: str, rank: int = 0, kill: bool = False
    ) -> None:
        self.step, self.until, self.marks = step, until, Path(marks)
        self.rank, self.kill = rank, kill

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.state.step != self.step or trainer.parts.world.rank != self.rank:
            return
        done = len(self.marks.read_bytes()) if self.marks.exists() else 0
        if done >= self.until:
            return
        with open(self.marks, "ab") as file:
            file.write(b"x")
        if self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError(f"injected at step {self.step}")

    def state_dict(self) -> dict[str, Any]:
        return {}


@HOOKS.register()
class DieAt(Hook):
    """End one process at a step, in one of the ways that processes end.

    Args:
        step: after which step.
        rank: which process.
        how: ``raise``; ``exit``: without Python's own end; ``SIGKILL``, ``SIGSEGV``; ``hang``.
    """

    def __init__(
        self,
        *,
        step: int,
        rank: int,
        how: Literal["raise", "exit", "SIGKILL", "SIGSEGV", "hang"],
    ) -> None:
        self.step, self.rank, self.how = step, rank, how

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.state.step != self.step or trainer.parts.world.rank != self.rank:
            return
        if self.how == "raise":
            raise ValueError("injected failure")
        if self.how == "exit":
            os._exit(3)
        if self.how == "hang":
            time.sleep(3600)
        os.kill(os.getpid(), signal.Signals[self.how])
        time.sleep(60)  # a signal may take a moment


@METRICS.register()
class SignalInEvaluation:
    """Send this process a signal in a batch of an evaluation, once over all starts.

    Args:
        call: which call, counted from 1 over all evaluations of a start.
        number: of the signal.
        done: file that says it was done.
    """

    def __init__(self, *, call: int, number: int, done: str) -> None:
        self.names = ["calls"]
        self.call, self.number, self.done, self.calls = call, number, Path(done), 0

    def __call__(self, logits: Any, target: Any) -> dict[str, Any]:
        self.calls += 1
        if self.calls == self.call and not self.done.exists():
            self.done.touch()
            os.kill(os.getpid(), self.number)
        return {"calls": paddle.ones([], dtype="int64")}

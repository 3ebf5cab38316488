"""Where the time of some steps goes: a table to read and a trace to look at.

While steps are recorded, the parts of the trainer are wrapped in clocks; before and after, the loop
runs as if this module did not exist.  Phases are measured on the host: on an accelerator, work is
queued in one phase and waited for in another, and the operators' device time tells the truth.
"""

from __future__ import annotations

import time
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Callable

import paddle
from paddle import profiler

from passl.checkpoint.disk import os_errors_become_sentences
from passl.data.loader import Batch
from passl.engine.measuring.profile_window import ProfileWindow
from passl.engine.trainer import Trainer
from passl.optim.groups import align_table
from passl.optim.parallel import on_cpu

__all__ = ["OperatorTime", "StepProfile", "operator_times", "profiled"]

WAIT, REST = "waiting for data", "rest of the step"
BETWEEN = "between steps (log, evaluation, checkpoints)"
_PHASES = (
    WAIT, "forward", "loss", "backward", "sum over processes", "gradients to float32", "unscale",
    "clip", "finite or not", "optimizer", "EMA", REST, BETWEEN,
)  # fmt: skip
_EVENT = "passl: "  # what the names of our events begin with in the trace
_MOST_OPERATORS = 40


@dataclass
class OperatorTime:
    """What one operator took in all recorded steps.

    Attributes:
        calls: how often it ran.
        host_s: seconds on the host, without other operators that it called.
        device_s: seconds of its kernels on an accelerator.
    """

    calls: int = 0
    host_s: float = 0.0
    device_s: float = 0.0


@dataclass
class StepProfile:
    """What was recorded.

    Attributes:
        steps: steps recorded.
        seconds: wall time from the first to the last, with what was between them.
        phases: seconds of each phase, in sum.
        operators: what each operator took.
    """

    steps: int = 0
    seconds: float = 0.0
    phases: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    operators: Mapping[str, OperatorTime] = field(default_factory=dict)

    def table(self) -> str:
        """The tables of phases and operators."""
        calls = sum(each.calls for each in self.operators.values())
        per_step = 1e3 / max(1, self.steps)
        lines = [
            f"{self.steps} steps of {self.seconds * per_step:.2f} ms, as recorded: recording slows "
            "steps down, so trust the shares",
            f"{calls / max(1, self.steps):.0f} operators called in a step (without evaluations)",
            "",
            self._phase_table(per_step),
            "",
            self._operator_table(per_step),
        ]
        return "\n".join(lines) + "\n"

    def in_a_sentence(self) -> str:
        """The three phases that take most."""
        largest = sorted(self.phases.items(), key=lambda item: -item[1])[:3]
        return ", ".join(f"{name} {_share(seconds, self.seconds)}" for name, seconds in largest)

    def _phase_table(self, per_step: float) -> str:
        rows = [("phase", "ms a step", "share", "")]
        for phase in _PHASES:
            if phase in self.phases:
                seconds = self.phases[phase]
                rows.append(
                    (phase, f"{seconds * per_step:.3f}", _share(seconds, self.seconds), "")
                )
        return _tidy(rows)

    def _operator_table(self, per_step: float) -> str:
        has_device = any(each.device_s for each in self.operators.values())
        ranked = sorted(self.operators.items(), key=lambda item: -_cost(item[1]))
        total = sum(_cost(each) for each in self.operators.values())
        rows = [("operator", "calls a step", "ms a step", "share", "device ms a step")]
        for name, each in ranked[:_MOST_OPERATORS]:
            rows.append(
                (
                    name,
                    f"{each.calls / max(1, self.steps):.1f}",
                    f"{each.host_s * per_step:.3f}",
                    _share(_cost(each), total),
                    f"{each.device_s * per_step:.3f}" if has_device else "",
                )
            )
        if not has_device:
            rows[0] = (*rows[0][:-1], "")
        more = len(ranked) - _MOST_OPERATORS
        return _tidy(rows) + (f"\nand {more} operators that take less" if more > 0 else "")


@contextmanager
def profiled(trainer: Trainer, window: ProfileWindow, folder: Path) -> Iterator[StepProfile]:
    """Record the steps of ``window`` that ``trainer`` makes inside the block.

    Args:
        trainer: the first process records, others run as they are.
        window: steps to record, counted from the first one made in the block.
        folder: gets ``steps_START_to_LAST.txt`` and the Chrome trace beside it, ``.json``.

    Yields:
        what was recorded, filled when the last step of the window is done.
    """
    recorder = _Recorder(trainer, window, folder)
    if not trainer.parts.world.is_main:
        yield recorder.profile
        return
    vars(trainer)["train_step"] = recorder.train_step
    try:
        yield recorder.profile
    finally:
        del vars(trainer)["train_step"]
        recorder.close()


class _Recorder:
    """Counts steps, switches recording on and off, and writes the files."""

    def __init__(self, trainer: Trainer, window: ProfileWindow, folder: Path) -> None:
        self._trainer, self._window, self._folder = trainer, window, folder
        self._step = trainer.train_step
        self._number = 0
        self._started, self._first = False, 0
        self._clock = _Clock()
        self._profiler: Any = None
        self._undo: list[Callable[[], None]] = []
        self._began = self._ended = 0.0
        self.profile = StepProfile(phases=self._clock.seconds)

    def train_step(self, batch: Batch) -> None:
        """What the loop calls instead of the trainer's own."""
        number, self._number = self._number, self._number + 1
        if number == self._window.start:
            self._start(batch)
        if self._profiler is None:
            self._step(batch)
            return
        start = time.perf_counter()
        self._clock.add(WAIT, batch.wait_s)
        if self._ended:
            self._clock.add(BETWEEN, max(0.0, start - self._ended - batch.wait_s))
        with self._clock.phase(REST):
            self._step(batch)
        self._ended = time.perf_counter()
        self._profiler.step()
        self.profile.steps += 1
        if self._number == self._window.stop:
            self._finish()

    def close(self) -> None:
        """Write what is left to write, or say that the steps never came."""
        if self._profiler is not None:
            self._finish()
        elif not self._started:
            self._trainer.parts.reporter.warn(
                f"nothing was recorded: this start of the run made {self._number} steps, and -p "
                f"asks for those from {self._window.start} on (0 is the first)"
            )

    def _start(self, batch: Batch) -> None:
        self._started, self._first = True, self._trainer.state.step
        self._began = time.perf_counter() - batch.wait_s
        targets = [profiler.ProfilerTarget.CPU]
        if not on_cpu() and paddle.device.is_compiled_with_cuda():
            targets.append(profiler.ProfilerTarget.GPU)
        # Without a callback it writes a second trace to ./profiler_log.
        self._profiler = profiler.Profiler(targets=targets, on_trace_ready=lambda _: None)
        self._profiler.start()
        self._wrap()

    def _finish(self) -> None:
        last = self._first + self.profile.steps - 1
        self.profile.seconds = time.perf_counter() - self._began
        for undo in reversed(self._undo):
            undo()
        self._profiler.stop()
        recorded, self._profiler = self._profiler, None
        self.profile.operators = operator_times(recorded.profiler_result)
        name = f"steps_{self._first}_to_{last}"
        with os_errors_become_sentences("write", self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            table = self._folder / f"{name}.txt"
            table.write_text(self.profile.table(), encoding="utf-8")
        recorded.export(str(self._folder / f"{name}.json"), format="json")
        reporter = self._trainer.parts.reporter
        reporter.log(f"profile of steps {self._first} to {last}: {self.profile.in_a_sentence()}")
        reporter.log(f"profile: {table}; {name}.json beside it opens in chrome://tracing")
        reporter.pause_ended()

    def _wrap(self) -> None:
        """Put a clock around each part that a step calls."""
        parts = self._trainer.parts
        self._wrap_method(self._trainer.reducer, "finish", "sum over processes")
        self._wrap_method(parts.model, "forward", "forward")
        self._wrap_method(parts.precision, "backward", "backward")
        self._wrap_method(self._trainer.gradients, "finish", "gradients to float32")
        self._wrap_method(parts.precision, "unscale", "unscale")
        # With a loss scale the host waits here for all that it has queued before.
        self._wrap_method(parts.precision, "accept", "finite or not")
        self._wrap_method(parts.optimizer, "step", "optimizer")
        if parts.ema is not None:
            self._wrap_method(parts.ema, "update", "EMA")
        for name in ("loss", "clip"):
            part = getattr(parts, name)
            if part is not None:
                setattr(parts, name, _Timed(part, self._clock, name))
                self._undo.append(partial(setattr, parts, name, part))

    def _wrap_method(self, owner: Any, method: str, phase: str) -> None:
        original = getattr(owner, method)
        vars(owner)[method] = _Timed(original, self._clock, phase)
        self._undo.append(partial(vars(owner).pop, method))


class _Clock:
    """Seconds by phase; a phase inside another counts for the inner one only."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner: list[float] = []

    @property
    def is_running(self) -> bool:
        return bool(self._inner)

    def add(self, phase: str, seconds: float) -> None:
        self.seconds[phase] += seconds

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._inner.append(0.0)
        start = time.perf_counter()
        with profiler.RecordEvent(_EVENT + name):
            try:
                yield
            finally:
                taken = time.perf_counter() - start
                self.seconds[name] += taken - self._inner.pop()
                if self._inner:
                    self._inner[-1] += taken


class _Timed:
    """Stands for something that is called, with a clock around the calls in a step."""

    def __init__(self, inner: Any, clock: _Clock, phase: str) -> None:
        self._inner, self._clock, self._phase = inner, clock, phase

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._clock.is_running:  # an evaluation between two steps
            return self._inner(*args, **kwargs)
        with self._clock.phase(self._phase):
            return self._inner(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def operator_times(result: Any) -> dict[str, OperatorTime]:
    """Times by operator, of those in a step.

    Args:
        result: ``Profiler.profiler_result`` of steps that ran in the phase :data:`REST`.
    """
    roots = list(result.get_data().values())  # one tree a thread
    steps = sorted(
        (node.start_ns, node.end_ns)
        for root in roots
        for node in _nodes(root)
        if node.name == _EVENT + REST
    )
    found: dict[str, OperatorTime] = defaultdict(OperatorTime)
    for root in roots:
        for child in root.children_node:
            _collect(child, steps, found)
    return dict(found)


def _nodes(root: Any) -> Iterator[Any]:
    for child in root.children_node:
        yield child
        yield from _nodes(child)


def _collect(
    node: Any, steps: Sequence[tuple[int, int]], found: dict[str, OperatorTime]
) -> float:
    """Enter ``node`` and what is below it; returns the seconds of operators in it."""
    inside = sum(_collect(child, steps, found) for child in node.children_node)
    if not _is_operator(node):
        return inside
    taken = (node.end_ns - node.start_ns) / 1e9
    place = bisect(steps, (node.start_ns, node.end_ns)) - 1
    if place >= 0 and node.start_ns < steps[place][1]:
        name = node.name.removeprefix("Global_").removesuffix(" dygraph")
        entry = found[name.removesuffix("_backward")]  # of our own operations, on Paddle 2.6
        entry.calls += 1
        entry.host_s += taken - inside
        entry.device_s += _device_seconds(node)
    return taken


def _is_operator(node: Any) -> bool:
    return str(node.type).rpartition(".")[2] == "Operator"


def _device_seconds(node: Any) -> float:
    """Seconds of the kernels that ``node`` launched itself, not through another operator."""
    total = 0.0
    for launch in node.runtime_node:
        total += sum((each.end_ns - each.start_ns) / 1e9 for each in launch.device_node)
    for child in node.children_node:
        if not _is_operator(child):
            total += _device_seconds(child)
    return total


def _cost(each: OperatorTime) -> float:
    return each.device_s or each.host_s


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _tidy(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(line.rstrip() for line in align_table(rows).splitlines())

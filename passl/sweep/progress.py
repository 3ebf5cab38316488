"""What a sweep says while it runs: a line for every start and end, and how long it will take."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Optional

from passl.json_text import from_json
from passl.logs.lines import format_eta
from passl.logs.metrics import read_metrics
from passl.logs.progress import ProgressBar
from passl.sweep.queue import Place
from passl.sweep.records import Record

__all__ = ["Progress", "fraction_done"]

_LOOK_EVERY_S = 2.0  # at the files of the runs
_TAIL_BYTES = 8192


class Progress:
    """Listens to a queue; a live line on a terminal, plain lines everywhere.

    Args:
        records: all runs of the sweep, those that are done already too.
        say: prints a line.
        bar: the live line.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        records: Sequence[Record],
        say: Callable[[str], None],
        bar: Optional[ProgressBar] = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records, self._say, self._clock = list(records), say, clock
        self._bar = bar or ProgressBar()
        self._numbers = {record.name: n for n, record in enumerate(self._records, 1)}
        self._began = self._looked = clock()
        self._before = self._done_parts()
        self._eta_s: Optional[float] = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def started(self, record: Record, place: Place) -> None:
        """A run was started."""
        what = "start" if record.starts == 1 else "go on with"
        where = f" on {place.name}" if place.name else ""
        self._tell(f"{self._which(record)} {what} {record.name}{where}")

    def ended(self, record: Record) -> None:
        """A run has ended."""
        self._look()
        took = format_eta(record.seconds)
        if record.state == "done":
            best = _best(record)
            value = f", {best}" if best else ""
            said = f"done {record.name}{value}, {took}"
        elif record.state == "stopped":
            said = f"stopped {record.name} after {took}; its state is saved"
        else:
            said = (
                f"FAILED {record.name} after {took}: {record.error.splitlines()[0]} (all of it: "
                f"{record.output})"
            )
        goes_on = record.state != "stopped" and self._is_unfinished()
        eta = f"; eta {format_eta(self._eta_s)}" if self._eta_s and goes_on else ""
        self._tell(f"{self._which(record)} {said}{eta}")

    def waiting(self, running: Sequence[Record]) -> None:
        """Draw the live line anew."""
        if not self._bar.is_on:
            return
        if self._clock() - self._looked >= _LOOK_EVERY_S:
            self._look()
        states = [record.state for record in self._records]
        failed = f", {states.count('failed')} failed" if "failed" in states else ""
        self._bar.update(
            label=f"sweep: {len(running)} running{failed}",
            done=states.count("done"),
            total=len(states),
            eta_s=self._eta_s,
        )

    # -- inside ------------------------------------------------------------------------------------

    def _tell(self, text: str) -> None:
        self._bar.clear()
        self._say(text)
        self._bar.redraw()

    def _which(self, record: Record) -> str:
        return f"[{self._numbers[record.name]}/{len(self._records)}]"

    def _is_unfinished(self) -> bool:
        return any(record.state in ("new", "running") for record in self._records)

    def _done_parts(self) -> float:
        return sum(fraction_done(record) for record in self._records)

    def _look(self) -> None:
        self._looked = self._clock()
        gained = self._done_parts() - self._before
        left = len(self._records) - self._before - gained
        elapsed = self._looked - self._began
        self._eta_s = left * elapsed / gained if gained > 0 else None


def fraction_done(record: Record) -> float:
    """How much of a run is behind it, from its last record; a failed one counts as done."""
    if record.state in ("done", "failed"):
        return 1.0
    last = _last_record(record.run_dir / "metrics.jsonl")
    settings = record.config["Global"]
    parts = [0.0]
    if last is not None and settings.get("epochs"):
        # ``epoch`` is the one that is being trained; its evaluation ends it.
        finished = int(last["epoch"]) - (last.get("kind") != "eval")
        parts.append(finished / int(settings["epochs"]))
    if last is not None and settings.get("max_train_step"):
        parts.append(int(last["step"]) / int(settings["max_train_step"]))
    return min(1.0, max(parts))


def _last_record(path: Path) -> Optional[dict[str, Any]]:
    with suppress(OSError), open(path, "rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - _TAIL_BYTES))
        for line in reversed(file.read().split(b"\n")):
            with suppress(ValueError):
                found = from_json(line)
                if isinstance(found, dict) and all(
                    isinstance(found.get(name), int) for name in ("epoch", "step")
                ):
                    return found
    return None


def _best(record: Record) -> str:
    values = [
        one["best"]
        for one in read_metrics(record.run_dir / "metrics.jsonl")
        if one["kind"] == "eval" and isinstance(one.get("best"), (int, float))
    ]
    return f"best {values[-1]:.4f}" if values else ""

"""What came out of a sweep: a table for people, CSV and JSON for machines, and the best run.

A run's value is that of its best evaluation, to whose checkpoint its link ``best`` leads.  Runs
that differ in nothing but ``Global.seed`` are one setting, and settings are compared by their mean.
"""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from passl.errors import ConfigError
from passl.logs.lines import format_eta
from passl.logs.metrics import read_metrics
from passl.sweep.factors import Value
from passl.sweep.plan import SEED_KEY, short_names
from passl.sweep.records import Record, repeat_command

__all__ = ["Outcome", "Results", "Setting", "format_value", "read_results"]

_AVERAGED = "ema_"  # begins the names of what the averaged weights scored
_NOT_VALUES = ("kind", "step", "epoch", "time", "best", "samples", "ips", "metric")


@dataclass(frozen=True)
class Outcome:
    """How one run did.

    Attributes:
        record: of the run.
        values: label of each key's value.
        best: value of its best evaluation; None if it has none that is a number.
        step, epoch: of that evaluation.
        last: value of its last evaluation.
        train_loss: last that was recorded.
        kept_epoch: of the weights that the run calls its best; None if it has none.
    """

    record: Record
    values: dict[str, str]
    best: Optional[float] = None
    step: Optional[int] = None
    epoch: Optional[int] = None
    last: Optional[float] = None
    train_loss: Optional[float] = None
    kept_epoch: Optional[int] = None


@dataclass(frozen=True)
class Setting:
    """Finished runs that differ in their seed alone.

    Attributes:
        values: label of each key's value, without the seed.
        outcomes: at least one, all with a value.
    """

    values: dict[str, str]
    outcomes: tuple[Outcome, ...]

    @property
    def scores(self) -> list[float]:
        """Of the runs."""
        return [one.best for one in self.outcomes if one.best is not None]

    @property
    def mean(self) -> float:
        """Over the runs."""
        return statistics.fmean(self.scores)

    @property
    def deviation(self) -> Optional[float]:
        """Of the sample; None for a single run."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None


@dataclass(frozen=True)
class Results:
    """All of a sweep.

    Attributes:
        keys: of the factors, in their order.
        measure: key of the evaluation that is compared, such as ``top1``.
        least: less is better.
        outcomes: of all runs, the best first, those without a value last.
        folder: of the sweep.
        criterion: key of the evaluation that the runs choose their best weights by.
    """

    keys: tuple[str, ...]
    measure: str
    least: bool
    outcomes: tuple[Outcome, ...]
    folder: Path
    criterion: str

    @property
    def setting_keys(self) -> tuple[str, ...]:
        """The factors without the seed, unless that is all that varies."""
        return tuple(key for key in self.keys if key != SEED_KEY) or self.keys

    def settings(self) -> list[Setting]:
        """Finished runs by setting, the best first."""
        groups: dict[tuple[str, ...], list[Outcome]] = {}
        for one in self.outcomes:
            if one.best is not None and one.record.state == "done":
                key = tuple(one.values[key] for key in self.setting_keys)
                groups.setdefault(key, []).append(one)
        found = [
            Setting(dict(zip(self.setting_keys, key)), tuple(group))
            for key, group in groups.items()
        ]
        return sorted(found, key=lambda setting: setting.mean * (1 if self.least else -1))

    def count(self, state: str) -> int:
        """Runs in this state."""
        return sum(one.record.state == state for one in self.outcomes)

    def table(self) -> list[list[str]]:
        """A header and a row a run."""
        shorter = short_names(self.keys)
        head = [*(shorter[key] for key in self.keys), self.measure, "epoch", "last", "train loss"]
        return [[*head, "time", "state"], *(self._row(one) for one in self.outcomes)]

    def failures(self) -> list[str]:
        """A line for every run that failed."""
        return [
            f"failed: {one.record.name}: {one.record.error.splitlines()[0]}"
            for one in self.outcomes
            if one.record.state == "failed" and one.record.error
        ]

    def best_lines(self) -> list[str]:
        """The best setting in words, and the command that makes it again."""
        settings = self.settings()
        if not settings:
            return ["no run has finished with a value to compare yet"]
        first, lines = settings[0], []
        best = first.outcomes[0]
        if first.deviation is not None:
            shorter = short_names(self.keys)
            what = ", ".join(f"{shorter[key]}={first.values[key]}" for key in first.values)
            lines.append(
                f"best setting: {what}: {self.measure} {format_value(first.mean)}, "
                f"standard deviation {format_value(first.deviation)} over "
                f"{len(first.scores)} seeds"
            )
            lines.append(f"its best run: {best.record.name}: {self._said(best)}")
        else:
            lines.append(f"best: {best.record.name}: {self._said(best)}")
        again = "the same again, in a folder beside the sweep:"
        return [*lines, self._weights(best), again, repeat_command(best.record)]

    def write(self) -> list[Path]:
        """Write ``results.csv`` and ``results.json`` into the sweep's folder.

        Raises:
            ConfigError: they cannot be written.
        """
        rows, json_path = self.folder / "results.csv", self.folder / "results.json"
        try:
            with open(rows, "w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow([*self.keys, *_COLUMNS])
                for one in self.outcomes:
                    facts = _facts(one)
                    writer.writerow([
                        *(one.values[key] for key in self.keys),
                        *("" if facts[name] is None else facts[name] for name in _COLUMNS),
                    ])
            content = {
                "measure": self.measure,
                "better": "less" if self.least else "more",
                "keys": list(self.keys),
                "runs": [{"values": one.record.data, **_facts(one)} for one in self.outcomes],
                "settings": [
                    {
                        "values": setting.values,
                        "mean": setting.mean,
                        "standard_deviation": setting.deviation,
                        "runs": [one.record.name for one in setting.outcomes],
                    }
                    for setting in self.settings()
                ],
            }
            text = json.dumps(content, indent=1, ensure_ascii=False, default=str)
            json_path.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{self.folder}: the results cannot be written: {error}") from error
        return [rows, json_path]

    def _row(self, one: Outcome) -> list[str]:
        return [
            *(one.values[key] for key in self.keys),
            format_value(one.best),
            "-" if one.epoch is None else str(one.epoch),
            format_value(one.last),
            format_value(one.train_loss),
            format_eta(one.record.seconds),
            one.record.state,
        ]

    def _weights(self, one: Outcome) -> str:
        """Where the run's best weights are; they are the best by what its ``best`` goes by."""
        if _is_loss(self.criterion):  # without a metric a run keeps no best, only its newest
            return f"weights: {one.record.run_dir / 'latest'} (of the last epoch)"
        link = "best_ema" if self.measure.startswith(_AVERAGED) else "best"
        line = f"weights: {one.record.run_dir / link}"
        if one.kept_epoch in (None, one.epoch):
            return line
        return f"{line} (of epoch {one.kept_epoch}, the best by {self.criterion})"

    def _said(self, one: Outcome) -> str:
        return f"{self.measure} {format_value(one.best)} at epoch {one.epoch}"


def read_results(
    keys: Sequence[str], records: Sequence[Record], folder: Path, by: Optional[str] = None
) -> Results:
    """Compare the runs by what they recorded.

    Args:
        keys: of the factors.
        records: of the runs.
        folder: of the sweep.
        by: key of an evaluation's record; None takes the first metric, or the loss where there is
            no metric.

    Raises:
        ConfigError: no evaluation has a number of that name.
    """
    evaluations = {record.name: _records(record, "eval") for record in records}
    first = _first_metric(evaluations.values())
    measure = by or first
    known = {key for found in evaluations.values() for one in found for key in one}
    names = sorted(known - set(_NOT_VALUES))
    if by is not None and known and by not in (*names, "metric"):
        raise ConfigError(f"--by {by}: the evaluations have {', '.join(names)}")
    least = _is_loss(measure)
    criterion = f"{_AVERAGED}{first}" if measure.startswith(_AVERAGED) else first
    outcomes = [
        _outcome(record, keys, evaluations[record.name], measure, criterion) for record in records
    ]
    outcomes.sort(key=lambda one: _order(one, least))
    return Results(tuple(keys), measure, least, tuple(outcomes), folder, criterion)


def format_value(value: Optional[float]) -> str:
    """A value as the table shows it."""
    if value is None:
        return "-"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.4g}"


# -- inside ------------------------------------------------------------------------------------

_COLUMNS = (
    "measure", "step", "epoch", "last", "train_loss", "seconds", "starts", "state", "error", "run",
    "folder", "command",
)


def _facts(one: Outcome) -> dict[str, Any]:
    record = one.record
    return {
        "measure": one.best,
        "step": one.step,
        "epoch": one.epoch,
        "last": one.last,
        "train_loss": one.train_loss,
        "seconds": round(record.seconds, 1),
        "starts": record.starts,
        "state": record.state,
        "error": record.error,
        "run": record.name,
        "folder": str(record.run_dir),
        "command": repeat_command(record),
    }


def _records(record: Record, kind: str) -> list[dict[str, Any]]:
    return [one for one in read_metrics(record.run_dir / "metrics.jsonl") if one["kind"] == kind]


def _outcome(
    record: Record,
    keys: Sequence[str],
    evaluations: Sequence[dict[str, Any]],
    measure: str,
    criterion: str,
) -> Outcome:
    labels = {key: Value("", record.data.get(key)).label for key in keys}
    losses = [one["loss"] for one in _records(record, "train") if _is_number(one.get("loss"))]
    loss = losses[-1] if losses else None
    scored = [one for one in evaluations if _is_number(one.get(measure))]
    if not scored:
        return Outcome(record, labels, train_loss=loss)
    best, kept = _best(evaluations, measure), _best(evaluations, criterion)
    assert best is not None
    return Outcome(
        record,
        labels,
        best=float(best[measure]),
        step=int(best["step"]),
        epoch=int(best["epoch"]),
        last=float(scored[-1][measure]),
        train_loss=loss,
        kept_epoch=None if kept is None else int(kept["epoch"]),
    )


def _best(evaluations: Sequence[dict[str, Any]], measure: str) -> Optional[dict[str, Any]]:
    """The evaluation with the best value, of equal ones the first; None if none has a number."""
    scored = [one for one in evaluations if _is_number(one.get(measure))]
    choose = min if _is_loss(measure) else max
    return choose(scored, key=lambda one: float(one[measure])) if scored else None


def _is_loss(measure: str) -> bool:
    return "loss" in measure.lower()


def _order(one: Outcome, least: bool) -> tuple[bool, bool, float, str]:
    value = one.best if one.best is not None else 0.0
    unfinished = one.record.state != "done"
    return (one.best is None, unfinished, value if least else -value, one.record.name)


def _is_number(value: Any) -> bool:
    is_one = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_one and math.isfinite(value)


def _first_metric(evaluations: Iterable[Sequence[Mapping[str, Any]]]) -> str:
    """The name of what "best" goes by, which every record repeats as ``metric``."""
    records = [one for found in evaluations for one in found if "metric" in one]
    if not records:
        return "loss"
    names = (
        name for name in records[0] if name not in _NOT_VALUES and "loss" not in name.lower()
    )
    same = (name for name in names if all(one.get(name) == one["metric"] for one in records))
    return next(same, "metric")

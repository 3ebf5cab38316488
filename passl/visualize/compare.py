"""Curves of several runs in one picture, from the ``metrics.jsonl`` that each of them wrote."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Optional

import numpy as np

from passl.errors import ConfigError
from passl.logs.metrics import read_metrics
from passl.visualize.figure import LINES, OKABE_ITO, add_heading, new_figure, save_figure

__all__ = ["RunCurves", "draw_comparison", "read_runs", "summary_rows"]

Axis = Literal["step", "epoch", "hours"]
_MOST_SIDE_BY_SIDE, _MOST_LETTERS = 48, 110  # letters of a name in the legend
_AXIS_WORDS = {
    "step": "optimizer steps",
    "epoch": "epochs",
    "hours": "hours since the first record",
}


@dataclass(frozen=True)
class RunCurves:
    """What a run recorded.

    Attributes:
        name: the part of its path by which it is told from the other runs.
        folder: of the run.
        train, eval: records in their order.
    """

    name: str
    folder: Path
    train: list[dict[str, Any]]
    eval: list[dict[str, Any]]

    def curve(self, kind: str, key: str, axis: Axis = "step") -> tuple[np.ndarray, np.ndarray]:
        """Positions and values [n] of a number that was recorded; empty if it never was."""
        records = [r for r in getattr(self, kind) if isinstance(r.get(key), (int, float))]
        x = np.array([self._position(record, axis) for record in records], np.float64)
        return x, np.array([record[key] for record in records], np.float64)

    def best(self, key: str, *, least: bool = False) -> Optional[tuple[float, int]]:
        """The best value of an evaluation and its step."""
        steps, values = self.curve("eval", key)
        if not len(values) or not np.isfinite(values).any():
            return None
        at = int(np.nanargmin(values) if least else np.nanargmax(values))
        return float(values[at]), int(steps[at])

    def lost(self, kind: str, key: str, axis: Axis = "step") -> np.ndarray:
        """Positions [n] where a number began to be NaN or infinite."""
        x, y = self.curve(kind, key, axis)
        bad = ~np.isfinite(y)
        return x[bad & ~np.concatenate([[False], bad[:-1]])]

    def _position(self, record: dict[str, Any], axis: Axis) -> float:
        if axis == "hours":
            first = min(r["time"] for r in (*self.train[:1], *self.eval[:1]))
            return (record["time"] - first) / 3600
        if axis == "step":
            return float(record["step"])
        return _epochs(record, self._steps_per_epoch())

    def _steps_per_epoch(self) -> float:
        """The most that steps over epochs come to, exact once an epoch is finished; 0: unknown."""
        ends: dict[int, int] = {}
        for record in (*self.train, *self.eval):
            epoch = record.get("epoch")
            if isinstance(epoch, int):
                ends[epoch] = max(ends.get(epoch, 0), record["step"])
        return max((step / epoch for epoch, step in ends.items() if epoch > 0), default=0.0)


def read_runs(paths: Sequence[str]) -> list[RunCurves]:
    """The runs in these folders.

    Args:
        paths: folders of runs, or their ``metrics.jsonl``.

    Raises:
        ConfigError: a path leads to no run, or to one without records.
    """
    files = [_metrics_file(path) for path in paths]
    names = _shortest_names([file.parent for file in files])
    runs = []
    for file, name in zip(files, names):
        records = list(read_metrics(file))
        by_kind = {
            kind: [record for record in records if record["kind"] == kind]
            for kind in ("train", "eval")
        }
        if not any(by_kind.values()):
            raise ConfigError(f"{file}: has no record of training or evaluation yet")
        runs.append(RunCurves(name, file.parent, by_kind["train"], by_kind["eval"]))
    return runs


def summary_rows(runs: Sequence[RunCurves]) -> list[list[str]]:
    """Header and a row a run: steps, last training loss, best accuracy, least evaluation loss."""
    measure = _measure(runs)
    rows = [
        ["run", "steps", "train loss", f"best {measure}", "at step", "best eval loss", "at step"]
    ]
    for run in runs:
        steps, losses = run.curve("train", "loss")
        accuracy, loss = run.best(measure), run.best("loss", least=True)
        last = max([*(int(s) for s in steps[-1:]), *(r["step"] for r in run.eval[-1:])])
        rows.append([
            run.name,
            str(last),
            f"{losses[-1]:.4f}" if len(losses) else "-",
            *(("-", "-") if accuracy is None else (f"{accuracy[0]:.4f}", str(accuracy[1]))),
            *(("-", "-") if loss is None else (f"{loss[0]:.4f}", str(loss[1]))),
        ])
    return rows


def draw_comparison(runs: Sequence[RunCurves], path: Path, *, axis: Axis = "step") -> Path:
    """Loss of training and evaluation, top-1 and learning rate of all runs over one axis.

    A panel is left out where no run has its number.  The best top-1 of a run carries a dot, and a
    cross at the lower edge stands where a number began to be NaN or infinite.  Where no evaluation
    has a top-1, its first metric is drawn.

    Args:
        runs: at least one.
        path: of the file.
        axis: ``step``, ``epoch`` or ``hours``.

    Raises:
        ConfigError: matplotlib is missing, or the file cannot be written.
    """
    from matplotlib.ticker import MaxNLocator

    measure = _measure(runs)
    panels = [
        panel
        for panel in (
            ("train", "loss", "training loss"),
            ("eval", "loss", "evaluation loss"),
            ("eval", measure, "evaluation top-1" if measure == "top1" else f"evaluation {measure}"),
            ("train", "lr", "learning rate"),
        )
        if any(len(run.curve(panel[0], panel[1])[0]) for run in runs)
    ]
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    is_long = any(len(run.name) > _MOST_SIDE_BY_SIDE for run in runs)
    side_by_side = 1 if is_long or columns == 1 else min(2, len(runs))
    legend = 0.2 * (-(-len(runs) // side_by_side)) + 0.15
    most = _MOST_LETTERS if is_long and columns > 1 else _MOST_SIDE_BY_SIDE
    width, height = 4.6 * columns + 0.2, 2.7 * rows + 0.6 + legend
    with new_figure(width, height) as figure:
        crosses = any(len(run.lost(kind, key)) for run in runs for kind, key, _ in panels)
        note = "crosses at the lower edge: NaN or infinite from here on" if crosses else ""
        used = add_heading(figure, f"{len(runs)} runs compared" if len(runs) > 1 else "1 run", note)
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
        lines: list[Any] = []
        for axes, (kind, key, words) in zip(grid.flat, panels):
            drawn = [_draw_run(axes, run, i, kind, key, axis) for i, run in enumerate(runs)]
            lines = lines or drawn
            axes.set_title(words)
            axes.grid(True)
            axes.tick_params(labelbottom=True)
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=axis != "hours", min_n_ticks=1))
            _settle_ticks(axes, [run.curve(kind, key)[1] for run in runs])
            if key == "top1":
                axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_visible(False)
        for axes in list(grid.flat)[max(0, len(panels) - columns) : len(panels)]:
            axes.set_xlabel(_AXIS_WORDS[axis])
        figure.legend(
            lines, [_shortened(run.name, most) for run in runs], ncols=side_by_side,
            loc="upper left", bbox_to_anchor=(0.15 / width, 1 - used / height), frameon=False,
            borderpad=0.0, borderaxespad=0.0,
        )
        figure.subplots_adjust(
            left=0.65 / width, right=1 - 0.35 / width, bottom=0.5 / height,
            top=1 - (used + legend + 0.3) / height, hspace=0.32, wspace=0.2,
        )
        return save_figure(figure, path)


def _draw_run(axes: Any, run: RunCurves, number: int, kind: str, key: str, axis: Axis) -> Any:
    x, y = run.curve(kind, key, axis)
    colour, line = OKABE_ITO[number % len(OKABE_ITO)], LINES[number % len(LINES)]
    (drawn,) = axes.plot(
        x, y, color=colour, linestyle=line, linewidth=1.3, marker="." if len(x) == 1 else None
    )
    lost = run.lost(kind, key, axis)
    edge = axes.get_xaxis_transform()
    axes.plot(lost, [0.03] * len(lost), "x", color=colour, markersize=6, transform=edge)
    if kind == "eval" and key != "loss" and np.isfinite(y).any():
        at = int(np.nanargmax(np.where(np.isfinite(y), y, np.nan)))
        axes.plot(x[at], y[at], "o", color=colour, markersize=5)
    return drawn


def _settle_ticks(axes: Any, curves: Sequence[np.ndarray]) -> None:
    """None beside a panel without numbers, and one beside a panel that has one number only."""
    values = np.concatenate(curves)
    finite = values[np.isfinite(values)]
    if not len(finite):
        axes.set_yticks([])
    elif (finite == finite[0]).all():
        axes.set_yticks([finite[0]])


def _measure(runs: Sequence[RunCurves]) -> str:
    """``top1``, or ``metric``, the first of the config, where no evaluation has a top-1."""
    records = [record for run in runs for record in run.eval]
    has_other = any("metric" in record for record in records)
    return "metric" if has_other and not any("top1" in one for one in records) else "top1"


def _shortened(name: str, most: int) -> str:
    """Both ends of a long name: runs differ at either."""
    half = (most - 1) // 2
    return name if len(name) <= most else f"{name[:half]}\N{HORIZONTAL ELLIPSIS}{name[-half:]}"


def _epochs(record: dict[str, Any], steps_per_epoch: float) -> float:
    epoch = record.get("epoch")
    if not steps_per_epoch:
        return float(epoch) if isinstance(epoch, (int, float)) else 0.0
    return float(record["step"]) / steps_per_epoch


def _metrics_file(path: str) -> Path:
    given = Path(path).expanduser()
    file = given / "metrics.jsonl" if given.is_dir() else given
    if file.is_file():
        return file
    below = sorted(given.glob("*/metrics.jsonl")) if given.is_dir() else []
    hint = f"; did you mean {' or '.join(str(f.parent) for f in below[:3])}?" if below else ""
    raise ConfigError(f"{path}: no metrics.jsonl there, which every run writes{hint}")


def _shortest_names(folders: Sequence[Path]) -> list[str]:
    """The end of each path, of as many parts as it takes to tell them apart.

    Names that all end alike, with that of the model, say, are drawn without that end.
    """
    parts = [folder.resolve().parts for folder in folders]
    while len(set(parts)) > 1 and len({part[-1] for part in parts}) == 1:
        parts = [part[:-1] for part in parts]
    for length in range(1, max(len(part) for part in parts) + 1):
        names = [os.sep.join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]  # one folder twice

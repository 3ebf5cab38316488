"""A sweep in one picture: a curve for one factor, a map for two, a panel a factor for more.

Runs that failed, or have no value, are crosses at the lower edge (or cells that say so), so that a
gap is never mistaken for a value that was not tried.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from passl.sweep.plan import short_names
from passl.sweep.report import Outcome, Results, format_value
from passl.visualize.figure import HEAT, OKABE_ITO, add_heading, new_figure, save_figure, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_results"]

_BLUE, _ORANGE = OKABE_ITO[0], OKABE_ITO[1]
_LOG_FROM = 8.0  # times between the least and the largest value
_MOST_CELLS = 14  # of one side of a map
_MOST_TICKS, _MOST_LETTERS = 6, 30  # of an axis
_LEAST_GAP = 0.09  # between two ticks, of the axis: nearer ones would write over each other
_COLUMNS = 3


def draw_results(results: Results, path: Path) -> Path:
    """Draw the sweep.

    Args:
        results: with at least one run.
        path: of the file.

    Raises:
        ConfigError: matplotlib is missing, or the file cannot be written.
    """
    keys = results.setting_keys
    axes_of = {key: _Axis(key, results) for key in keys}
    if len(keys) == 2 and _is_map(results, axes_of):
        return _draw_map(results, axes_of, path)
    return _draw_panels(results, axes_of, path)


class _Axis:
    """One factor as an axis: positions of its values, and whether they are numbers."""

    def __init__(self, key: str, results: Results) -> None:
        self.key = key
        self.name = short_names(results.keys)[key]
        data: dict[str, Any] = {
            one.values[key]: one.record.data.get(key) for one in results.outcomes
        }
        self.is_number = all(
            isinstance(value, (int, float)) and not isinstance(value, bool)
            for value in data.values()
        )
        self.labels: list[str] = (
            sorted(data, key=lambda label: float(data[label])) if self.is_number else sorted(data)
        )
        self._data = data
        numbers = [float(data[label]) for label in self.labels] if self.is_number else []
        self.is_log = _is_logarithmic(numbers)

    @property
    def is_crowded(self) -> bool:
        """Its labels are turned, since side by side they would touch."""
        return sum(map(len, self._shown)) > _MOST_LETTERS

    @property
    def height(self) -> float:
        """Inches that its labels and its name take."""
        return 0.52 + (0.036 * max(map(len, self._shown)) if self.is_crowded else 0.0)

    @property
    def _shown(self) -> list[str]:
        return [short(label, 22) for label in self.labels] if self._are_ticks else []

    @property
    def _are_ticks(self) -> bool:
        """The values themselves are written below the axis: names always, few numbers apart."""
        if not self.is_number:
            return True
        places = [self.position(label) for label in self.labels]
        places = [math.log(place) for place in places] if self.is_log else places
        least = _LEAST_GAP * (places[-1] - places[0])
        apart = all(after - before >= least for before, after in zip(places, places[1:]))
        return len(places) <= _MOST_TICKS and apart

    @property
    def overhang(self) -> float:
        """Inches that the slanted label of the first value reaches to its left."""
        return 0.055 * len(self._shown[0]) if self.is_crowded else 0.0

    def position(self, label: str) -> float:
        return float(self._data[label]) if self.is_number else float(self.labels.index(label))

    def prepare(self, axes: Axes) -> None:
        from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

        axes.set_xlabel(self.name)
        if not self.is_number:
            axes.set_xticks(range(len(self.labels)))
            axes.set_xticklabels([short(label, 22) for label in self.labels])
            axes.set_xlim(-0.5, len(self.labels) - 0.5)
            self.turn_labels(axes)
            return
        if self.is_log:
            axes.set_xscale("log")
            few = self.position(self.labels[-1]) < 50 * self.position(self.labels[0])
            subs = (1.0, 2.0, 5.0) if few else (1.0,)  # of a power of ten
            axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=_MOST_TICKS))
            # matplotlib's own powers of ten are formulas, and texts here hold none
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        if self._are_ticks:
            axes.set_xticks([self.position(label) for label in self.labels])
            axes.set_xticklabels(self.labels)
            axes.minorticks_off()
            self.turn_labels(axes)
        elif not self.is_log:
            axes.xaxis.set_major_locator(MaxNLocator(_MOST_TICKS - 1))

    def turn_labels(self, axes: Axes) -> None:
        """Slant the labels where they need it."""
        if self.is_crowded:
            axes.tick_params(axis="x", labelrotation=30)
            for label in axes.get_xticklabels():
                label.set_horizontalalignment("right")


# -- panels ------------------------------------------------------------------------------------


def _draw_panels(results: Results, axes_of: dict[str, _Axis], path: Path) -> Path:
    count = len(axes_of)
    columns = 2 if count == 4 else min(_COLUMNS, count)
    rows = -(-count // columns)
    first = next(iter(axes_of.values()))
    left = max(0.72, 0.2 + first.overhang)
    width = 5.5 + left if count == 1 else 3.3 * columns - 0.3 + left
    below = max(axis.height for axis in axes_of.values())
    height = (2.55 + below) * rows + 0.75
    with new_figure(width, height) as figure:
        used = _heading(figure, results)
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        limits = _value_limits(results)
        for axes, axis in zip(grid.flat, axes_of.values()):
            axis.prepare(axes)
            _draw_factor(axes, axis, results, limits)
            axes.grid(True)
        marks = {line.get_label(): line for axes in grid.flat for line in axes.lines}
        marks = {label: line for label, line in marks.items() if not label.startswith("_")}
        grid[0, 0].legend(
            marks.values(), marks.keys(),
            frameon=True, framealpha=0.85, edgecolor="none", loc="best",
        )
        for axes in grid[:, 0]:
            axes.set_ylabel(_value_name(results))
        for axes in list(grid.flat)[count:]:
            axes.set_visible(False)
        figure.subplots_adjust(
            left=left / width, right=1 - 0.2 / width, bottom=below / height,
            top=1 - (used + 0.15) / height, hspace=(below + 0.1) / 2.4, wspace=0.12,
        )
        return save_figure(figure, path)


def _draw_factor(axes: Axes, axis: _Axis, results: Results, limits: tuple[float, float]) -> None:
    """The runs over one factor, and their mean at each of its values where there are few."""
    outcomes = [one for one in results.outcomes if one.best is not None]
    done = [one for one in outcomes if one.record.state == "done"]
    going = [one for one in outcomes if one.record.state != "done"]
    for label, group, face in (("run", done, _BLUE), ("unfinished", going, "white")):
        x, y = _points(axis, group)
        if group:
            axes.plot(
                x, y, "o", markersize=4.5, color=_BLUE, markerfacecolor=face, alpha=0.75,
                label=label, linestyle="none",
            )
    means = _means(axis, done)
    is_repeated = 2 * len(axis.labels) <= len(outcomes)
    if len(means) > 1 and (is_repeated or len(results.setting_keys) == 1):
        x = [axis.position(label) for label in means]
        are_means = len(means) < len(done)
        axes.plot(
            x, list(means.values()), color=_BLUE, linewidth=1.2, markersize=12,
            linestyle="-" if axis.is_number else "none", marker="_" if are_means else None,
            label="mean" if are_means else None,
        )
    lost = [one for one in results.outcomes if one.best is None]
    if lost:
        x = [axis.position(one.values[axis.key]) for one in lost]
        axes.plot(x, [limits[0]] * len(x), "x", color=_ORANGE, markersize=7, clip_on=False,
                  label="failed or not run", linestyle="none")
    if done:
        axes.plot(*_points(axis, [_best_point(results, done)]), "o", markersize=11,
                  markerfacecolor="none", markeredgecolor="black", markeredgewidth=1.3,
                  label="best", linestyle="none")
    axes.set_ylim(*limits)
    if not outcomes:
        axes.set_yticks([])
    if _is_share(results):
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")


def _points(axis: _Axis, group: Sequence[Outcome]) -> tuple[list[float], list[float]]:
    """Positions and values of runs; without those that have no value."""
    scored = [(one, one.best) for one in group if one.best is not None]
    return [axis.position(one.values[axis.key]) for one, _ in scored], [best for _, best in scored]


def _means(axis: _Axis, done: Sequence[Outcome]) -> dict[str, float]:
    """Mean of the finished runs at each value, in the order of the axis."""
    groups: dict[str, list[float]] = {label: [] for label in axis.labels}
    for one in done:
        if one.best is not None:
            groups[one.values[axis.key]].append(one.best)
    return {label: statistics.fmean(values) for label, values in groups.items() if values}


def _best_point(results: Results, done: Sequence[Outcome]) -> Outcome:
    settings = results.settings()
    return settings[0].outcomes[0] if settings else done[0]


def _value_limits(results: Results) -> tuple[float, float]:
    """Of the values, with some room; the lower edge is where the failed runs are marked."""
    values = [one.best for one in results.outcomes if one.best is not None] or [0.0, 1.0]
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or max(abs(high), 1.0) * 0.05
    most = min(high + room, 1.0 + room / 4) if _is_share(results) else high + room
    return low - 1.6 * room, most


# -- a map -------------------------------------------------------------------------------------


def _is_map(results: Results, axes_of: dict[str, _Axis]) -> bool:
    """Two factors with few values each, of which most pairs were run."""
    sides = [len(axis.labels) for axis in axes_of.values()]
    keys = list(axes_of)
    pairs = {tuple(one.values[key] for key in keys) for one in results.outcomes}
    return max(sides) <= _MOST_CELLS and 2 * len(pairs) >= math.prod(sides)


def _draw_map(results: Results, axes_of: dict[str, _Axis], path: Path) -> Path:
    across, down = axes_of.values()
    if len(across.labels) < len(down.labels):
        across, down = down, across
    settings = results.settings()
    values = np.full((len(down.labels), len(across.labels)), np.nan)
    for setting in settings:
        row = down.labels.index(setting.values[down.key])
        values[row, across.labels.index(setting.values[across.key])] = setting.mean
    side = 0.72
    longest = max(len(short(label, 22)) for label in down.labels)
    left = 0.74 + 0.075 * longest
    width = max(5.2, left + side * len(across.labels) + 1.35)
    below = across.height
    height = side * 0.8 * len(down.labels) + below + 0.85
    with new_figure(width, height) as figure:
        used = _heading(figure, results)
        axes = figure.add_axes(
            (left / width, below / height, 1 - (left + 1.25) / width,
             1 - (below + used + 0.1) / height)
        )
        drawn = axes.imshow(
            np.ma.masked_invalid(values), aspect="auto", origin="lower",
            cmap=f"{HEAT}_r" if results.least else HEAT,
        )
        _write_cells(axes, values, results, across, down, drawn)
        axes.set_xticks(range(len(across.labels)))
        axes.set_xticklabels([short(label, 22) for label in across.labels])
        across.turn_labels(axes)
        axes.set_yticks(range(len(down.labels)))
        axes.set_yticklabels([short(label, 22) for label in down.labels])
        axes.set_xlabel(across.name)
        axes.set_ylabel(down.name)
        if settings:
            scale = figure.add_axes(
                (1 - 1.1 / width, below / height, 0.16 / width, 1 - (below + used + 0.1) / height)
            )
            bar = figure.colorbar(drawn, cax=scale)
            bar.outline.set_visible(False)
            scale.set_ylabel(_value_name(results))
            if _is_share(results):
                scale.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
        return save_figure(figure, path)


def _write_cells(
    axes: Axes, values: np.ndarray, results: Results, across: _Axis, down: _Axis, drawn: Any
) -> None:
    """The value of each cell, readable on its colour; a frame around the best."""
    from matplotlib.patches import Rectangle

    states = {
        (one.values[down.key], one.values[across.key]): one.record.state
        for one in results.outcomes
        if one.record.state != "done" or one.best is None
    }
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        if math.isnan(value):
            state = states.get((down.labels[row], across.labels[column]), "")
            text, colour = ("no value" if state == "done" else state), "black"
            axes.add_patch(Rectangle(
                (column - 0.5, row - 0.5), 1, 1, facecolor="#EEEEEE", edgecolor="#BBBBBB",
                hatch="///" if state else None, linewidth=0,
            ))
        else:
            text = f"{100 * value:.1f}" if _is_share(results) else format_value(value)
            red, green, blue, _ = drawn.cmap(drawn.norm(value))
            bright = 0.299 * red + 0.587 * green + 0.114 * blue
            colour = "black" if bright > 0.5 else "white"
        axes.text(
            column, row, text, ha="center", va="center", color=colour, fontsize=8,
            bbox=paper if math.isnan(value) and text else None,
        )
    settings = results.settings()
    if settings:
        best = settings[0].values
        corner = (
            across.labels.index(best[across.key]) - 0.47, down.labels.index(best[down.key]) - 0.46,
        )
        axes.add_patch(Rectangle(corner, 0.94, 0.92, fill=False, edgecolor=_ORANGE, linewidth=2.4))


def _is_logarithmic(numbers: Sequence[float]) -> bool:
    """Whether ascending numbers lie more evenly on a logarithmic axis."""
    if len(numbers) < 2 or numbers[0] <= 0 or numbers[-1] / numbers[0] < _LOG_FROM:
        return False
    middle = statistics.median(numbers)
    linear = (middle - numbers[0]) / (numbers[-1] - numbers[0])
    logarithmic = math.log(middle / numbers[0]) / math.log(numbers[-1] / numbers[0])
    return abs(logarithmic - 0.5) <= abs(linear - 0.5)


# -- both --------------------------------------------------------------------------------------


def _heading(figure: Figure, results: Results) -> float:
    settings = results.settings()
    done, count = results.count("done"), len(results.outcomes)
    runs = f"{count} run{'s' * (count != 1)}"
    title = f"{done} of {runs} done" if done < count else runs
    title = f"{results.folder.name}: {title}"
    if not settings:
        return add_heading(figure, title, "no value to compare yet")
    best = settings[0]
    shorter = short_names(results.keys)
    what = ", ".join(f"{shorter[key]} = {value}" for key, value in best.values.items())
    score = f"{100 * best.mean:.2f} %" if _is_share(results) else format_value(best.mean)
    repeats = max(len(setting.scores) for setting in settings)
    mean = f" (mean of {len(best.scores)} seeds)" if repeats > 1 else ""
    note = f"best: {what}: {results.measure} {score}{mean}"
    return add_heading(figure, title, note)


def _value_name(results: Results) -> str:
    best = "least" if results.least else "best"
    return f"{best} {results.measure} of a run"


def _is_share(results: Results) -> bool:
    """The value is a part of one, to be shown in percent."""
    values = [one.best for one in results.outcomes if one.best is not None]
    return results.measure.startswith("top") and all(0 <= value <= 1 for value in values)


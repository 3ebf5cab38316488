"""The confusion matrix, the most frequent confusions and the worst mistakes, as pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from passl.data.pictures import stored_picture
from passl.visualize.attention_sheet import class_label
from passl.visualize.confusion import Confusion
from passl.visualize.figure import (
    HEAT,
    OKABE_ITO,
    add_heading,
    new_figure,
    save_figure,
    short,
    show_image,
)

__all__ = ["draw_confusion", "draw_mistakes"]

#: More classes than this are drawn as a list of the most frequent confusions.
MATRIX_CLASSES = 40
_NUMBERED_CLASSES = 20
_PAIRS = 30
_SHARES = (0.0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)  # ticks of the colours
_COLUMNS, _CELL = 5, 1.74  # of the gallery; inches


def draw_confusion(
    confusion: Confusion, names: Optional[Sequence[str]], path: Path, *, title: str
) -> Path:
    """The matrix, or of more than 40 classes the 30 most frequent confusions.

    Args:
        confusion: what became of the samples.
        names: of the classes.
        path: of the file.
        title: model, step and weights.

    Raises:
        ConfigError: matplotlib is missing, or the file cannot be written.
    """
    right = confusion.samples - len(confusion.mistakes)
    note = (
        f"{right:,} of {confusion.samples:,} samples right, top-1 {confusion.accuracy:.2%}, "
        f"{len(confusion.matrix):,} classes"
    )
    if len(confusion.matrix) > MATRIX_CLASSES:
        return _draw_pairs(confusion, names, path, title, note)
    return _draw_matrix(confusion, names, path, title, note)


def draw_mistakes(
    confusion: Confusion,
    dataset: Any,
    names: Optional[Sequence[str]],
    path: Path,
    *,
    title: str,
    most: int = 24,
) -> Path:
    """The surest mistakes: picture, true class, predicted class and both probabilities.

    Args:
        confusion: what became of the samples.
        dataset: where they are from; its pictures are drawn as they are stored.
        names: of the classes.
        path: of the file.
        title: model, step and weights.
        most: how many.

    Raises:
        ConfigError: matplotlib is missing, or the file cannot be written.
    """
    worst = confusion.mistakes[:most]
    rows = max(1, math.ceil(len(worst) / _COLUMNS))
    cell = _CELL + 0.42
    width, height = _COLUMNS * _CELL + 0.3, 0.9 + rows * cell
    total = len(confusion.mistakes)
    which = "all mistakes, the surest first:" if len(worst) == total else "the surest mistakes:"
    note = (
        f"{which} {len(worst):,} of {total:,}, in {confusion.samples:,} samples; percentages are "
        "the model's probabilities"
        if worst
        else f"no mistakes in {confusion.samples:,} samples"
    )
    with new_figure(width, height) as figure:
        top = height - add_heading(figure, title, note)
        for number, mistake in enumerate(worst):
            row, column = divmod(number, _COLUMNS)
            left, side = 0.15 + column * _CELL, _CELL - 0.12
            upper = top - row * cell
            box = (left / width, (upper - side) / height, side / width, side / height)
            axes = figure.add_axes(box)
            axes.set_anchor("S")
            show_image(axes, stored_picture(dataset, mistake.index))
            lines = (
                ("true", mistake.true, mistake.probability_true, OKABE_ITO[2]),
                ("said", mistake.predicted, mistake.probability, OKABE_ITO[1]),
            )
            for line, (word, number_of, value, colour) in enumerate(lines):
                y = (upper - side - 0.13 - 0.14 * line) / height
                text = f"{word} {short(class_label(number_of, names), 12)}"
                figure.text(left / width, y, text, fontsize=8, color=colour, va="center")
                figure.text(
                    (left + side) / width, y, f"{value:.0%}", fontsize=8, va="center", ha="right"
                )
        if not worst:
            figure.text(0.5, 0.3, "no mistakes", ha="center")
        return save_figure(figure, path)


def _draw_matrix(
    confusion: Confusion, names: Optional[Sequence[str]], path: Path, title: str, note: str
) -> Path:
    """Colours are parts of the true class, so that large classes do not outshine small ones.

    They go by the square root: the few percent that a good model confuses are seen beside the rest.
    """
    from matplotlib.colors import PowerNorm

    count = len(confusion.matrix)
    labels = [short(class_label(i, names) if names else str(i), 16) for i in range(count)]
    longest = max(len(label) for label in labels)
    cell = 0.36 if count <= _NUMBERED_CLASSES else 0.22
    edge, side = 0.45 + 0.075 * longest, max(cell * count, 2.5)
    width, height = edge + side + 1.1, 0.9 + side + edge
    width = max(width, 5.0)
    totals = confusion.matrix.sum(axis=1, keepdims=True)
    part = confusion.matrix / np.maximum(totals, 1)
    with new_figure(width, height) as figure:
        top = height - add_heading(figure, title, note)
        axes = figure.add_axes((edge / width, (top - side) / height, side / width, side / height))
        drawn = axes.imshow(part, cmap=HEAT, norm=PowerNorm(0.5, vmin=0, vmax=1))
        axes.set_xticks(range(count), labels, rotation=90 if longest > 2 else 0)
        axes.set_yticks(range(count), labels)
        axes.set(xlabel="predicted", ylabel="true")
        axes.tick_params(length=0)
        if count <= _NUMBERED_CLASSES:
            for row, column in zip(*np.nonzero(confusion.matrix)):
                colour = "black" if part[row, column] > 0.6**2 else "white"
                text = str(confusion.matrix[row, column])
                axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
        bar = figure.add_axes(
            ((edge + side + 0.15) / width, (top - side) / height, 0.15 / width, side / height)
        )
        scale = figure.colorbar(drawn, cax=bar, label="part of the true class", ticks=_SHARES)
        scale.ax.set_yticklabels([f"{share:.0%}" for share in _SHARES])
        return save_figure(figure, path)


def _draw_pairs(
    confusion: Confusion, names: Optional[Sequence[str]], path: Path, title: str, note: str
) -> Path:
    from matplotlib.ticker import MaxNLocator

    pairs = confusion.pairs()[:_PAIRS]
    totals = confusion.matrix.sum(axis=1)
    width, height = 8.0, 1.55 + 0.24 * len(pairs)
    with new_figure(width, height) as figure:
        if not pairs:
            add_heading(figure, title, note)
            figure.text(0.5, 0.2, "no mistakes", ha="center")
            return save_figure(figure, path)
        words = f"the {len(pairs)} most frequent confusions: the true class as the predicted one"
        used = add_heading(figure, f"{title}\n{note}", words)
        axes = figure.add_axes(
            (4.1 / width, 0.5 / height, 3.4 / width, (height - used - 0.55) / height)
        )
        rows = range(len(pairs))
        axes.barh(rows, [number for _, _, number in pairs], color=OKABE_ITO[0], height=0.7)
        axes.set_yticks(rows, [
            f"{short(class_label(true, names), 26)} as {short(class_label(predicted, names), 26)}"
            for true, predicted, _ in pairs
        ])
        for row, (true, _, number) in enumerate(pairs):
            axes.text(number, row, f" {number / totals[true]:.0%}", va="center", fontsize=8)
        axes.invert_yaxis()
        axes.margins(y=0.02)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("samples (and their part of the true class)")
        return save_figure(figure, path)

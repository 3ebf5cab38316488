"""A sheet of pictures as a model sees them: augmented, mixed, with their targets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from passl.data.pictures import Part
from passl.visualize.figure import new_figure, save_figure, short, show_image, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_sheet"]

_CELL = 1.75  # inches
_SHOWN = 3  # classes in a caption
# Okabe and Ito's colours that differ most, also to the colour-blind: blue, orange, bluish green.
_COLOURS = ("#0072B2", "#E69F00", "#009E73")
_REST = "#BBBBBB"


def draw_sheet(
    images: np.ndarray, targets: Sequence[Sequence[Part]], title: str, note: str, path: Path
) -> None:
    """Write the sheet; the kind of file follows from the name's ending.

    Args:
        images: uint8 [N, H, W, 3].
        targets: the parts of each target.
        title: above the pictures.
        note: below them.
        path: of the file: png, pdf, svg or jpg.

    Raises:
        ConfigError: matplotlib is missing, or the file cannot be written.
    """
    columns = min(len(images), max(2, math.ceil(math.sqrt(1.5 * len(images)))))
    rows = math.ceil(len(images) / columns)
    lines = max([1, *(min(len(parts), _SHOWN + 1) for parts in targets)])
    width = max(columns * _CELL, 2 * _CELL) + 0.3
    title, note = wrapped(title, int(width * 12)), wrapped(note, int(width * 15))
    head = 0.28 + 0.15 * (title.count("\n") + 1)
    foot = 0.15 + 0.11 * (note.count("\n") + 1)
    tall = _CELL * 0.94 * images.shape[1] / images.shape[2]  # of an image
    cell = tall + 0.14 * lines + 0.2
    height = head + rows * cell + foot
    with new_figure(width, height) as figure:
        figure.text(0.15 / width, 1 - 0.16 / height, title, fontsize=9, weight="bold", va="top")
        figure.text(0.15 / width, 0.1 / height, note, fontsize=6.5, color="#444444", va="bottom")
        for number, (image, parts) in enumerate(zip(images, targets)):
            row, column = divmod(number, columns)
            left = (0.15 + column * _CELL) / width
            top = height - head - row * cell
            axes = figure.add_axes(
                (left, (top - tall) / height, 0.94 * _CELL / width, tall / height)
            )
            show_image(axes, image, fill=True)
            _draw_target(axes, parts, tall)
        save_figure(figure, path)


def _draw_target(axes: Axes, parts: Sequence[Part], tall: float) -> None:
    """A bar of the shares, where there are several, and the names below it; ``tall`` in inches."""
    mixed = len(parts) > 1
    if mixed:
        total, start = sum(part.value for part in parts), 0.0
        for part, colour in zip(parts, (*_COLOURS, *[_REST] * len(parts))):
            share = part.value / total
            axes.add_patch(_bar(axes, start, share, colour, tall))
            start += share
    shown = list(parts[:_SHOWN])
    for line, part in enumerate(shown):
        y = -(0.1 + 0.13 * line + 0.06 * mixed) / tall
        value = "" if not mixed and part.value == 1.0 else f": {100 * part.value:.0f} %"
        colour = _COLOURS[line] if mixed else "#000000"
        mark = "\N{BLACK SQUARE} " if mixed else ""
        axes.text(0, y, mark, transform=axes.transAxes, fontsize=6.5, color=colour, va="center")
        text = f"{short(part.name, 22)}{value}"
        shift = 0.075 if mixed else 0.0
        axes.text(shift, y, text, transform=axes.transAxes, fontsize=6.5, va="center")
    if len(parts) > _SHOWN:
        y = -(0.1 + 0.13 * _SHOWN + 0.06) / tall
        text = f"and {len(parts) - _SHOWN} more"
        axes.text(0.075, y, text, transform=axes.transAxes, fontsize=6.5, va="center")
    if not parts:
        y = -0.1 / tall
        axes.text(0, y, "no class", transform=axes.transAxes, fontsize=6.5, va="center")


def _bar(axes: Axes, start: float, share: float, colour: str, tall: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(
        (start, -0.075 / tall),
        share,
        0.045 / tall,
        transform=axes.transAxes,
        facecolor=colour,
        edgecolor="none",
        clip_on=False,
    )

"""How evenly a data set's images are spread over its classes, in numbers and as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["describe_balance", "draw_balance", "label_statistics"]

_WIDTH, _PANEL, _LEFT, _TOP, _BOTTOM, _RIGHT = 960, 320, 90, 48, 48, 24
_APART = 4  # pixels: bars that are as wide have a gap between them
_INK, _GRID, _BAR = (40, 40, 40), (215, 215, 215), (66, 112, 168)


def label_statistics(counts: np.ndarray, samples: int) -> dict[str, Any]:
    """Numbers about the classes.

    Args:
        counts: samples of each class, int64 [classes].
        samples: of the data set.

    Returns:
        ``classes``, ``smallest``, ``largest``, ``mean`` and ``median`` (samples of a class),
        ``imbalance`` (largest / smallest of the classes that have any), ``classes_of_half`` (so
        many of the largest classes hold half of the labels), ``labels_per_sample``; empty without
        classes.
    """
    if not len(counts) or not counts.sum():
        return {}
    ordered = np.sort(counts)[::-1]
    present = ordered[ordered > 0]
    half = int(np.searchsorted(np.cumsum(ordered), ordered.sum() / 2)) + 1
    return {
        "classes": len(counts),
        "smallest": int(ordered[-1]),
        "largest": int(ordered[0]),
        "mean": float(counts.mean()),
        "median": float(np.median(counts)),
        "imbalance": float(present[0] / present[-1]),
        "classes_of_half": half,
        "labels_per_sample": float(counts.sum() / samples) if samples else 0.0,
    }


def describe_balance(numbers: Mapping[str, Any]) -> str:
    """The numbers as a sentence or two."""
    if not numbers:
        return "no labels"
    text = (
        f"{numbers['classes']:,} classes with {numbers['smallest']:,} to {numbers['largest']:,} "
        f"samples, {numbers['mean']:,.1f} on average, median {numbers['median']:,g}"
    )
    if numbers["imbalance"] > 1:
        half = numbers["classes_of_half"]
        text += (
            f"; the largest has {numbers['imbalance']:,.1f} times the smallest that has any, and "
            + (f"the {half} largest hold half of all" if half > 1 else "half of all")
        )
    if numbers["labels_per_sample"] > 1:
        text += f"; {numbers['labels_per_sample']:.2f} labels a sample"
    return text


def draw_balance(path: Path, counts: Mapping[str, np.ndarray]) -> None:
    """Write a picture: for each data set its classes from large to small, as bars on a log scale.

    Args:
        path: a file whose ending Pillow knows, such as ``.png``.
        counts: name of a data set -> samples of each class, int64 [classes].

    Raises:
        OSError: it cannot be written.
        ValueError: the ending says no kind of picture.
    """
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (_WIDTH, _PANEL * max(1, len(counts))), "white")
    canvas = ImageDraw.Draw(picture)
    for number, (name, values) in enumerate(counts.items()):
        _draw_panel(canvas, number * _PANEL, name, np.sort(values)[::-1])
    picture.save(path)


def _draw_panel(canvas: Any, top: int, name: str, ordered: np.ndarray) -> None:
    low, high = top + _PANEL - _BOTTOM, top + _TOP
    left, right = _LEFT, _WIDTH - _RIGHT
    summary = describe_balance(label_statistics(ordered, 0)).split("; ")
    canvas.text((left, top + 8), f"{name}: {summary[0]}", fill=_INK)
    canvas.text((left, top + 24), "; ".join(summary[1:]), fill=_INK)
    if not len(ordered) or not ordered[0]:
        return
    decades = math.log10(max(10, int(ordered[0])))

    def height(count: float) -> float:
        """Where a bar of ``count`` ends; a class with one sample still has a visible bar."""
        return low - 4 - (low - 4 - high) * math.log10(count) / decades

    for count in _ticks(int(ordered[0])):
        at = height(count)
        canvas.line([(left, at), (right, at)], fill=_GRID)
        canvas.text((left - 8, at), f"{count:,}", fill=_INK, anchor="rm")
    classes = [(column - left) * len(ordered) // (right - left) for column in range(left, right)]
    are_apart = len(ordered) * _APART <= right - left
    for column, number, before in zip(range(left, right), classes, [0, *classes]):
        value = ordered[number]
        if value and not (are_apart and number != before):
            canvas.line([(column, height(float(value))), (column, low)], fill=_BAR)
    canvas.line([(left, low), (right, low)], fill=_INK)
    canvas.text((left, low + 8), "classes, from large to small", fill=_INK)
    canvas.text((right, low + 8), f"{len(ordered):,}", fill=_INK, anchor="ra")
    canvas.text((8, top + 8), "samples,", fill=_INK)
    canvas.text((8, top + 24), "log scale", fill=_INK)


def _ticks(largest: int) -> Sequence[int]:
    return [10**power for power in range(len(str(max(10, largest))))]

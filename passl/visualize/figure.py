"""What all pictures share: matplotlib without a window, colours, sizes of letters, saving.

Figures are made without ``pyplot``, so nothing is kept between two pictures and no display is
needed.  Colours can be told apart by the colour-blind and in grey print.
"""

from __future__ import annotations

import logging
import os
import re
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from passl.errors import ConfigError
from passl.logs.fonts import can_draw, escaped, fonts_for, tell_of_lacking

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "HEAT",
    "LINES",
    "OKABE_ITO",
    "add_heading",
    "new_figure",
    "require_folder",
    "require_matplotlib",
    "save_figure",
    "short",
    "show_image",
    "wrapped",
]

#: Source: Okabe and Ito 2008, "Color Universal Design"; without yellow, which is faint on paper.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
#: Kinds of lines, changed together with the colours so that grey print keeps them apart.
LINES = ("-", "--", "-.", ":")
#: Colour map of everything that is a map: even steps to the eye, in grey as well.
HEAT = "viridis"

_SMALL, _PLAIN, _LARGE = 8, 9, 11  # points
_DPI = 150
_FONT = "DejaVu Sans"  # comes with matplotlib
_FEW_PIXELS = 150  # an image with shorter sides is drawn with square pixels
_STYLE: dict[str, Any] = {
    "font.size": _PLAIN,
    "axes.titlesize": _PLAIN,
    "axes.labelsize": _PLAIN,
    "xtick.labelsize": _SMALL,
    "ytick.labelsize": _SMALL,
    "legend.fontsize": _SMALL,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": "#DDDDDD",
    "axes.axisbelow": True,
    "figure.facecolor": "white",
    # Names of classes and files are words: "$5 and $6" holds no formula.
    "text.parse_math": False,
}


def require_matplotlib() -> None:
    """Refuse to begin where nothing could be drawn.

    Raises:
        ConfigError: matplotlib is missing.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "pictures need matplotlib, which is not installed: pip install matplotlib"
        ) from error


def require_folder(folder: Path) -> None:
    """Refuse to begin where the pictures could not be kept; makes nothing.

    Args:
        folder: of the pictures; it need not exist.

    Raises:
        ConfigError: it, or what it would be made in, is no folder or takes no files.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise ConfigError(f"{there} is a file; name another folder for the pictures with --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{there}: no file can be written there; name another place for the pictures with --out"
        )


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """An empty figure, and our sizes of letters while it is drawn.

    Args:
        width, height: in inches.

    Raises:
        ConfigError: matplotlib is missing.
    """
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # matplotlib's own type lists every setting there is
    style: Any = {**_STYLE, "font.family": [_FONT]}
    with rc_context(style):
        yield Figure(figsize=(width, height), dpi=_DPI)


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a PNG, PDF, SVG or JPEG by the ending of ``path``, and make its folder.

    Raises:
        ConfigError: it cannot be written.
    """
    from matplotlib import rc_context

    fonts: Any = {"font.family": _give_fonts(figure, path)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The fonts are for labels that come into being when they are drawn.
        with rc_context(fonts), _quiet("matplotlib.font_manager"):
            figure.savefig(os.fspath(path))
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise ConfigError(f"{path} cannot be written: {reason}") from error
    return path


def add_heading(figure: Figure, title: str, note: str = "") -> float:
    """Write a title and a note below it at the top left.

    Args:
        figure: where.
        title: its first line is written large, the others as the note.
        note: below it.

    Returns:
        The inches they take, from the top.
    """
    width, height = (float(side) for side in figure.get_size_inches())
    first, *others = title.splitlines()
    title = wrapped(first, max(20, int(width * 10)))
    columns = max(20, int(width * 14))
    note = "\n".join(wrapped(line, columns) for line in (*others, note) if line)
    left, top = 0.15 / width, 0.12
    figure.text(left, 1 - top / height, title, fontsize=_LARGE, weight="bold", va="top")
    top += 0.19 * (title.count("\n") + 1) + 0.04
    if note:
        figure.text(left, 1 - top / height, note, fontsize=_SMALL, color="#444444", va="top")
        top += 0.14 * (note.count("\n") + 1)
    return top + 0.1


def show_image(
    axes: Axes,
    image: np.ndarray,
    title: str = "",
    *,
    limits: Optional[Sequence[float]] = None,
    fill: bool = False,
) -> Any:
    """Draw an image or a map without ticks.

    Args:
        axes: where.
        image: uint8 [H, W, 3], or numbers [H, W], drawn in :data:`HEAT`.
        title: above it.
        limits: of the numbers; None takes the least and the largest.
        fill: take the shape of the axes in place of square pixels.

    Returns:
        What a colour bar needs.
    """
    few = max(image.shape[:2]) < _FEW_PIXELS
    low, high = limits if limits is not None else (None, None)
    drawn = axes.imshow(
        image,
        cmap=HEAT,
        vmin=low,
        vmax=high,
        interpolation="nearest" if few else "antialiased",
        aspect="auto" if fill else "equal",
    )
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, color="#888888", linewidth=0.4)
    if title:
        axes.set_title(title, fontsize=_SMALL, pad=3)
    return drawn


def wrapped(text: str, columns: int) -> str:
    """``text`` in lines of at most so many letters; a path is broken after a slash."""
    lines = [""]
    for part in re.findall(r"[^\s/]*(?:/|\s+|$)", text):
        if len((lines[-1] + part).rstrip()) > columns and lines[-1]:
            lines.append("")
        lines[-1] += part
    return "\n".join(textwrap.fill(line, columns) for line in lines if line.strip())


def short(text: str, most: int = 28) -> str:
    """``text``, or its beginning and three dots; a Chinese letter takes the room of two."""
    widths = [2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text]
    if sum(widths) <= most:
        return text
    ends = accumulate(widths)
    kept = sum(1 for end in ends if end <= most - 1)
    return f"{text[:kept]}\N{HORIZONTAL ELLIPSIS}"


def _give_fonts(figure: Figure, path: Path) -> list[str]:
    """Give every text fonts that have its letters, and escapes for letters that none has.

    Returns:
        Families, in the order in which a letter is looked for.
    """
    from matplotlib.font_manager import fontManager
    from matplotlib.text import Text

    texts: list[Any] = figure.findobj(Text)
    ticks = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    words = [text.get_text() for text in texts]
    for axis in ticks:  # their texts come into being when they are drawn
        words += axis.get_major_formatter().format_ticks(axis.get_majorticklocs().tolist())
    letters = "".join(dict.fromkeys("".join(words)))
    families = [_FONT]
    for file in fonts_for(letters):
        fontManager.addfont(os.fspath(file))
        families.append(next(f.name for f in fontManager.ttflist if f.fname == os.fspath(file)))
    for text in texts:
        text.set_fontfamily(families)
    if not can_draw(letters):
        tell_of_lacking(letters, str(path))
        for text in texts:
            text.set_text(escaped(text.get_text()))
        for axis in ticks:
            _escape_ticks(axis.get_major_formatter())
    return families


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """No notes on fonts that have no bold letters of their own."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _escape_ticks(formatter: Any) -> None:
    before = formatter.format_ticks
    formatter.format_ticks = lambda values: [escaped(text) for text in before(values)]

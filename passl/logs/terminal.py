"""What a terminal can do: its width, and whether it shows colours.

Source: no-color.org and force-color.org (the two variables, of any text that is not empty).
"""

from __future__ import annotations

import os
import shutil
import textwrap
from contextlib import suppress
from typing import Optional, TextIO

__all__ = ["columns_of", "is_terminal", "paint", "wants_colours", "wrapped"]

_RESET = "\033[0m"


def is_terminal(stream: Optional[TextIO]) -> bool:
    """Whether someone looks at it, on a screen that understands control codes; None: no stream."""
    if stream is None:
        return False
    with suppress(OSError, ValueError):  # closed
        return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
    return False


def wants_colours(stream: TextIO) -> bool:
    """On a terminal, unless ``NO_COLOR`` is set; elsewhere if ``FORCE_COLOR`` is."""
    if os.environ.get("NO_COLOR"):
        return False
    forced = os.environ.get("FORCE_COLOR")
    if forced:
        return forced != "0"
    return is_terminal(stream)


def columns_of(stream: TextIO) -> int:
    """Width of the terminal behind ``stream``; 80 if there is none that says it."""
    columns = shutil.get_terminal_size().columns or 80  # Python 3.9 may say 0
    with suppress(OSError, ValueError):  # no terminal behind it
        columns = os.get_terminal_size(stream.fileno()).columns or columns
    return columns


def paint(text: str, colour: str) -> str:
    """``text`` between a control code and its end."""
    return f"{colour}{text}{_RESET}"


def wrapped(text: str, width: int, hanging: str = "") -> list[str]:
    """Lines of at most ``width``, but that paths and other long words are not cut.

    Lines that it has already stay lines; ``hanging`` stands before those that continue one.
    """
    wrapper = textwrap.TextWrapper(
        width, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False
    )
    return [part for line in text.split("\n") for part in wrapper.wrap(line) or [line]]

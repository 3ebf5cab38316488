"""Help as wide as the terminal: prose is filled, examples keep their lines."""

from __future__ import annotations

import argparse
import re
import shutil
import textwrap

__all__ = ["HelpFormatter", "laid_out"]

_NEW_PARAGRAPH = "exit status:"


class HelpFormatter(argparse.HelpFormatter):
    """Lays out descriptions and examples by :func:`laid_out`."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return textwrap.indent(laid_out(text, width), indent)


def laid_out(text: str, width: int = 0) -> str:
    """Text whose lines are at most ``width`` long, where that can be.

    Prose is filled.  An indented line stays whole, as it is to be pasted; what explains it, two
    blanks or more to its right, goes below it if there is no room.

    Args:
        text: some paragraphs and indented lines.
        width: 0: what the terminal has, as for :mod:`argparse`.
    """
    width = width or shutil.get_terminal_size().columns - 2
    lines: list[str] = []
    prose: list[str] = []

    def end_prose() -> None:
        lines.extend(textwrap.wrap(" ".join(prose), width, break_on_hyphens=False))
        prose.clear()

    for line in text.strip("\n").splitlines():
        if line.strip() and not line.startswith(" "):
            if line.startswith(_NEW_PARAGRAPH):
                end_prose()
            prose.append(line.strip())
            continue
        end_prose()
        lines += _narrowed(line, width)
    end_prose()
    return "\n".join(lines)


def _narrowed(line: str, width: int) -> list[str]:
    parts = re.fullmatch(r"( *\S.*?) {2,}(\S.*)| {20,}(\S.*)", line)
    if len(line) <= width or parts is None:
        return [line]
    below = " " * 8
    meaning = textwrap.wrap(
        parts[2] or parts[3], width, initial_indent=below, subsequent_indent=below
    )
    return [parts[1], *meaning] if parts[1] else meaning

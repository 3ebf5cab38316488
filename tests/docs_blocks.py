"""The fenced blocks of the documentation, and what a comment above a block says about it.

    <!-- not run: needs four GPUs -->     the commands are not run; the reason is mandatory
    <!-- slow -->                         the whole page runs only with the slow tests
    <!-- exit status 2 -->                the commands end so, and not with 0
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>[\w-]*)\s*$")
_COMMENT = re.compile(r"^\s*<!--\s*(?P<text>.*?)\s*-->\s*$")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    path: Path
    line: int
    language: str
    text: str
    slow: bool
    not_run: Optional[str]
    status: int = 0

    @property
    def where(self) -> str:
        """``docs/x.md:12``, as an editor opens it."""
        return f"{self.path}:{self.line}"


def documentation_files(repo: Path) -> list[Path]:
    """README and the pages of docs, where they exist."""
    return [path for path in [repo / "README.md", *sorted(repo.glob("docs/*.md"))] if path.exists()]


def command_blocks(repo: Path) -> list[Block]:
    """Every ``bash`` block of the documentation."""
    return [
        block
        for path in documentation_files(repo)
        for block in read_blocks(path, repo)
        if block.language in ("bash", "sh", "shell")
    ]


def read_blocks(path: Path, repo: Path) -> list[Block]:
    """The blocks of one file, in order.

    Raises:
        ValueError: a fence is not closed, or a comment leaves a block out without a reason.
    """
    blocks: list[Block] = []
    lines = path.read_text(encoding="utf-8").splitlines()
    comment, number = "", 0
    while number < len(lines):
        opening = _FENCE.match(lines[number])
        if opening is None:
            said = _COMMENT.match(lines[number])
            if said is not None:
                comment = said["text"]
            elif lines[number].strip():
                comment = ""
            number += 1
            continue
        end = _closing(lines, number, opening["ticks"], path)
        body = [line[len(opening["indent"]):] for line in lines[number + 1 : end]]
        text = "\n".join(body) + "\n"
        name = path.relative_to(repo)
        blocks.append(_block(name, number + 1, opening["language"], text, comment))
        comment, number = "", end + 1
    return blocks


def _closing(lines: list[str], start: int, ticks: str, path: Path) -> int:
    for number in range(start + 1, len(lines)):
        if lines[number].strip() == ticks:
            return number
    raise ValueError(f"{path}:{start + 1}: this block is never closed")


def _block(path: Path, line: int, language: str, text: str, comment: str) -> Block:
    not_run = None
    if comment.startswith("not run"):
        not_run = comment[len("not run"):].lstrip(": ")
        if len(not_run) < 5:
            raise ValueError(f"{path}:{line}: say why: <!-- not run: reason -->")
    said = re.fullmatch(r"exit status (\d+)", comment)
    status = int(said[1]) if said is not None else 0
    return Block(path, line, language, text, comment == "slow", not_run, status)

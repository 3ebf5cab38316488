"""The tables of the pages docs/from_*.md: what a flag of another program is called here."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

_SPAN = re.compile(r"`([^`]+)`")
_OVERRIDE = re.compile(r"[~+]?[A-Z]\w*(\.[\w-]+)+=.*")

_REMARK = re.compile(r"(?P<key>[A-Z]\w*(?:\.[\w-]+)+)(?:: (?P<value>.+))?")


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        where: ``docs/from_x.md:12``.
        theirs: the code spans of the first column.
        overrides: what the second column says for ``-o``.
        commands: the code spans of the second column that call one of our commands.
        text: the second column.
        remarked: keys that the third column names, with their value or None.
    """

    where: str
    theirs: list[str]
    overrides: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    text: str = ""
    remarked: list[tuple[str, Optional[str]]] = field(default_factory=list)


def pages(repo: Path) -> list[Path]:
    """The pages."""
    return sorted(repo.glob("docs/from_*.md"))


def base_config(page: Path) -> str:
    """The recipe that the keys of a page are changed in: the first that it names."""
    found = re.search(r"`(configs/[\w/.-]+\.yaml)`", page.read_text(encoding="utf-8"))
    assert found is not None, f"{page} names no recipe"
    return found[1]


def read_rows(page: Path, repo: Path) -> list[Row]:
    """Every row of the page's tables whose head begins with a name of the other program."""
    rows = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|") or len(cells) < 2 or set(cells[0]) <= set("-: "):
            continue
        theirs = _SPAN.findall(cells[0])
        if not theirs:
            continue  # the head
        row = Row(f"{page.relative_to(repo)}:{number}", theirs, text=cells[1])
        for span in _SPAN.findall(cells[1]):
            if span.startswith(("passl-", "tools/")):
                row.commands.append(span)
            elif all(_OVERRIDE.fullmatch(word) for word in shlex.split(span)):
                row.overrides.extend(shlex.split(span))
        for span in _SPAN.findall("|".join(cells[2:])):
            remark = _REMARK.fullmatch(span)
            if remark is not None:
                row.remarked.append((remark["key"], remark["value"]))
        rows.append(row)
    return rows

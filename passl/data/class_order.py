"""Two lists of class names that number the same classes differently."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

__all__ = ["moved_class"]


def moved_class(first: Sequence[str], second: Sequence[str]) -> Optional[tuple[str, int, int]]:
    """A class that is in both lists under different labels: its name, and its label in each.

    Names that are in one list only tell nothing: they may be other words for the same classes.

    Args:
        first, second: names by label.
    """
    theirs: dict[str, list[int]] = {}
    for label, name in enumerate(second):
        theirs.setdefault(name, []).append(label)
    for label, name in enumerate(first):
        if name in theirs and label not in theirs[name] and first.count(name) == 1:
            return name, label, theirs[name][0]
    return None

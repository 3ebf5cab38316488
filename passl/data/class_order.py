"""Two lists of class names that number the same classes differently."""

from __future__ import annotations

from collections import Counter
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
    ours = Counter(first)
    for label, name in enumerate(second):
        theirs.setdefault(name, []).append(label)
    for label, name in enumerate(first):
        if ours[name] == 1 and name in theirs and label not in theirs[name]:
            return name, label, theirs[name][0]
    return None

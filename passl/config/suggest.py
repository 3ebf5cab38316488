"""Nearest right names, for the end of an error message."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean", "nearest", "one_of"]

_MANY = 12


def nearest(word: str, choices: Iterable[str], *, limit: int = 3) -> list[str]:
    """Up to ``limit`` of ``choices`` that look like ``word``, best first; case does not count."""
    by_lower: dict[str, str] = {}
    for choice in choices:
        by_lower.setdefault(choice.lower(), choice)
    found = difflib.get_close_matches(word.lower(), list(by_lower), n=limit, cutoff=0.6)
    likeness = [difflib.SequenceMatcher(None, word.lower(), name).ratio() for name in found]
    # Beside a name that fits much better, the others would only distract.
    return [by_lower[name] for name, ratio in zip(found, likeness) if ratio > likeness[0] - 0.15]


def did_you_mean(word: str, choices: Iterable[str], *, label: str = "known") -> str:
    """``"; did you mean 'epochs'?"``, or the list of choices, or nothing if they are too many."""
    choices = list(choices)
    close = nearest(word, choices)
    if close:
        return f"; did you mean {one_of([repr(name) for name in close])}?"
    if 0 < len(choices) <= _MANY:
        return f"; {label}: {', '.join(sorted(choices))}"
    return ""


def one_of(words: list[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"

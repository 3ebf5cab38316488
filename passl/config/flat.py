"""A config as one list of values, and what differs between two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from passl.config.config import Config

__all__ = ["ABSENT", "Difference", "differences", "differing_paths", "flatten"]


class _Absent:
    def __repr__(self) -> str:
        return "-"


#: Stands for a key that one of two configs does not have.
ABSENT = _Absent()


@dataclass(frozen=True)
class Difference:
    """One key that two configs disagree on.

    Attributes:
        path: dotted.
        values: of the first and the second; :data:`ABSENT` where one has no such key.
        origins: where each was written; empty for an absent one.
    """

    path: str
    values: tuple[Any, Any]
    origins: tuple[str, str]


def flatten(data: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """``(dotted path, value)`` of every scalar, list of scalars, and empty mapping or list."""
    if isinstance(data, Mapping) and data:
        for key, value in data.items():
            yield from flatten(value, f"{path}.{key}" if path else str(key))
    elif isinstance(data, list) and any(isinstance(item, (Mapping, list)) for item in data):
        for position, item in enumerate(data):
            yield from flatten(item, f"{path}.{position}")
    else:
        yield path, data


def differences(first: Config, second: Config) -> list[Difference]:
    """The keys whose values differ, defaults filled in, in the order of the first config.

    A number counts by its value, a tuple as the list it is written as.
    """
    left, right = dict(flatten(first.to_dict())), dict(flatten(second.to_dict()))
    return [
        Difference(
            path,
            (left.get(path, ABSENT), right.get(path, ABSENT)),
            (_origin(first, path, left), _origin(second, path, right)),
        )
        for path in differing_paths(left, right)
    ]


def differing_paths(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[str]:
    """The paths whose values differ, or that one side lacks; in the order of ``left``.

    Args:
        left, right: two configs as :func:`flatten` gives them. A number counts by its value, a
            tuple as the list it is written as; nan is nan, and true is not 1.
    """
    paths = [*left, *(path for path in right if path not in left)]
    return [
        path
        for path in paths
        if path not in left or path not in right or not _same(left[path], right[path])
    ]


def _origin(config: Config, path: str, values: Mapping[str, Any]) -> str:
    return config.origin(path) if path in values else ""


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, bool) is not isinstance(right, bool):
        return False
    return bool(left == right) or (left != left and right != right)

"""The checked config: typed sections, and where every value came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Optional

from passl.config.dump import emit
from passl.config.schema import Sections

__all__ = ["Config"]


@dataclass(frozen=True)
class Config(Sections):
    """A checked config, made by :func:`passl.config.load_config`.

    Its sections are the attributes of :class:`passl.config.schema.Sections`.

    Attributes:
        notes: what the compatibility table and changed component names did, one sentence each.
        source_path: the file.
        source_name: its name, if it ships with PASSL and was asked for by that.
        overrides: the texts after ``-o``.
        origins: dotted path -> ``file:line`` or ``-o text``, for every value that was written.
    """

    notes: list[str] = field(default_factory=list)
    source_path: Optional[Path] = None
    source_name: Optional[str] = None
    overrides: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)

    def origin(self, path: str) -> str:
        """Where the value at ``path`` (``Loss.Train.0.epsilon``) was written, or ``default``."""
        return shortened(self.origins.get(path, "default"))

    @property
    def argument(self) -> str:
        """What to type after ``-c`` for the same file."""
        return self.source_name or str(self.source_path)

    def to_dict(self) -> dict[str, Any]:
        """Plain data (dict, list, scalars) that loads to the same config."""
        return {
            item.name: _plain(value)
            for item in fields(Sections)
            if (value := getattr(self, item.name)) is not None
        }

    def to_yaml(self, *, origins: bool = False) -> str:
        """YAML that loads to the same config.

        Args:
            origins: comment every value with where it came from, and list the notes at the top.
        """
        if not origins:
            return emit(self.to_dict())
        by_name = f" (the config {self.source_name}, which ships with PASSL)"
        head = [
            f"resolved from {self.source_path}{by_name if self.source_name else ''}",
            *(f"-o {text}" for text in self.overrides),
            *self.notes,
        ]
        comments = "".join(f"# {line}\n" for text in head for line in text.splitlines())
        return comments + emit(self.to_dict(), self.origin)


def shortened(origin: str, most: int = 100) -> str:
    """An origin that fits into a message: a long ``-o`` text is cut, a file and line never."""
    if not origin.startswith("-o"):
        return origin
    return origin if len(origin) <= most else origin[: most - 3] + "..."


def _plain(value: Any) -> Any:
    """Sections flattened to mappings; a section's component joins its other keys."""
    if is_dataclass(value) and not isinstance(value, type):
        result: dict[str, Any] = _plain(getattr(value, "component", {}))
        for item in fields(value):
            inner = getattr(value, item.name)
            absent = inner is None and item.name in ("Train", "Eval")
            if item.name != "component" and not absent:
                result[item.name] = _plain(inner)
        return result
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value

"""A resolved config as YAML, each value with the place it came from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Callable, Optional

from passl.config.numeric import NumberError, parse_plain

__all__ = ["emit"]

_COMMENT_COLUMN = 48
_SAFE_TEXT = re.compile(r"[A-Za-z_./][A-Za-z0-9_./+@%-]*(?: [A-Za-z0-9_./+@%-]+)*\Z")
_LINE_BREAKS = ("\x85", "\u2028", "\u2029", "\x7f", "\ufeff")

Origin = Callable[[str], str]


def emit(data: Mapping[str, Any], origin: Optional[Origin] = None) -> str:
    """``data`` as YAML that :mod:`passl.config` reads back to the same values.

    Args:
        data: nested mappings, lists, and scalars.
        origin: dotted path -> the comment behind a value; None writes no comments.
    """
    lines: list[str] = []
    _mapping(data, "", "", lines, origin)
    return "\n".join(lines) + "\n"


def _mapping(
    data: Mapping[str, Any], path: str, indent: str, lines: list[str], origin: Optional[Origin]
) -> None:
    for key, value in data.items():
        _entry(
            f"{indent}{_scalar(str(key))}:",
            value,
            f"{path}.{key}" if path else str(key),
            indent,
            lines,
            origin,
        )


def _entry(
    head: str, value: Any, path: str, indent: str, lines: list[str], origin: Optional[Origin]
) -> None:
    if isinstance(value, Mapping) and value:
        lines.append(head)
        _mapping(value, path, indent + "  ", lines, origin)
    elif isinstance(value, list) and any(
        isinstance(item, (Mapping, list, tuple)) for item in value
    ):
        lines.append(head)
        for position, item in enumerate(value):
            _item(item, f"{path}.{position}", indent + "  ", lines, origin)
    else:
        text = f"{head} {_flow(value)}"
        lines.append(f"{text:<{_COMMENT_COLUMN}}  # {_comment(origin(path))}" if origin else text)


def _item(item: Any, path: str, indent: str, lines: list[str], origin: Optional[Origin]) -> None:
    """One entry of a list: its first line carries the dash."""
    if not isinstance(item, Mapping) or not item:
        _entry(f"{indent}-", item, path, indent, lines, origin)
        return
    start = len(lines)
    _mapping(item, path, indent + "  ", lines, origin)
    lines[start] = f"{indent}- " + lines[start][len(indent) + 2 :]


def _flow(value: Any) -> str:
    """A scalar, or scalars in one line; tuples are told from lists, as the number grammar does."""
    if isinstance(value, tuple) and value and all(_is_number(item) for item in value):
        return f"({', '.join(_scalar(item) for item in value)}{',' * (len(value) == 1)})"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_flow(item) for item in value)}]"
    return "{}" if isinstance(value, Mapping) else _scalar(value)


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(repr(value), repr(value))
    if isinstance(value, int):
        return str(value)
    return _text(str(value))


def _text(value: str) -> str:
    """Unquoted where that reads back as the same text."""
    if _SAFE_TEXT.match(value):
        try:
            if parse_plain(value) == value:
                return value
        except NumberError:
            pass
    quoted = json.dumps(value, ensure_ascii=False)
    for character in _LINE_BREAKS:
        quoted = quoted.replace(character, f"\\u{ord(character):04x}")
    return quoted


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _comment(text: str) -> str:
    return " ".join(text.split())

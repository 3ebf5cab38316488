"""The reference of the fixed sections, from their annotations and docstrings."""

from __future__ import annotations

from passl.config.keys import Key, fixed_keys
from passl.config.places import nested_section

__all__ = ["reference_markdown"]


def reference_markdown() -> str:
    """Every key of the fixed sections: what it takes, its default, what it is for."""
    rows = ["| key | takes | default | |", "|---|---|---|---|"]
    rows += [_row(key) for key in fixed_keys(every=False)]
    return "\n".join(rows) + "\n"


def _row(key: Key) -> str:
    default = key.default if key.default in ("", "required") else f"`{key.default}`"
    again = key.written.endswith(".Eval") and key.type is not None and nested_section(key.type)
    repeats = " Keys as in `Train`." if again else ""
    return f"| `{key.written}` | {key.takes} | {default} | {key.doc}{repeats} |"

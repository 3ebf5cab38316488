"""The reference of the fixed sections, from their annotations and docstrings."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from typing import Any

from passl.config.dump import emit
from passl.config.messages import article
from passl.config.places import field_types, nested_section
from passl.config.schema import Sections
from passl.registry import REGISTRIES
from passl.signatures import ComponentSpec
from passl.typespec import TypeSpec

__all__ = ["reference_markdown"]


def reference_markdown() -> str:
    """Every key of the fixed sections: what it takes, its default, what it is for."""
    rows = ["| key | takes | default | |", "|---|---|---|---|"]
    _collect(Sections, "", rows)
    return "\n".join(rows) + "\n"


def _collect(section: type, path: str, rows: list[str]) -> None:
    described = ComponentSpec.from_callable(section.__name__, (), "section", section)
    docs = {param.name: param.doc for param in described.params}
    for item in fields(section):
        spec = field_types(section)[item.name]
        name = f"{path}.{item.name}" if path else item.name
        key = f"{path}.name" if item.name == "component" else name
        nested = nested_section(spec)
        repeats = item.name == "Eval" and nested is not None
        doc = docs[item.name].replace("``", "`") + (" Keys as in `Train`." if repeats else "")
        rows.append(f"| `{key}` | {_takes(spec)} | {_default(item)} | {doc} |")
        if nested is not None and not repeats:
            _collect(nested, name + (".0" if spec.kind == "list" else ""), rows)


def _takes(spec: TypeSpec) -> str:
    if spec.component is not None:
        noun = REGISTRIES[spec.component].singular
        return f"a list of {noun}s" if spec.kind == "list" else f"{article(noun)} and its arguments"
    if nested_section(spec) is not None:
        return "a list of mappings" if spec.kind == "list" else "a mapping"
    return spec.describe()


def _default(item: Field[Any]) -> str:
    if item.default is not MISSING:
        return f"`{emit({'x': item.default})[3:-1]}`"
    if item.default_factory is MISSING:
        return "required"
    value = item.default_factory()
    if isinstance(value, dict) and "name" in value:
        return f"`{value['name']}`"
    if isinstance(value, list) and value and "name" in value[0]:
        return f"`[{', '.join(component['name'] for component in value)}]`"
    return "`[]`" if isinstance(value, list) else "`{}`" if isinstance(value, dict) else ""

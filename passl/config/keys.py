"""Every key that a config can have: what it takes, its default, what it means.

Keys of the fixed sections come from the schema's annotations and docstrings, arguments of
components from their signatures, so there is nothing here to keep up to date. Paths carry the
component's name where they belong to one (``Optimizer.AdamW.eps``) and leave the places of lists
out (``Loss.Train.CELoss.epsilon``).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields
from functools import cache
from typing import Any, Optional

from passl.config.dump import emit
from passl.config.messages import article
from passl.config.places import field_types, nested_section
from passl.config.schema import Sections
from passl.registry import REGISTRIES
from passl.signatures import MISSING as NO_DEFAULT
from passl.signatures import ComponentSpec, ParamSpec, argument_docs
from passl.typespec import TypeSpec

__all__ = ["Key", "all_keys", "component_keys", "fixed_keys", "without_places"]


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        path: with the component's name and without places in lists.
        written: the path in a config or an override; ``0`` stands for any place in a list.
        takes: the admitted values in words.
        default: as YAML; ``required``, or empty where the keys below have their own.
        doc: what it means, from the docstring.
        kind: ``section``, ``component`` (a name with arguments below) or ``value``.
        owner: the component that the key is an argument of, or that it is; else empty.
        type: what values are checked against; None for a component.
    """

    path: str
    written: str
    takes: str
    default: str
    doc: str
    kind: str = "value"
    owner: str = ""
    type: Optional[TypeSpec] = None


def fixed_keys(*, every: bool = True) -> list[Key]:
    """The keys of the fixed sections, in the schema's order.

    Args:
        every: also those of ``DataLoader.Eval``, which are as in ``Train``.
    """
    return list(_of_section(Sections, "", every))


def component_keys(home: str, spec: ComponentSpec) -> list[Key]:
    """A component and its arguments, as keys below ``home`` (``Optimizer``, ``Loss.Train.0``)."""
    path = f"{without_places(home)}.{spec.name}"
    noun = REGISTRIES[spec.kind].singular if spec.kind in REGISTRIES else spec.kind
    doc = spec.doc.split("\nArgs:\n")[0].strip()
    whole = Key(path, f"{home}.name", article(noun), "", doc, "component", spec.name)
    return [whole, *(_argument(home, path, spec, param) for param in spec.configurable)]


def all_keys() -> tuple[Key, ...]:
    """Fixed keys, then every component at every place where it may stand, with its arguments.

    Transforms that hold transforms are listed without those inside.
    """
    keys = fixed_keys()
    for home, kind in _homes():
        registry = REGISTRIES[kind]
        for name in registry.names():
            spec = registry.spec(name)
            if spec is not None:
                keys += component_keys(home, spec)
    return tuple(keys)


def without_places(path: str) -> str:
    """``Loss.Train.0.weight`` -> ``Loss.Train.weight``."""
    return ".".join(part for part in path.split(".") if not part.lstrip("-").isdecimal())


# -- fixed sections --------------------------------------------------------------------------------


def _of_section(section: type, path: str, every: bool) -> Iterator[Key]:
    docs = _docs_of(section)
    for item in fields(section):
        spec = field_types(section)[item.name]
        name = f"{path}.{item.name}" if path else item.name
        written = f"{path}.name" if item.name == "component" else name
        nested = nested_section(spec)
        kind = "value" if nested is None and spec.component is None else "section"
        if item.name == "component":
            kind = "value"
        yield Key(
            without_places(written),
            written,
            _takes(spec),
            _field_default(item),
            docs.get(item.name, "").replace("``", "`"),
            kind,
            type=spec,
        )
        if nested is not None and (every or item.name != "Eval"):
            yield from _of_section(nested, name + (".0" if spec.kind == "list" else ""), every)


@cache
def _docs_of(section: type) -> dict[str, str]:
    return argument_docs(inspect.getdoc(section) or "")


@cache
def _takes(spec: TypeSpec) -> str:
    if spec.component is not None:
        noun = REGISTRIES[spec.component].singular
        plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
        many = spec.kind == "list"
        return f"a list of {plural}" if many else f"{article(noun)} and its arguments"
    if nested_section(spec) is not None:
        return "a list of mappings" if spec.kind == "list" else "a mapping"
    return spec.describe()


def _field_default(item: Field[Any]) -> str:
    if item.default is not MISSING:
        return _as_yaml(item.default)
    if item.default_factory is MISSING:
        return "required"
    value = item.default_factory()
    if isinstance(value, dict) and "name" in value:
        return str(value["name"])
    if isinstance(value, list) and value and isinstance(value[0], dict) and "name" in value[0]:
        return f"[{', '.join(str(component['name']) for component in value)}]"
    return _as_yaml(value) if isinstance(value, (list, dict)) else ""


def _as_yaml(value: Any) -> str:
    return emit({"x": value})[3:-1]


# -- components ------------------------------------------------------------------------------------


def _argument(home: str, path: str, spec: ComponentSpec, param: ParamSpec) -> Key:
    return Key(
        f"{path}.{param.name}",
        f"{home}.{param.name}",
        _takes(param.type),
        "required" if param.default is NO_DEFAULT else _default_of(param.default),
        param.doc.replace("``", "`"),
        "value",
        spec.name,
        param.type,
    )


def _default_of(value: Any) -> str:
    return _as_yaml(value) if not isinstance(value, (list, tuple)) or value else "[]"


def _homes() -> list[tuple[str, str]]:
    """``(path, kind)`` of every place where a component may stand."""
    homes: list[tuple[str, str]] = []
    for key in fixed_keys():
        kind = key.type.component if key.type is not None else None
        if kind is None:
            continue
        place = key.written.removesuffix(".name")
        place += ".0" if key.type is not None and key.type.kind == "list" else ""
        homes.append((place, kind))
        homes += [(f"{place}.{name}.0", inner) for name, inner in _inner_kinds(kind)]
    return homes


def _inner_kinds(kind: str) -> list[tuple[str, str]]:
    """Arguments of a kind's components that are components of another kind."""
    found = {
        (param.name, param.component)
        for name in REGISTRIES[kind].names()
        if (spec := REGISTRIES[kind].spec(name)) is not None
        for param in spec.configurable
        if param.component is not None and param.component != kind
    }
    return sorted(found)

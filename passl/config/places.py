"""Where a key that is written in the wrong section belongs."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Optional

from passl.config.foreign import FOREIGN
from passl.config.schema import SECTIONS, Sections
from passl.config.tree import Leaf, MapNode, find
from passl.registry import REGISTRIES
from passl.typespec import TypeSpec, parse_annotation

__all__ = ["field_types", "home_of", "nested_section"]

#: Components whose arguments a misplaced key may be: where they stand, and their kind.
_COMPONENTS = (
    ("Model", "models"),
    ("LRScheduler", "schedules"),
    ("Optimizer", "optimizers"),
    ("DataLoader.Train.dataset", "datasets"),
    ("DataLoader.Train.sampler", "samplers"),
)


@cache
def field_types(section: type) -> dict[str, TypeSpec]:
    """``field -> type`` of a section's dataclass."""
    return {item.name: parse_annotation(str(item.type)) for item in fields(section)}


def nested_section(spec: TypeSpec) -> Optional[type]:
    """The section class that a type names (itself, or beside null, or in a list), if it does."""
    if spec.component is not None:
        return None
    if spec.kind == "opaque":
        return SECTIONS.get(spec.args[0])
    if spec.kind in ("union", "list"):
        found = [nested_section(inner) for inner in spec.args]
        return next((section for section in found if section is not None), None)
    return None


def home_of(key: str, section: str, tree: MapNode) -> Optional[str]:
    """The full path where ``key``, found in ``section``, would be right; None if unknown."""
    candidates = list(_fixed_places().get(key, ()))
    foreign = FOREIGN.get(key, "")
    for path, kind in _COMPONENTS:
        name = find(tree, [*path.split("."), "name"])
        spec = REGISTRIES[kind].spec(name.value) if isinstance(name, Leaf) and name.value else None
        if spec is None:
            continue
        param = spec.param(key)
        if param is not None and not param.runtime:
            candidates.append(f"{path}.{key}")
        place, _, ours = foreign.rpartition(".")
        is_argument = ours != "name" and foreign not in _fixed_places().get(ours, ())
        if place == path and is_argument and spec.param(ours) is None:
            foreign = ""  # this component has another name for it, or nothing of the kind
    if foreign:
        candidates.append(foreign)
    here = f"{section}.{key}" if section else key
    candidates = [path for path in candidates if path != here]
    mode = "Eval" if section.startswith("DataLoader.Eval") else "Train"
    candidates.sort(key=lambda path: f".{mode}" not in path and "DataLoader" in path)
    return candidates[0] if candidates else None


@cache
def _fixed_places() -> dict[str, tuple[str, ...]]:
    """``key -> paths`` of the keys of the fixed sections, without those that say too little."""
    places: dict[str, tuple[str, ...]] = {}
    _collect(Sections, "", places)
    return {
        key: paths
        for key, paths in places.items()
        if key not in ("name", "component", "Train", "Eval")
    }


def _collect(section: type, path: str, places: dict[str, tuple[str, ...]]) -> None:
    for key, spec in field_types(section).items():
        inner = f"{path}.{key}" if path else key
        places[key] = (*places.get(key, ()), inner)
        nested = nested_section(spec)
        if nested is not None and spec.kind != "list":
            _collect(nested, inner, places)

"""Where a key that is written in the wrong section belongs."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Optional

from passl.config.foreign import FOREIGN
from passl.config.schema import SECTIONS, Sections
from passl.config.suggest import one_of
from passl.config.tree import Leaf, MapNode, find
from passl.registry import REGISTRIES
from passl.typespec import TypeSpec, parse_annotation

__all__ = ["DEFAULT_NAMES", "field_types", "home_of", "nested_section", "others_with", "with_name"]

#: Components whose arguments a misplaced key may be: where they stand, and their kind.
_COMPONENTS = (
    ("Model", "models"),
    ("LRScheduler", "schedules"),
    ("Optimizer", "optimizers"),
    ("DataLoader.Train.dataset", "datasets"),
    ("DataLoader.Train.sampler", "samplers"),
)

#: The component at a place where none is named.
DEFAULT_NAMES = {"DataLoader.Train.sampler": "DistributedBatchSampler"}


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
        is_chosen = path not in DEFAULT_NAMES  # else another can be named: see with_name
        if place == path and is_argument and is_chosen and spec.param(ours) is None:
            foreign = ""  # this component has another name for it, or nothing of the kind
    if foreign:
        candidates.append(foreign)
    here = f"{section}.{key}" if section else key
    candidates = [path for path in candidates if path != here]
    mode = "Eval" if section.startswith("DataLoader.Eval") else "Train"
    candidates.sort(key=lambda path: f".{mode}" not in path and "DataLoader" in path)
    return candidates[0] if candidates else None


def others_with(kind: str, argument: str) -> list[str]:
    """Names of the components of a kind that a config may give ``argument``."""
    found = []
    for name in REGISTRIES[kind].names():
        spec = REGISTRIES[kind].spec(name)
        param = None if spec is None else spec.param(argument)
        if param is not None and not param.runtime:
            found.append(name)
    return found


def with_name(home: str, tree: MapNode) -> str:
    """``home``, and the component to name beside it if the one that is there does not take it."""
    place, _, argument = home.rpartition(".")
    kind = dict(_COMPONENTS).get(place)
    if kind is None:
        return home
    name = find(tree, [*place.split("."), "name"])
    called = name.value if isinstance(name, Leaf) else DEFAULT_NAMES.get(place)
    spec = REGISTRIES[kind].spec(called) if isinstance(called, str) else None
    others = others_with(kind, argument)
    if spec is None or spec.param(argument) is not None or not 0 < len(others) <= 3:
        return home
    return f"{home}, with {place}.name: {one_of(others)}"


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

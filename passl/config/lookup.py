"""What a person means by the name of a key: whole, a part, with wildcards, or in PASSL's words."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Optional

from passl.config.compat import RULES, Rule
from passl.config.config import Config
from passl.config.flat import flatten
from passl.config.foreign import FOREIGN
from passl.config.keys import Key, all_keys, without_places
from passl.config.places import home_of
from passl.config.suggest import nearest, one_of
from passl.config.tree import MapNode
from passl.errors import ConfigError
from passl.registry import REGISTRIES

__all__ = ["Found", "Written", "look_up", "written_in"]


@dataclass
class Found:
    """What a text means.

    Attributes:
        keys: the keys; those of ``Eval`` are left out beside the same of ``Train``.
        below: the keys directly below the one that was found, where it is a section or a component.
        rules: what becomes of PASSL's keys of that name.
        note: why these, where the text is not the name of a key here.
    """

    keys: list[Key] = field(default_factory=list)
    below: list[Key] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    note: str = ""


@dataclass(frozen=True)
class Written:
    """A value of a config: where it stands, what it is, and who wrote it."""

    path: str
    value: Any
    origin: str


def look_up(text: str) -> Found:
    """The keys that ``text`` names.

    Args:
        text: ``Optimizer.AdamW.eps``, ``Optimizer.eps``, ``eps``, ``AdamW``,
            ``Loss.Train.0.epsilon``, ``Global.*interval``, or PASSL's ``Optimizer.epsilon``.

    Raises:
        ConfigError: nothing is called so; names what is called alike.
    """
    keys = all_keys()
    if any(sign in text for sign in "*?["):
        matched = [key for key in keys if _fits(key, text)]
        if not matched:
            raise ConfigError(f"no key matches {text!r}; passl-config explain Global lists some")
        return Found(_without_twins(matched))
    wanted = _canonical(text)
    found = Found(_exact(wanted, keys) or _partly(wanted, keys), rules=_rules_for(text))
    if not found.keys and not found.rules:
        found = _elsewhere(text, wanted, keys)
    if len(found.keys) == 1 and found.keys[0].kind != "value":
        found.below = _below(found.keys[0], keys)
    return found


def written_in(config: Config, key: Key) -> list[Written]:
    """Every value that ``key`` has in a config, with where it was written, defaults included."""
    data = config.to_dict()
    wanted = without_places(key.written)
    leaves = dict(flatten(data))
    found = []
    for path, value in leaves.items():
        if without_places(path) == wanted and _is_of(key, path, leaves):
            found.append(Written(path, value, config.origin(path)))
    return found


def _is_of(key: Key, path: str, leaves: dict[str, Any]) -> bool:
    """The value at ``path`` is the component's that the key belongs to, if it does."""
    if not key.owner:
        return True
    named = leaves.get(f"{path.rpartition('.')[0]}.name")
    kinds = [registry.spec(str(named)) for registry in REGISTRIES.values()]
    return any(spec is not None and spec.name == key.owner for spec in kinds)


# -- finding ---------------------------------------------------------------------------------------


def _canonical(text: str) -> str:
    """Without places, and aliases as the components' own names."""
    return ".".join(_own_name(part) for part in without_places(text).split("."))


def _own_name(part: str) -> str:
    for registry in REGISTRIES.values():
        spec = registry.spec(part)
        if spec is not None:
            return spec.name
    return part


def _exact(wanted: str, keys: tuple[Key, ...]) -> list[Key]:
    same = [key for key in keys if key.path == wanted]
    if not same:  # the component is left out
        same = [key for key in keys if key.kind == "value" and _written(key) == wanted]
    if not same:  # a component too many: dataset.ImageNetDataset.transform_ops.RandCropImage
        parts = wanted.split(".")
        shorter = {
            ".".join(parts[:place] + parts[place + 1 :])
            for place, part in enumerate(parts[:-1])
            if any(registry.spec(part) is not None for registry in REGISTRIES.values())
        }
        same = [key for key in keys if key.path in shorter]
    return same


def _partly(wanted: str, keys: tuple[Key, ...]) -> list[Key]:
    end = f".{wanted}"
    found = [key for key in keys if key.path.endswith(end) or _written(key).endswith(end)]
    found = [key for key in found if key.kind != "component" or key.path.endswith(end)]
    return _without_twins(found)


def _written(key: Key) -> str:
    return without_places(key.written)


def _fits(key: Key, pattern: str) -> bool:
    return fnmatchcase(key.path, pattern) or (
        key.kind != "component" and fnmatchcase(key.written, pattern)
    )


def _without_twins(keys: list[Key]) -> list[Key]:
    paths = {key.path for key in keys}
    return [
        key
        for key in keys
        if ".Eval" not in key.path or key.path.replace(".Eval", ".Train", 1) not in paths
    ]


def _below(key: Key, keys: tuple[Key, ...]) -> list[Key]:
    depth = key.path.count(".") + 1
    inside = [
        other
        for other in keys
        if other.path.startswith(f"{key.path}.") and other.path.count(".") == depth
    ]
    return [other for other in inside if key.kind == "component" or other.kind != "component"]


# -- PASSL's and other people's words --------------------------------------------------------------


def _rules_for(text: str) -> list[Rule]:
    parts = text.split(".")
    own = [part for part in parts if _own_name(part) == part and not _is_component(part)]
    tried = [parts, own]
    return [
        rule
        for rule in RULES
        if " " not in rule.path and any(_same_path(rule.path.split("."), one) for one in tried)
    ]


def _is_component(part: str) -> bool:
    return any(registry.spec(part) is not None for registry in REGISTRIES.values())


def _same_path(rule: list[str], parts: list[str]) -> bool:
    if len(parts) == 1 and len(rule) > 1:
        return rule[-1] == parts[0]
    return len(rule) == len(parts) and all(
        wanted in ("*", part) for wanted, part in zip(rule, parts)
    )


def _elsewhere(text: str, wanted: str, keys: tuple[Key, ...]) -> Found:
    """A name of other code bases, or a key looked for in the wrong section.

    Raises:
        ConfigError: neither.
    """
    inside = _inside_mapping(wanted, keys)
    if inside is not None:
        return Found([inside], note=f"{text}: a key of your own below {inside.written}")
    section, wrong, rest = _first_wrong(wanted, keys)
    close = nearest(wrong, _children(section, keys))
    name = wrong.lstrip("-").replace("-", "_")
    wrong = name if name in FOREIGN else wrong
    home = home_of(wrong, section, MapNode()) if not rest else None
    if home is not None and (not close or wrong in FOREIGN):
        there = _exact(_canonical(home), keys)
        if there:
            return Found(there, note=f"{text} is no key here; it is {home}")
    shown = [f"{section}.{name}" if section else name for name in close]
    if not shown:
        last = wanted.rpartition(".")[2]
        shown = nearest(last, {key.path.rpartition(".")[2] for key in keys})
    hint = "; passl-config explain '*' lists all"
    if shown:
        hint = f"; did you mean {one_of([repr(name + rest) for name in shown])}?"
    raise ConfigError(f"no key is called {text!r}{hint}")


def _first_wrong(wanted: str, keys: tuple[Key, ...]) -> tuple[str, str, str]:
    """``(what is right, the first wrong part, .the rest)``."""
    parts = wanted.split(".")
    right: list[str] = []
    for place, part in enumerate(parts):
        if part not in _children(".".join(right), keys):
            rest = "".join(f".{name}" for name in parts[place + 1 :])
            return ".".join(right), part, rest
        right.append(part)
    return ".".join(right[:-1]), right[-1], ""


def _children(section: str, keys: tuple[Key, ...]) -> list[str]:
    """Names directly below ``section``, also where its component is left out."""
    names = [
        path.rpartition(".")[2]
        for key in keys
        for path in (key.path, _written(key))
        if path.rpartition(".")[0] == section
    ]
    return list(dict.fromkeys(names))


def _inside_mapping(wanted: str, keys: tuple[Key, ...]) -> Optional[Key]:
    """The key whose value is a free mapping that ``wanted`` is inside of, such as Global.flags."""
    parent = wanted.rpartition(".")[0]
    return next(
        (
            key
            for key in keys
            if key.path == parent and key.type is not None and key.type.kind == "dict"
            and key.type.component is None
        ),
        None,
    )

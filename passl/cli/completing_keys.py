"""Keys, values and names for the Tab key: ``-o Global.ep`` -> ``Global.epochs=``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from passl.config import load_config
from passl.config.flat import flatten
from passl.config.keys import Key, all_keys, without_places
from passl.errors import PasslError
from passl.registry import MODELS, REGISTRIES
from passl.typespec import TypeSpec

__all__ = [
    "Choice",
    "component_names",
    "explained_keys",
    "key_words",
    "keys_of",
    "model_names",
]


@dataclass(frozen=True)
class Choice:
    """A key as written after ``-o``, what it means, and the values that can be listed."""

    path: str
    doc: str
    values: tuple[str, ...]


def keys_of(config: str, home: str = "", names: Sequence[str] = ()) -> list[Choice]:
    """The keys that can be set.

    Args:
        config: a file or a name; its own components and places in lists count. Empty, or where it
            cannot be read: those of all components.
        home: only the keys below this section, as arguments of the components ``names``.
        names: empty for any.
    """
    written = _paths_in(config) if config else {}
    owners = {_own(name) for name in names}
    choices: dict[str, Choice] = {}
    components: dict[str, list[str]] = {}
    for key in all_keys():
        path = key.written
        if not path.startswith(home) or (owners and key.owner and key.owner not in owners):
            continue
        places = written.get(without_places(path), []) if written else [(path, key.owner)]
        for place, owner in places:
            if key.kind == "component":
                components.setdefault(place, []).append(key.owner)
            elif key.owner in ("", owner):
                choices.setdefault(place, Choice(place, _brief(key), tuple(_values(key.type))))
    for place, known in components.items():
        choices[place] = Choice(place, "which component", tuple(known))
    return list(choices.values())


def explained_keys() -> list[Choice]:
    """Every key as ``passl-config explain`` names it, components included."""
    return [Choice(key.path, _brief(key), ()) for key in all_keys()]


def key_words(current: str, keys: Sequence[Choice], end: str = "=") -> list[tuple[str, str]]:
    """The next part of a key that begins so, or after ``=`` its values.

    Args:
        current: the unfinished word.
        keys: what can be set.
        end: behind a whole key.
    """
    name, equals, value = current.partition("=")
    if equals and end:
        values = next((key.values for key in keys if key.path == name), ())
        return [(f"{name}={one}", "") for one in values if one.startswith(value)]
    words: dict[str, str] = {}
    depth = current.count(".")
    for key in keys:
        if key.path.lower().startswith(current.lower()):
            parts = key.path.split(".")
            if len(parts) > depth + 1:
                words.setdefault(".".join(parts[: depth + 1]) + ".", "")
            else:
                words[key.path + end] = key.doc
    sections = {word for word in words if word.endswith(".")}
    # A section is offered by its keys, where there are any.
    return [(word, text) for word, text in words.items() if f"{word.rstrip('=')}." not in sections]


def model_names() -> list[tuple[str, str]]:
    """Every model, and its aliases."""
    return [(name, "model") for name in MODELS.all_names()]


def component_names() -> list[tuple[str, str]]:
    """Every component that a config can name."""
    return [
        (name, registry.singular) for registry in REGISTRIES.values() for name in registry.names()
    ]


def _paths_in(config: str) -> dict[str, list[tuple[str, str]]]:
    """``path without places -> [(path, component it belongs to)]`` of a config."""
    try:
        data = load_config(config).to_dict()
    except PasslError:
        return {}
    leaves = dict(flatten(data))
    found: dict[str, list[tuple[str, str]]] = {}
    for path in leaves:
        owner = _own(str(leaves.get(f"{path.rpartition('.')[0]}.name", "")))
        found.setdefault(without_places(path), []).append((path, owner))
    return found


def _own(name: str) -> str:
    """A component's own name, of an alias."""
    specs = (registry.spec(name) for registry in REGISTRIES.values())
    return next((spec.name for spec in specs if spec is not None), name)


def _brief(key: Key) -> str:
    return " ".join(key.doc.split("\n\n")[0].split()).partition(". ")[0]


def _values(spec: TypeSpec | None) -> list[str]:
    """The values of a type that is a list of words."""
    if spec is None:
        return []
    if spec.kind == "bool":
        return ["true", "false"]
    if spec.kind == "literal":
        return [str(word) for word in spec.args]
    if spec.kind == "none":
        return ["null"]
    options = spec.args if spec.kind == "union" else ()
    return [word for option in options for word in _values(option)]

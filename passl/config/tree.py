"""The config between YAML and typed sections: nested nodes that remember where they were written.

A node's *origin* is text for people: ``configs/x.yaml:12`` or ``-o Global.epochs=3``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, Union

__all__ = [
    "Leaf",
    "ListNode",
    "MapNode",
    "Node",
    "as_component",
    "find",
    "is_null",
    "is_override",
    "plain",
    "plain_with_text",
    "text_of",
    "walk",
]

#: What the origin of an override starts with.
OVERRIDE = "-o "


@dataclass
class Leaf:
    """A single value.

    Attributes:
        value: None, bool, int, float, str, or a tuple of numbers.
        origin: where the value is written.
        key_origin: where its key is written (the same place for an item of a list).
        text: the source text, if YAML itself calls the value text and only the number grammar of
            :mod:`passl.config.numeric` made more of it: ``1/2`` stays text where text is wanted.
    """

    value: Any
    origin: str
    key_origin: str = ""
    text: Optional[str] = None


@dataclass
class MapNode:
    """A mapping; ``delete`` says that it starts empty instead of adding to its base."""

    entries: dict[str, Node] = field(default_factory=dict)
    origin: str = ""
    key_origin: str = ""
    delete: bool = False


@dataclass
class ListNode:
    """A list."""

    items: list[Node] = field(default_factory=list)
    origin: str = ""
    key_origin: str = ""


Node = Union[Leaf, MapNode, ListNode]


def plain(node: Node) -> Any:
    """The node as ordinary Python data (dict, list and scalars)."""
    if isinstance(node, MapNode):
        return {key: plain(child) for key, child in node.entries.items()}
    if isinstance(node, ListNode):
        return [plain(child) for child in node.items]
    return node.value


def find(node: Optional[Node], path: Sequence[Union[str, int]]) -> Optional[Node]:
    """The node at ``path`` below ``node``; None if there is none."""
    for segment in path:
        if isinstance(node, MapNode):
            node = node.entries.get(str(segment))
        elif isinstance(node, ListNode) and str(segment).isdecimal():
            node = node.items[int(segment)] if int(segment) < len(node.items) else None
        else:
            return None
    return node


def walk(node: Node, path: str) -> Iterator[tuple[str, Node]]:
    """``node`` and everything below it, with dotted paths."""
    yield path, node
    if isinstance(node, MapNode):
        for key, child in node.entries.items():
            yield from walk(child, f"{path}.{key}" if path else key)
    elif isinstance(node, ListNode):
        for position, child in enumerate(node.items):
            yield from walk(child, f"{path}.{position}")


def is_override(origin: str) -> bool:
    """The value was given on the command line."""
    return origin.startswith(OVERRIDE)


def is_null(node: Node) -> bool:
    """The value is null."""
    return isinstance(node, Leaf) and node.value is None


def as_component(node: Node) -> Optional[MapNode]:
    """The node as ``{name: X, **arguments}``: from that, PASSL's ``{X: {...}}``, or just ``X``."""
    if isinstance(node, Leaf) and isinstance(node.value, str):
        return MapNode({"name": node}, node.origin, node.key_origin)
    if not isinstance(node, MapNode):
        return None
    if "name" in node.entries:
        return node
    if len(node.entries) != 1:
        return None
    ((name, inner),) = node.entries.items()
    leaf = Leaf(name, inner.key_origin, inner.key_origin)
    if isinstance(inner, MapNode):
        if "name" in inner.entries:
            return None
        return MapNode({"name": leaf, **inner.entries}, node.origin, node.key_origin)
    return MapNode({"name": leaf}, node.origin, node.key_origin) if is_null(inner) else None


def text_of(node: Optional[Node]) -> Optional[str]:
    """What was typed, where more than YAML was made of it."""
    return node.text if isinstance(node, Leaf) else None


def plain_with_text(node: Node, path: tuple[Any, ...], texts: set[tuple[Any, ...]]) -> Any:
    """Like :func:`plain`, with what was typed at the paths ``texts``."""
    if isinstance(node, MapNode):
        return {
            key: plain_with_text(child, (*path, key), texts) for key, child in node.entries.items()
        }
    if isinstance(node, ListNode):
        return [plain_with_text(child, (*path, i), texts) for i, child in enumerate(node.items)]
    return node.text if path in texts and node.text is not None else node.value

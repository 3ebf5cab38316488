"""``-o Section.key=VALUE``: changes to the tree from the command line.

    Global.epochs=3                       sets; VALUE is YAML and may contain '='
    Loss.Train.0.epsilon=0.1              numbers count list entries from 0
    DataLoader.Train.dataset.transform_ops.1.RandCropImage.size=160
                                          PASSL's way: the component's name may stand in the path
    ~Metric.Train                         removes
    +Loss.Train.1=CELoss                  adds to a list, before the entry that has the number now
    +Global.flags.FLAGS_x=1               the same as without '+'

Whether the key exists and the value fits is checked with the rest of the config; a mistake is
reported with the text of the override.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Optional

from passl.config.merge import drop_old_arguments
from passl.config.tree import OVERRIDE, Leaf, ListNode, MapNode, Node, is_null, plain
from passl.config.yaml_tree import parse_yaml

__all__ = ["apply_overrides"]

_INDEX = re.compile(r"[-+]?\d+\Z")


def apply_overrides(
    tree: MapNode, overrides: Sequence[str], problems: list[str], notes: list[str]
) -> None:
    """Change ``tree`` in place, one override after the other.

    Args:
        tree: the merged config.
        overrides: texts as typed after ``-o``.
        problems: one sentence for each override that cannot be applied.
        notes: arguments dropped because an override renames a component.
    """
    for text in overrides:
        origin = OVERRIDE + text
        try:
            _apply(tree, text, origin, problems, notes)
        except _PathError as error:
            problems.append(f"{origin}: {error}")


class _PathError(Exception):
    """The path of an override leads nowhere; the text is a sentence."""


def _apply(tree: MapNode, text: str, origin: str, problems: list[str], notes: list[str]) -> None:
    path, equals, raw = text.partition("=")
    path = path.strip()
    remove, append = path.startswith("~"), path.startswith("+")
    segments = [segment.strip() for segment in path.lstrip("~+").split(".")]
    if remove and equals:
        raise _PathError(f"'~' removes a key and takes no value; write -o {path}")
    if not equals and not remove:
        raise _PathError("no '='; write -o Section.key=VALUE, or -o ~Section.key to remove a key")
    if not all(segments):
        raise _PathError("an empty name in the path; write -o Section.key=VALUE")
    if segments[0] == "_base_":
        raise _PathError("_base_ is read from the file only; give another file to -c")
    if remove:
        _remove(tree, segments)
        return
    before = len(problems)
    value = parse_yaml(raw, lambda _line: origin, problems) or Leaf(None, origin, origin)
    if len(problems) == before:
        _set(tree, segments, value, append=append, notes=notes)


def _set(
    tree: MapNode, segments: list[str], value: Node, *, append: bool, notes: list[str]
) -> None:
    cursor = _Cursor(tree)
    for segment in segments[:-1]:
        cursor.enter(segment, create=value.origin)
    last = segments[-1]
    if isinstance(cursor.node, ListNode):
        _set_item(cursor, cursor.node, last, value, append=append)
        return
    target = cursor.mapping_for(last, create=value.origin)
    if cursor.names_itself(last):  # transform_ops.1.RandCropImage={size: 160}
        entries = dict(value.entries) if isinstance(value, MapNode) else {}
        target.entries = {"name": target.entries["name"], **entries}
        return
    if last == "name":
        drop_old_arguments(target, value, cursor.path, notes)
    target.entries[last] = value
    target.delete = False


def _set_item(cursor: _Cursor, node: ListNode, last: str, value: Node, *, append: bool) -> None:
    is_end = append and last == str(len(node.items))
    position = len(node.items) if is_end else cursor.position(node, last)
    # With '+' nothing is replaced, whatever way the place is written.
    node.items[position : position + (not append)] = [value]


def _remove(tree: MapNode, segments: list[str]) -> None:
    cursor = _Cursor(tree)
    for segment in segments[:-1]:
        cursor.enter(segment)
    last = segments[-1]
    if isinstance(cursor.node, ListNode):
        del cursor.node.items[cursor.position(cursor.node, last)]
        return
    target = cursor.mapping_for(last)
    if last not in target.entries:
        where = cursor.path or "the config"
        raise _PathError(f"nothing to remove: {where} has no key {last!r}")
    del target.entries[last]


class _Cursor:
    """A position in the tree that knows the path it took.

    Components in lists have two forms, ``{name: X, a: 1}`` and PASSL's ``{X: {a: 1}}``.  A path may
    name the component or leave it out in both.
    """

    def __init__(self, tree: MapNode) -> None:
        self.node: Node = tree
        self.siblings: Optional[ListNode] = None
        self.path = ""

    def enter(self, segment: str, *, create: str = "") -> None:
        """Step to ``segment``; ``create`` (an origin) makes mappings that are not there."""
        if isinstance(self.node, ListNode):
            position = self.position(self.node, segment)
            self.siblings, self.node = self.node, self.node.items[position]
            self._extend(str(position))
            return
        target = self.mapping_for(segment, create=create)
        if self.names_itself(segment):
            self.siblings = None
            return
        child = target.entries.get(segment)
        if create and (child is None or is_null(child)):
            child = target.entries[segment] = MapNode({}, create, create)
        if child is None:
            raise _PathError(f"{self.path or 'the config'} has no key {segment!r}")
        self.node, self.siblings = child, None
        self._extend(segment)

    def mapping_for(self, segment: str, *, create: str = "") -> MapNode:
        """The mapping that ``segment`` is a key of."""
        if not isinstance(self.node, MapNode):
            raise _PathError(self._not_a_container(segment))
        if self.siblings is None:
            return self.node
        wrapped = _passl_form(self.node)
        name = wrapped or _name_of(self.node)
        other = [
            i for i, item in enumerate(self.siblings.items) if _component_name(item) == segment
        ]
        if name and segment != name and other:
            raise _PathError(
                f"{self.path} is {name}; {segment} is entry {other[0]}, "
                f"so write {self.path.rpartition('.')[0]}.{other[0]}"
            )
        if wrapped is None or segment == wrapped:
            return self.node
        inner = self.node.entries[wrapped]
        if not isinstance(inner, MapNode):
            inner = MapNode({}, create or inner.origin, inner.key_origin)
        if segment == "name":  # rename: only the other form can say it
            entries = {"name": Leaf(wrapped, inner.key_origin, inner.key_origin), **inner.entries}
            self.node.entries = dict(entries)
            return self.node
        self.node.entries[wrapped] = inner
        return inner

    def names_itself(self, segment: str) -> bool:
        """``segment`` is not a key but the name of the component the cursor stands on."""
        return (
            self.siblings is not None
            and isinstance(self.node, MapNode)
            and segment not in self.node.entries
            and _name_of(self.node) == segment
        )

    def position(self, node: ListNode, segment: str) -> int:
        """The index that ``segment`` means in ``node``: a number, or a component's name."""
        count = len(node.items)
        if _INDEX.match(segment):
            position = int(segment)
            if -count <= position < count:
                return position % count
            has = (
                f"{count} entries, 0 to {count - 1}"
                if count > 1
                else f"{count or 'no'} entr{'y' if count else 'ies'}"
            )
            raise _PathError(f"{self.path} has {has}; there is no entry {segment}")
        named = [i for i, item in enumerate(node.items) if _component_name(item) == segment]
        if len(named) == 1:
            return named[0]
        if named:
            raise _PathError(f"{self.path} has several {segment}; write the number of one: {named}")
        raise _PathError(
            f"{self.path} is a list; expected the number of an entry (from 0), found {segment!r}"
        )

    def _not_a_container(self, segment: str) -> str:
        value = plain(self.node)
        shown = "null" if value is None else repr(value)
        return f"{self.path} is {shown} ({self.node.origin}); it has no key {segment!r}"

    def _extend(self, segment: str) -> None:
        self.path = f"{self.path}.{segment}" if self.path else segment


def _passl_form(node: Node) -> Optional[str]:
    """The name in ``{Name: {...}}`` or ``{Name: null}``."""
    if isinstance(node, MapNode) and len(node.entries) == 1:
        ((name, inner),) = node.entries.items()
        if isinstance(inner, MapNode) or (isinstance(inner, Leaf) and inner.value is None):
            return name if name != "name" else None
    return None


def _name_of(node: MapNode) -> Optional[str]:
    name = node.entries.get("name")
    return name.value if isinstance(name, Leaf) and isinstance(name.value, str) else None


def _component_name(node: Node) -> Optional[str]:
    if isinstance(node, Leaf):
        return node.value if isinstance(node.value, str) else None
    return _passl_form(node) or (_name_of(node) if isinstance(node, MapNode) else None)

"""Base files: deep merging, and what two sibling bases may not disagree on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from passl.config.shipped import find_config_file, shipped_file, ships_note
from passl.config.tree import Leaf, ListNode, MapNode, Node, is_override, plain
from passl.config.yaml_tree import display, read_yaml_file

__all__ = ["drop_old_arguments", "load_with_bases", "merge"]

#: Keys that belong to a section and not to the component named in it: they survive a new ``name``.
_SECTION_KEYS = (
    (re.compile(r"Model\Z"), frozenset({"class_num"})),  # of the data, whatever the model
    (
        re.compile(r"Optimizer\Z"),
        frozenset(
            {
                "grad_clip",
                "no_weight_decay_name",
                "no_weight_decay_1d",
                "param_groups",
                "layer_decay",
                "freeze",
                "lr",
                "lr_decay_unit",
            }
        ),
    ),
    (
        re.compile(r"DataLoader\.(Train|Eval)\.sampler\Z"),
        frozenset({"batch_size", "drop_last", "shuffle"}),
    ),
    (
        re.compile(r"DataLoader\.(Train|Eval)\.dataset\Z"),
        frozenset({"batch_transform", "batch_transform_ops"}),
    ),
    (re.compile(r"Loss\.(Train|Eval)\.\d+\Z"), frozenset({"weight"})),
)


def load_with_bases(path: Path, problems: list[str], notes: list[str]) -> Optional[MapNode]:
    """The tree of a file merged over its ``_base_`` files; None if a file cannot be used.

    Args:
        path: the file asked for.
        problems: what is wrong is appended here.
        notes: arguments dropped because a component's name changed are told here.
    """
    return _load(path, (), "", problems, notes)


def merge(base: MapNode, over: MapNode, notes: list[str], path: str = "") -> MapNode:
    """``over`` on top of ``base``: mappings merge, everything else (lists too) replaces."""
    result = MapNode(dict(base.entries), over.origin, over.key_origin)
    if over.delete:
        result.entries = {}
    else:
        drop_old_arguments(result, over.entries.get("name"), path, notes)
    for key, child in over.entries.items():
        inner = f"{path}.{key}" if path else key
        below = result.entries.get(key)
        if isinstance(child, MapNode):
            empty = MapNode({}, child.origin, child.key_origin)
            child = merge(below if isinstance(below, MapNode) else empty, child, notes, inner)
        result.entries[key] = child
    return result


def drop_old_arguments(
    component: MapNode, name: Optional[Node], path: str, notes: list[str]
) -> None:
    """Remove the arguments of ``component`` if ``name`` is another one: they were the old one's.

    What the command line has set, and what belongs to the section, stays.
    """
    old = component.entries.get("name")
    if not isinstance(old, Leaf) or not isinstance(name, Leaf) or old.value == name.value:
        return
    kept = next((keys for pattern, keys in _SECTION_KEYS if pattern.match(path)), frozenset())
    dropped = [
        key
        for key, child in component.entries.items()
        if key != "name" and key not in kept and not is_override(child.origin)
    ]
    for key in dropped:
        del component.entries[key]
    if dropped:
        notes.append(
            f"{name.origin}: {path}: {old.value} -> {name.value}; arguments of {old.value} "
            "dropped: " + ", ".join(dropped)
        )


def _load(
    path: Path,
    chain: tuple[Path, ...],
    at: str,
    problems: list[str],
    notes: list[str],
    typed: str = "",
) -> Optional[MapNode]:
    resolved = path.resolve()
    if resolved in chain:
        shown = " -> ".join(display(item) for item in (*chain[chain.index(resolved) :], resolved))
        problems.append(f"{at}: goes in a circle: {shown}")
        return None
    tree = read_yaml_file(path, problems, at=at, typed=typed)
    if tree is None:
        return None
    names, at_base = _base_names(tree, problems)
    bases = [
        _load(
            _base_file(path, name, notes),
            (*chain, resolved),
            f"{where}: _base_",
            problems,
            notes,
            name,
        )
        for name, where in names
    ]
    usable = [base for base in bases if base is not None]
    if len(usable) < len(bases) or at_base is None:
        return None
    merged = MapNode({}, tree.origin, tree.key_origin)
    for base in usable:
        _report_conflicts(merged, base, tree, display(path), problems)
        # What one base drops of its sibling is told, if at all, as a conflict.
        merged = merge(merged, base, [])
    return merge(merged, tree, notes)


def _base_file(path: Path, name: str, notes: list[str]) -> Path:
    """What ``_base_: name`` in the file ``path`` means: a file beside it, else one that ships."""
    found = find_config_file(path.parent / name)
    if found.path.is_file() and found.path.resolve() != path.resolve():
        if found.note:
            notes.append(found.note)
        return found.path
    # Never itself: the base of one's own ViT_base_patch16_224.yaml may be the shipped one.
    shipped = shipped_file(name)
    if shipped is not None and ships_note(name):
        notes.append(ships_note(name))
    return shipped or found.path


def _base_names(tree: MapNode, problems: list[str]) -> tuple[list[tuple[str, str]], Optional[bool]]:
    """``(name, origin)`` of each base, removed from the tree; then None if the key is malformed."""
    node = tree.entries.pop("_base_", None)
    if node is None or (isinstance(node, Leaf) and node.value is None):
        return [], True
    items = node.items if isinstance(node, ListNode) else [node]
    names = [
        (item.value, item.origin)
        for item in items
        if isinstance(item, Leaf) and isinstance(item.value, str)
    ]
    if len(names) < len(items):
        problems.append(
            f"{node.key_origin}: _base_: expected a path or a list of paths to YAML files"
        )
        return [], None
    return names, True


def _report_conflicts(
    left: MapNode, right: MapNode, child: MapNode, shown: str, problems: list[str]
) -> None:
    for path, first, second in _differences(left, right, ()):
        if not _settled(child, path):
            dotted = ".".join(path)
            problems.append(
                f"{second.origin}: {dotted}: {_brief(second)} contradicts {_brief(first)} of "
                f"{first.origin}; "
                f"both are bases of {shown}, so set {dotted} there"
            )


def _differences(
    left: MapNode, right: MapNode, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Node, Node]]:
    """Leaves (and lists) that both sides give different values to."""
    names = left.entries.get("name"), right.entries.get("name")
    if (
        isinstance(names[0], Leaf)
        and isinstance(names[1], Leaf)
        and names[0].value != names[1].value
    ):
        yield (*path, "name"), names[0], names[1]
        return  # arguments of different components are different by nature
    for key, second in right.entries.items():
        first = left.entries.get(key)
        if isinstance(first, MapNode) and isinstance(second, MapNode):
            yield from _differences(first, second, (*path, key))
        elif first is not None and plain(first) != plain(second):
            yield (*path, key), first, second


def _settled(child: MapNode, path: tuple[str, ...]) -> bool:
    """The file itself decides what is at ``path``, so its bases may differ there."""
    node: Optional[Node] = child
    for depth, key in enumerate(path):
        if not isinstance(node, MapNode) or node.delete:
            return node is not None
        if depth and "name" in node.entries:
            return True
        node = node.entries.get(key)
    return node is not None


def _brief(node: Node) -> str:
    if isinstance(node, MapNode):
        return "a mapping"
    value = plain(node)
    text = (
        "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )
    return text if len(text) <= 40 else text[:37] + "..."

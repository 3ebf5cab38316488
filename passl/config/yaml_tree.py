"""YAML text -> nodes with a place for every value.

PyYAML only scans and composes here; it constructs nothing, so no tag can run code.  Aliases,
anchors and merge keys (``<<``) work; a document that grows without end through them is refused.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable, Optional

import yaml

from passl.config.numeric import NumberError, is_extension, parse_plain
from passl.config.shipped import unknown_name
from passl.config.suggest import nearest, one_of
from passl.config.tree import Leaf, ListNode, MapNode, Node

__all__ = ["display", "parse_yaml", "read_yaml_file"]

_PLAIN = "!unquoted"
_CORE = "tag:yaml.org,2002:"
_MAX_NODES = 50_000
_MAX_DEPTH = 100
_MAX_BYTES = 2_000_000


def display(path: Path) -> str:
    """``path`` as messages show it: relative to the current folder when it is inside."""
    whole = path.resolve()
    try:
        return whole.relative_to(Path.cwd().resolve()).as_posix()
    except ValueError:
        shorter = Path(os.path.normpath(path))  # a/../b is b, unless a is a link
        return str(shorter if shorter.resolve() == whole else path)


def read_yaml_file(
    path: Path, problems: list[str], *, at: str = "", typed: str = ""
) -> Optional[MapNode]:
    """The sections of a config file.

    Args:
        path: the file.
        problems: what is wrong is appended here, one sentence each.
        at: where the file is asked for (a ``_base_`` line), to begin the sentence with.
        typed: what was asked for; empty: the path.

    Returns:
        The tree, or None if the file cannot be used at all.
    """
    shown = display(path)
    text = _read_text(path, shown, problems, at, typed or str(path))
    if text is None:
        return None
    before = len(problems)
    node = parse_yaml(text, lambda line: f"{shown}:{line}", problems)
    if node is None and len(problems) > before:
        return None
    if node is None or (isinstance(node, Leaf) and node.value is None):
        problems.append(
            f"{shown}: the file is empty; expected sections such as 'Global:' and 'Model:'"
        )
        return None
    if not isinstance(node, MapNode):
        found = "a list" if isinstance(node, ListNode) else "a single value"
        problems.append(
            f"{node.origin}: the file holds {found}; expected sections such as 'Global:' and "
            "'Model:'"
        )
        return None
    return node


def parse_yaml(text: str, origin_of: Callable[[int], str], problems: list[str]) -> Optional[Node]:
    """The tree of one YAML document; None if it is empty or not YAML.

    Args:
        text: the document.
        origin_of: line number (from 1) -> origin.
        problems: what is wrong is appended here.
    """
    try:
        loader = _Composer(text)
        composed = loader.get_single_node()
        return None if composed is None else _Builder(origin_of, problems).build(composed, "", 0)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code = ord(error.character) if isinstance(error.character, str) else error.character
        problems.append(f"{origin_of(line)}: not valid YAML: character U+{code:04X} is not allowed")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problems.append(f"{origin_of(mark.line + 1 if mark else 1)}: {_yaml_sentence(error)}")
    except _RefusedError as error:
        problems.append(f"{error.args[0]}: {error.args[1]}")
    except RecursionError:
        problems.append(f"{origin_of(1)}: the document is nested too deeply to be a config")
    return None


class _RefusedError(Exception):
    """``(origin, sentence)``: the whole document is refused."""


class _Composer(yaml.SafeLoader):
    """Marks unquoted scalars instead of guessing their type by YAML 1.1."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is yaml.ScalarNode and implicit[0]:
            return _PLAIN
        if kind is yaml.ScalarNode:
            return _CORE + "str"
        return super().resolve(kind, value, implicit)


class _Builder:
    """Turns composed PyYAML nodes into ours."""

    def __init__(self, origin_of: Callable[[int], str], problems: list[str]) -> None:
        self.origin_of = origin_of
        self.problems = problems
        self.count = 0

    def build(self, node: yaml.Node, path: str, depth: int, key_origin: str = "") -> Node:
        origin = self.origin_of(node.start_mark.line + 1)
        self.count += 1
        if self.count > _MAX_NODES:
            raise _RefusedError(origin, f"aliases expand to more than {_MAX_NODES} values; refused")
        if depth > _MAX_DEPTH:
            raise _RefusedError(
                origin, "nested too deeply to be a config (an alias inside itself?)"
            )
        key_origin = key_origin or origin
        if isinstance(node, yaml.MappingNode):
            result = MapNode({}, origin, key_origin)
            self._fill(result, node, path, depth)
            return result
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node.tag, "seq", origin, path)
            items = [
                self.build(item, f"{path}.{position}", depth + 1)
                for position, item in enumerate(node.value)
            ]
            return ListNode(items, origin, key_origin)
        return self._scalar(str(node.value), node.tag, origin, key_origin, path)

    def _fill(self, result: MapNode, node: yaml.MappingNode, path: str, depth: int) -> None:
        self._check_tag(node.tag, "map", result.origin, path)
        inherited: list[MapNode] = []
        for key_node, value_node in node.value:
            where = self.origin_of(key_node.start_mark.line + 1)
            if not isinstance(key_node, yaml.ScalarNode) or not key_node.value:
                self.problems.append(f"{where}: {path or 'top level'}: a key must be a word")
                continue
            key = key_node.value
            inner = f"{path}.{key}" if path else key
            child = self.build(value_node, inner, depth + 1, where)
            if key == "<<" and key_node.tag == _PLAIN:
                inherited += self._merge_values(child, where)
            elif key == "_delete_":
                self._delete_mark(result, child, path)
            else:
                if key in result.entries:
                    first = result.entries[key].key_origin
                    self.problems.append(
                        f"{where}: {inner}: written twice, first at {first}; keep one"
                    )
                result.entries[key] = child
        for source in inherited:  # explicit keys win, then the earlier mapping
            for key, child in source.entries.items():
                result.entries.setdefault(key, child)

    def _merge_values(self, child: Node, where: str) -> list[MapNode]:
        sources = child.items if isinstance(child, ListNode) else [child]
        maps = [source for source in sources if isinstance(source, MapNode)]
        if len(maps) != len(sources):
            self.problems.append(
                f"{where}: '<<' takes a mapping (an alias such as *name) or a list of them"
            )
        return maps

    def _delete_mark(self, result: MapNode, child: Node, path: str) -> None:
        if isinstance(child, Leaf) and isinstance(child.value, bool):
            result.delete = child.value
        else:
            self.problems.append(f"{child.origin}: {path}._delete_: expected true or false")

    def _scalar(self, text: str, tag: str, origin: str, key_origin: str, path: str) -> Leaf:
        if tag != _PLAIN:
            self._check_tag(tag, "str", origin, path)
            return Leaf(text, origin, key_origin)
        try:
            value = parse_plain(text)
        except NumberError as error:
            where = f"{origin}: {path}" if path else origin  # an override has said its key
            self.problems.append(f"{where}: {error}")
            return Leaf(text, origin, key_origin)
        return Leaf(value, origin, key_origin, text if is_extension(text, value) else None)

    def _check_tag(self, tag: str, expected: str, origin: str, path: str) -> None:
        if tag != _CORE + expected:
            shown = tag.replace(_CORE, "!!")
            self.problems.append(
                f"{origin}: {path or 'top level'}: the tag '{shown}' is not supported; write the "
                "plain value"
            )


def _read_text(
    path: Path, shown: str, problems: list[str], at: str, typed: str
) -> Optional[str]:
    prefix = f"{at}: " if at else ""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        problems.append(f"{prefix}{shown}: no such file{_near_files(path, typed)}")
        return None
    except IsADirectoryError:
        names = sorted(item.name for item in path.glob("*.yaml"))
        hint = f", such as {shown}/{names[0]}" if names else ""
        problems.append(f"{prefix}{shown}: is a directory; name a YAML file{hint}")
        return None
    except OSError as error:
        problems.append(f"{prefix}{shown}: cannot be read: {error.strerror}")
        return None
    if len(raw) > _MAX_BYTES:
        problems.append(
            f"{prefix}{shown}: {len(raw)} bytes are too many for a config; is it the right file?"
        )
        return None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        problems.append(
            f"{shown}:{line}: not a text file (byte 0x{raw[error.start]:02x}); a config is YAML "
            "in UTF-8"
        )
        return None
    if "\0" in text:
        problems.append(f"{prefix}{shown}: not a text file; a config is YAML in UTF-8")
        return None
    return text


def _near_files(path: Path, typed: str) -> str:
    """``"; did you mean ...?"`` from the files beside ``path``, and from those that ship."""
    folder = path.parent
    names = [item.name for item in _entries(folder) if item.suffix in (".yaml", ".yml")]
    close = nearest(path.name, names)
    if close:
        shown = [f"'{display(folder / name)}'" for name in close]
        return f"; did you mean {one_of(shown)}?"
    missing = "" if folder.is_dir() else f" (there is no folder {display(folder)})"
    return missing + unknown_name(typed)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _yaml_sentence(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or error.context or "cannot be read"
    if "found character '\\t'" in problem:
        return "a tab in the indentation; YAML takes only spaces"
    if "expected a single document" in (error.context or ""):
        return "a second YAML document begins here ('---'); a config is one document"
    hint = ""
    if "mapping values are not allowed" in problem:
        hint = "; check the indentation, or put a value that contains ': ' in quotes"
    elif "that cannot start any token" in problem or "alias" in problem:
        hint = "; put a value that begins with this character in quotes"
    column = f" (column {error.problem_mark.column + 1})" if error.problem_mark else ""
    return f"not valid YAML: {problem}{column}{hint}"

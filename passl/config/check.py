"""Tree -> typed sections: every key known, every value of its type, every component a real one.

All problems of a config are collected here; nothing stops at the first.  One line a problem:

    configs/x.yaml:12: Global.epoch: unknown key; did you mean 'epochs'?
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import MISSING, fields
from typing import Any, Optional, TypeVar

from passl.config.compat import NOT_AVAILABLE
from passl.config.foreign import FOREIGN
from passl.config.messages import article, expectation, shown, value_hint
from passl.config.places import (
    field_types,
    home_of,
    nested_section,
    others_with,
    with_name,
)
from passl.config.schema import Sections
from passl.config.suggest import did_you_mean, nearest
from passl.config.tree import (
    Leaf,
    ListNode,
    MapNode,
    Node,
    as_component,
    find,
    is_null,
    plain,
    plain_with_text,
    text_of,
    walk,
)
from passl.errors import PasslError
from passl.registry import REGISTRIES, import_user_modules
from passl.signatures import MISSING as NO_DEFAULT
from passl.signatures import ComponentSpec, ParamSpec
from passl.typespec import TypeSpec

__all__ = ["Checker"]

_S = TypeVar("_S")
#: Where components of a kind stand, for "belongs at".
_HOMES = {
    "models": "Model",
    "datasets": "DataLoader.Train.dataset",
    "losses": "Loss",
    "metrics": "Metric",
    "transforms": "DataLoader.Train.dataset.transform_ops",
    "samplers": "DataLoader.Train.sampler",
    "batch_transforms": "DataLoader.Train.batch_transform",
    "optimizers": "Optimizer",
    "schedules": "LRScheduler",
    "hooks": "Hooks",
    "writers": "Logging.writers",
}


class Checker:
    """Checks one tree.

    Attributes:
        problems: one line each.
        failed: paths whose value is not usable, so that checks across sections leave them alone.
        origins: path -> origin of every value that is written.
    """

    def __init__(self, tree: MapNode, source: str) -> None:
        self.tree = tree
        self.source = source
        self.problems: list[str] = []
        self.failed: set[str] = set()
        self.origins: dict[str, str] = {}
        self._imports: list[str] = []
        self._imported = False

    def report(self, path: str, message: str, origin: Optional[str] = None) -> None:
        """Add a problem of the value at ``path``."""
        line = f"{origin or self.origins.get(path) or self.source}: {path}: {message}"
        self.failed.add(path)
        if line not in self.problems:
            self.problems.append(line)

    def sections(self) -> dict[str, Any]:
        """The checked sections by name; placeholders stand where there were problems."""
        return self._fields(Sections, self.tree, "")

    # -- fixed sections ----------------------------------------------------------------------

    def section(self, cls: type[_S], node: Node, path: str) -> Optional[_S]:
        """An instance of a section's dataclass, or None if the node is no mapping."""
        if cls.__name__ == "LossTerm":
            node = as_component(node) or node
        self.origins[path] = node.key_origin or node.origin
        if not isinstance(node, MapNode):
            keys = ", ".join(item.name for item in fields(cls)[:4])  # type: ignore[arg-type]
            self.report(
                path,
                f"expected a mapping with keys such as {keys}, found {shown(node)}",
                node.origin,
            )
            return None
        return cls(**self._fields(cls, node, path))

    def _fields(self, cls: type, node: MapNode, path: str) -> dict[str, Any]:
        types = field_types(cls)
        values: dict[str, Any] = {}
        rest: dict[str, Node] = {}
        for key, child in node.entries.items():
            if key in types and key != "component":
                if not (is_null(child) and _null_is_absence(types[key])):
                    values[key] = self._value(types[key], child, _join(path, key))
            else:
                rest[key] = child
        if "component" in types:
            self._component_of_section(cls, node, rest, path, values)
        else:
            for key, child in rest.items():
                self._unknown_key(key, child, path, list(types))
        for item in fields(cls):
            if (
                item.default is MISSING
                and item.default_factory is MISSING
                and item.name not in values
            ):
                values[item.name] = None
                self._missing(item.name, types[item.name], node, path)
        return {key: value for key, value in values.items() if value is not _BROKEN}

    def _component_of_section(
        self, cls: type, node: MapNode, rest: dict[str, Node], path: str, values: dict[str, Any]
    ) -> None:
        """A section that is a component with keys of its own, such as Optimizer."""
        types = field_types(cls)
        default = next(item.default_factory for item in fields(cls) if item.name == "component")
        if "name" not in rest and default is not MISSING:
            rest = {"name": Leaf(default()["name"], "default"), **rest}
        inner = MapNode(rest, node.origin, node.key_origin)
        lifted = frozenset(types) - {"component"}
        kind = types["component"].component or ""
        values["component"] = self.component(kind, inner, path, lifted=lifted)

    def _value(self, spec: TypeSpec, node: Node, path: str) -> Any:
        """One field of a section."""
        nested = nested_section(spec)
        if nested is not None and spec.kind == "list":
            return self._list_of(node, path, lambda item, inner: self.section(nested, item, inner))
        if nested is not None:
            result = self.section(nested, node, path)
            return _BROKEN if result is None else result
        if spec.component is not None and spec.kind == "list":
            kind = spec.component
            return self._list_of(node, path, lambda item, inner: self.component(kind, item, inner))
        if spec.component is not None:
            return self.component(spec.component, node, path)
        return self.typed(spec, node, path)

    def _list_of(self, node: Node, path: str, check: Any) -> list[Any]:
        self.origins[path] = node.key_origin or node.origin
        if not isinstance(node, ListNode):
            hint = "; begin the entry with '- '" if isinstance(node, MapNode) else ""
            self.report(path, f"expected a list, found {shown(node)}{hint}", node.origin)
            return []
        return [check(item, f"{path}.{position}") for position, item in enumerate(node.items)]

    def _unknown_key(self, key: str, child: Node, path: str, known: list[str]) -> None:
        home = home_of(key, path, self.tree)
        if not path:
            what = "unknown section"
        else:
            what = "unknown key"
        if home is not None:
            hint = f"; that key belongs at {with_name(home, self.tree)}"
        elif "." in key:
            hint = f"; write '{key.split('.')[0]}:' with the rest indented below it"
        else:
            hint = did_you_mean(key, known, label="known sections" if not path else "known")
        self.report(_join(path, key), what + hint, child.key_origin or child.origin)

    def _missing(self, key: str, spec: TypeSpec, node: MapNode, path: str) -> None:
        nearby = nearest(key, node.entries)
        if not path:
            message = "missing; every command needs this section"
        else:
            message = f"missing; expected {expectation(spec)}"
        origin = node.key_origin or node.origin if path else self.source
        if not nearby:  # else the misspelled key has been reported already
            self.report(_join(path, key), message, origin)

    # -- values ------------------------------------------------------------------------------

    def typed(self, spec: TypeSpec, node: Node, path: str) -> Any:
        """The node as a value of the type; problems are reported with the place of the part."""
        for inner, part in walk(node, path):
            self.origins[inner] = part.origin
        value, problems = spec.check(plain(node))
        texts = {
            problem.path for problem in problems if text_of(find(node, problem.path)) is not None
        }
        if texts:  # where text is wanted, 1/2 is what was typed and not 0.5
            again, remaining = spec.check(plain_with_text(node, (), texts))
            if len(remaining) < len(problems):
                value, problems = again, remaining
        for problem in problems:
            part = find(node, problem.path) or node
            full = ".".join([path, *map(str, problem.path)])
            self.report(full, problem.message + value_hint(problem, part), part.origin)
            self.failed.add(path)
        return _BROKEN if problems else value

    # -- components --------------------------------------------------------------------------

    def component(
        self, kind: str, node: Node, path: str, *, lifted: frozenset[str] = frozenset()
    ) -> dict[str, Any]:
        """A component with every argument filled in.

        Args:
            kind: registry it must come from.
            node: ``{name: X, ...}``, ``{X: {...}}``, ``{X: null}`` or just ``X``.
            path: where it stands.
            lifted: arguments that the section handles itself.
        """
        self.origins[path] = node.key_origin or node.origin
        found = as_component(node)
        if found is None:
            self._not_a_component(kind, node, path)
            return {}
        name = found.entries["name"]
        self.origins[_join(path, "name")] = name.origin
        spec = self._spec(kind, name, path)
        if spec is None:
            return {key: plain(child) for key, child in found.entries.items()}
        result: dict[str, Any] = {"name": plain(name)}
        given = {key: child for key, child in found.entries.items() if key != "name"}
        for key, child in given.items():
            param = spec.param(key)
            if param is None or param.runtime:
                self._unknown_argument(spec, key, child, path, lifted)
            else:
                result[key] = self._argument(param, child, _join(path, key))
        for param in spec.configurable:
            if param.name in result or param.name in lifted or param.name in given:
                continue
            if param.required:
                self._missing_argument(spec, param, given, name.origin, path)
            elif param.default is not NO_DEFAULT:
                result[param.name] = _default(param)
        return {key: value for key, value in result.items() if value is not _BROKEN}

    def _argument(self, param: ParamSpec, child: Node, path: str) -> Any:
        kind = param.component
        if kind is None:
            return self.typed(param.type, child, path)
        if is_null(child) and param.default is not NO_DEFAULT:
            self.origins[path] = child.origin
            return _default(param)  # none of them, which is what leaving it out says
        if isinstance(child, ListNode) or param.type.kind == "list":
            return self._list_of(child, path, lambda item, inner: self.component(kind, item, inner))
        return self.component(kind, child, path)

    def _spec(self, kind: str, name: Node, path: str) -> Optional[ComponentSpec]:
        where = _join(path, "name")
        if not isinstance(name, Leaf) or not isinstance(name.value, str):
            self.report(
                where,
                f"expected the name of {article(REGISTRIES[kind].singular)}, found {shown(name)}",
                name.origin,
            )
            return None
        registry = REGISTRIES[kind]
        spec = registry.spec(name.value)
        if spec is None and self._imports and not self._imported:
            self._import_for_real()
            spec = registry.spec(name.value)
        if spec is None:
            self.report(where, self._unknown_name(kind, name.value), name.origin)
        return spec

    def _unknown_name(self, kind: str, name: str) -> str:
        registry = REGISTRIES[kind]
        others = [
            other
            for other in REGISTRIES.values()
            if other.kind != kind and other.spec(name) is not None
        ]
        if others:
            return (
                f"no {registry.singular} is called {name!r}; {name} is "
                f"{article(others[0].singular)} "
                f"and belongs at {_HOMES[others[0].kind]}"
            )
        if name in NOT_AVAILABLE:
            return f"{name} is not available yet in this version"
        names = registry.all_names()
        return f"no {registry.singular} is called {name!r}" + did_you_mean(name, names)

    def _unknown_argument(
        self, spec: ComponentSpec, key: str, child: Node, path: str, lifted: frozenset[str]
    ) -> None:
        param = spec.param(key)
        full, origin = _join(path, key), child.key_origin or child.origin
        if param is not None:
            self.report(full, f"{spec.name} gets this from the engine; remove it", origin)
            return
        known = [*(item.name for item in spec.configurable), *sorted(lifted)]
        ours = FOREIGN.get(key, "").rpartition(".")[2]
        home = _join(path, ours) if ours in known else home_of(key, path, self.tree)
        if home is not None:
            hint = f"; that key belongs at {with_name(home, self.tree)}"
        else:
            others = [] if nearest(key, known) else others_with(spec.kind, key)
            hint = did_you_mean(key, known, label="it takes") if known else "; it takes none"
            if 0 < len(others) <= 3:
                hint = f"; it is an argument of {' and '.join(others)}"
            hint = hint or f"; passl-check --explain {spec.name} lists them"
        self.report(full, f"{spec.name} has no argument {key!r}{hint}", origin)

    def _missing_argument(
        self, spec: ComponentSpec, param: ParamSpec, given: Iterable[str], origin: str, path: str
    ) -> None:
        known = {item.name for item in spec.params}
        unknown = [key for key in given if key not in known]
        if nearest(param.name, unknown):
            return  # the misspelled key has been reported already
        place = self.source if origin == "default" else origin
        self.report(
            _join(path, param.name), f"missing; {spec.name} needs {expectation(param.type)}", place
        )

    def _not_a_component(self, kind: str, node: Node, path: str) -> None:
        noun = article(REGISTRIES[kind].singular)
        if isinstance(node, MapNode) and node.entries:
            names = [key for key in node.entries if REGISTRIES[kind].spec(key) is not None]
            if names:
                self.report(
                    path, f"the arguments of {names[0]} must be indented below it", node.origin
                )
                return
            close = nearest("name", node.entries)
            hint = f" (is {close[0]!r} meant to be 'name'?)" if close else ""
            self.report(
                path,
                f"{noun} without a name{hint}; write 'name: X' and its arguments",
                node.origin,
            )
            return
        self.report(
            path,
            f"expected {noun} ('name: X' and its arguments), found {shown(node)}",
            node.origin,
        )

    # -- components of the user --------------------------------------------------------------

    def know_user_components(self) -> None:
        """Make the components of ``Global.imports`` known, without running the modules."""
        node = find(self.tree, ["Global", "imports"])
        if not isinstance(node, ListNode):
            return
        for item in node.items:
            if isinstance(item, Leaf) and isinstance(item.value, str):
                try:
                    import_user_modules([item.value])
                    self._imports.append(item.value)
                except (PasslError, SyntaxError) as error:
                    self.report("Global.imports", str(error), item.origin)

    def _import_for_real(self) -> None:
        """A name may be registered in a way that only running the module shows."""
        self._imported = True
        for module in self._imports:
            try:
                import_user_modules([module], execute=True)
            except (
                Exception
            ) as error:  # a user's module may raise anything; it is named with the error
                message = f"importing {module} failed: {type(error).__name__}: {error}"
                self.report("Global.imports", message)


#: A value that has been reported; the default stands in for it so that checking can go on.
_BROKEN = object()


def _default(param: ParamSpec) -> Any:
    """The default as the value of the type; components stand in a list, as they do when written."""
    if param.component is not None and isinstance(param.default, tuple):
        return list(param.default)
    value, problems = param.type.check(copy.deepcopy(param.default))
    return param.default if problems else value


def _null_is_absence(spec: TypeSpec) -> bool:
    """``Section: null`` and ``some_list: null`` mean that it is not there."""
    return (
        nested_section(spec) is not None
        or spec.component is not None
        or spec.kind in ("list", "dict")
    )


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key

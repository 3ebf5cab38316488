"""What values an annotation admits, read from its source text.

Configs are checked against annotations without importing the modules that carry them, so types are
not Python objects here but small trees parsed with :mod:`ast`.  The same trees check the fixed
sections of a config (dataclasses) and the arguments of components (signatures): one checker.

The grammar: ``int float str bool None Any``, ``Optional Union |``, ``list Sequence tuple dict
Mapping``, ``Literal``, and ``Annotated`` with ``Range``, ``Component`` or ``Runtime``.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Optional, Union

__all__ = ["Problem", "TypeSpec", "parse_annotation"]

_SCALARS = {
    "int": "int",
    "float": "float",
    "str": "str",
    "bool": "bool",
    "Any": "any",
    "object": "any",
}
_LISTS = {"list": "list", "List": "list", "Sequence": "list", "Iterable": "list"}
_TUPLES = {"tuple", "Tuple"}
_DICTS = {"dict", "Dict", "Mapping"}
_NOUNS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "any": "anything",
}


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a value: ``path`` inside it (``()`` for itself) and a sentence.

    ``choices`` holds the admitted words where only some words are, for a did-you-mean.
    """

    path: tuple[Union[str, int], ...]
    message: str
    found: Any = None
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True)
class TypeSpec:
    """The set of values that an annotation admits.

    Attributes:
        kind: ``int float str bool none any union list tuple dict literal opaque``; ``opaque`` is a
            name the checker does not know (allowed for what the engine supplies only).
        args: inner types, or the words of a literal.
        variadic: a ``tuple[X, ...]``.
        low, high: bounds of a number, ``low_open``/``high_open`` where the bound itself is
            excluded.
        component: kind of component that the value names, if it does.
        runtime: supplied by the engine, never by a config.
    """

    kind: str
    args: tuple[Any, ...] = ()
    variadic: bool = False
    low: Optional[float] = None
    high: Optional[float] = None
    low_open: bool = False
    high_open: bool = False
    component: Optional[str] = None
    runtime: bool = False

    # -- checking ----------------------------------------------------------------------------

    def check(self, value: Any) -> tuple[Any, list[Problem]]:
        """Return ``value`` as the annotated type, and what is wrong with it.

        Lossless conversions happen: 3 -> 3.0 where a float is wanted, 1e4 -> 10000 where an int
        is, a list -> a tuple.  Text is never taken for a number or a bool.
        """
        if self.component is not None or self.kind in ("any", "opaque"):
            return value, []
        return getattr(self, f"_check_{self.kind}")(value)

    def _check_none(self, value: Any) -> tuple[Any, list[Problem]]:
        return value, ([] if value is None else [self._wrong(value)])

    def _check_bool(self, value: Any) -> tuple[Any, list[Problem]]:
        return value, ([] if isinstance(value, bool) else [self._wrong(value)])

    def _check_str(self, value: Any) -> tuple[Any, list[Problem]]:
        return value, ([] if isinstance(value, str) else [self._wrong(value)])

    def _check_int(self, value: Any) -> tuple[Any, list[Problem]]:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not self._in_range(value):
            return value, [self._wrong(value)]
        return value, []

    def _check_float(self, value: Any) -> tuple[Any, list[Problem]]:
        number = float(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if not isinstance(number, float) or not math.isfinite(number) or not self._in_range(number):
            return value, [self._wrong(value)]
        return number, []

    def _check_literal(self, value: Any) -> tuple[Any, list[Problem]]:
        if any(
            value == word and isinstance(value, bool) == isinstance(word, bool)
            for word in self.args
        ):
            return value, []
        return value, [Problem((), self._sentence(value), value, self.args)]

    def _check_union(self, value: Any) -> tuple[Any, list[Problem]]:
        attempts = [option.check(value) for option in self.args]
        for option, (converted, problems) in zip(self.args, attempts):
            if (not problems and type(converted) is type(value)) or (
                not problems and option.kind == "any"
            ):
                return converted, []
        for converted, problems in attempts:
            if not problems:
                return converted, []
        inner = [problems for _, problems in attempts if all(p.path for p in problems)]
        if inner:  # right container, wrong content: say what is wrong inside
            return value, inner[0]
        others = [option for option in self.args if option.kind != "none"]
        if len(others) == 1:
            return value, others[0].check(value)[1]
        return value, [self._wrong(value)]

    def _check_list(self, value: Any) -> tuple[Any, list[Problem]]:
        if not isinstance(value, (list, tuple)):
            return value, [self._wrong(value)]
        return self._check_items(
            list(value), [self.args[0] if self.args else TypeSpec("any")] * len(value)
        )

    def _check_tuple(self, value: Any) -> tuple[Any, list[Problem]]:
        if not isinstance(value, (list, tuple)) or (
            not self.variadic and len(value) != len(self.args)
        ):
            return value, [self._wrong(value)]
        types = [self.args[0]] * len(value) if self.variadic else list(self.args)
        items, problems = self._check_items(list(value), types)
        return tuple(items), problems

    def _check_dict(self, value: Any) -> tuple[Any, list[Problem]]:
        if not isinstance(value, Mapping):
            return value, [self._wrong(value)]
        inner = self.args[1] if len(self.args) == 2 else TypeSpec("any")
        result, problems = {}, []
        for key, item in value.items():
            result[key], found = inner.check(item)
            problems += [replace(p, path=(key, *p.path)) for p in found]
        return result, problems

    def _check_items(
        self, items: list[Any], types: list[TypeSpec]
    ) -> tuple[list[Any], list[Problem]]:
        result, problems = [], []
        for position, (item, inner) in enumerate(zip(items, types)):
            converted, found = inner.check(item)
            result.append(converted)
            problems += [replace(p, path=(position, *p.path)) for p in found]
        return result, problems

    def _in_range(self, number: float) -> bool:
        below = self.low is not None and (
            number <= self.low if self.low_open else number < self.low
        )
        above = self.high is not None and (
            number >= self.high if self.high_open else number > self.high
        )
        return not below and not above

    # -- describing --------------------------------------------------------------------------

    def _wrong(self, value: Any) -> Problem:
        return Problem((), self._sentence(value), value)

    def _sentence(self, value: Any) -> str:
        wanted = self.describe()
        if isinstance(value, float) and math.isinf(value):
            wanted = wanted.replace("a number", "a finite number", 1)
        return f"expected {wanted}, found {_shown(value)}"

    def describe(self) -> str:
        """The admitted values in words: ``a whole number of at least 1``."""
        if self.component is not None:
            many = self.kind == "list"
            return f"a list of {self.component}" if many else f"one of the {self.component}"
        if self.kind in ("int", "float"):
            return _NOUNS[self.kind] + self._describe_range()
        if self.kind in _NOUNS:
            return _NOUNS[self.kind]
        if self.kind == "none":
            return "null"
        if self.kind == "literal":
            return _either([str(word) for word in self.args])
        if self.kind == "union":
            return _either([option.describe() for option in self.args])
        if self.kind == "list":
            return "a list of " + _plural(self.args[0] if self.args else TypeSpec("any"))
        if self.kind == "tuple" and self.variadic:
            return "a list of " + _plural(self.args[0])
        if self.kind == "tuple":
            return f"[{', '.join(_short(inner) for inner in self.args)}]"
        if self.kind == "dict":
            return "a mapping"
        return "a value that the engine supplies"

    def _describe_range(self) -> str:
        parts = []
        if self.low is not None:
            parts.append(f"{'above' if self.low_open else 'of at least'} {_bound(self.low)}")
        if self.high is not None:
            parts.append(f"{'below' if self.high_open else 'at most'} {_bound(self.high)}")
        return "" if not parts else " " + " and ".join(parts)


def _bound(number: float) -> str:
    """Whole numbers with all their digits."""
    return str(number) if isinstance(number, int) else f"{number:g}"


def parse_annotation(annotation: Union[str, ast.expr]) -> TypeSpec:
    """The type tree of an annotation's source.

    Raises:
        ValueError: the text is outside the grammar of this module.
    """
    node = ast.parse(annotation, mode="eval").body if isinstance(annotation, str) else annotation
    if isinstance(node, ast.Constant) and isinstance(node.value, str):  # a quoted annotation
        return parse_annotation(node.value)
    if isinstance(node, ast.Constant) and node.value is None:
        return TypeSpec("none")
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union([parse_annotation(node.left), parse_annotation(node.right)])
    if isinstance(node, (ast.Name, ast.Attribute)):
        return _parse_name(_last_name(node))
    if isinstance(node, ast.Subscript):
        return _parse_subscript(node)
    raise ValueError(f"annotation {ast.unparse(node)!r} is not one a config can be checked against")


def _parse_name(name: str) -> TypeSpec:
    if name in _SCALARS:
        return TypeSpec(_SCALARS[name])
    if name in _LISTS:
        return TypeSpec("list", (TypeSpec("any"),))
    if name in _TUPLES:
        return TypeSpec("tuple", (TypeSpec("any"),), variadic=True)
    if name in _DICTS:
        return TypeSpec("dict")
    return TypeSpec("opaque", (name,))


def _parse_subscript(node: ast.Subscript) -> TypeSpec:
    name = _last_name(node.value)
    items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if name == "Annotated":
        return _parse_annotated(items)
    if name == "Literal":
        return TypeSpec("literal", tuple(ast.literal_eval(item) for item in items))
    if name == "Optional":
        return _union([parse_annotation(items[0]), TypeSpec("none")])
    if name == "Union":
        return _union([parse_annotation(item) for item in items])
    if name in _LISTS:
        return TypeSpec("list", (parse_annotation(items[0]),))
    if name in _DICTS:
        return TypeSpec("dict", tuple(parse_annotation(item) for item in items))
    if name in _TUPLES:
        variadic = isinstance(items[-1], ast.Constant) and items[-1].value is Ellipsis
        inner = items[:-1] if variadic else items
        return TypeSpec("tuple", tuple(parse_annotation(item) for item in inner), variadic=variadic)
    return TypeSpec("opaque", (name,))


def _parse_annotated(items: list[ast.expr]) -> TypeSpec:
    spec = parse_annotation(items[0])
    for extra in items[1:]:
        if not isinstance(extra, ast.Call):
            continue
        values = {kw.arg: ast.literal_eval(kw.value) for kw in extra.keywords if kw.arg}
        positional = [ast.literal_eval(argument) for argument in extra.args]
        marker = _last_name(extra.func)
        if marker == "Range":
            values.update(zip(("min", "max", "min_open", "max_open"), positional))
            spec = _bounded(spec, values)
        elif marker == "Component":
            spec = replace(spec, component=(positional or [values.get("kind")])[0])
        elif marker == "Runtime":
            spec = replace(spec, runtime=True)
    return spec


def _bounded(spec: TypeSpec, values: Mapping[str, Any]) -> TypeSpec:
    """``spec`` with bounds; a union passes them to its numbers."""
    if spec.kind == "union":
        return replace(spec, args=tuple(_bounded(option, values) for option in spec.args))
    if spec.kind not in ("int", "float"):
        return spec
    return replace(
        spec,
        low=values.get("min"),
        high=values.get("max"),
        low_open=bool(values.get("min_open", False)),
        high_open=bool(values.get("max_open", False)),
    )


def _union(options: list[TypeSpec]) -> TypeSpec:
    flat: list[TypeSpec] = []
    for option in options:
        flat.extend(option.args if option.kind == "union" else [option])
    return TypeSpec("union", tuple(flat))


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ast.unparse(node)


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _plural(spec: TypeSpec) -> str:
    plurals = {"int": "whole numbers", "float": "numbers", "str": "texts", "any": "values"}
    return plurals.get(spec.kind, spec.describe()) + (
        spec._describe_range() if spec.kind in plurals else ""
    )


def _short(spec: TypeSpec) -> str:
    return {"int": "whole number", "float": "number", "str": "text"}.get(spec.kind, spec.describe())


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    text = repr(value)
    kind = " (text)" if isinstance(value, str) else ""
    return (text if len(text) <= 60 else text[:57] + "...") + kind

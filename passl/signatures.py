"""The components that a source file declares, read without importing it.

``@MODELS.register()`` above a class or function and ``MODELS.variant("name", Target, ...)`` at
module level are found with :mod:`ast`; from them come names, arguments, types, defaults and
documentation. What only running the module could tell (a decorator inside a loop) is not seen
here; the registry falls back on importing such a module.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Optional, Union

from passl.errors import PasslError
from passl.typespec import TypeSpec, parse_annotation

__all__ = [
    "MISSING",
    "ComponentSpec",
    "ParamSpec",
    "SignatureError",
    "argument_docs",
    "find_source",
    "scan_files",
]


class SignatureError(PasslError):
    """A component's source cannot serve as its schema."""


class _Missing:
    def __repr__(self) -> str:
        return "required"


#: The default of an argument that has none.
MISSING = _Missing()

_Function = Union[ast.FunctionDef, ast.AsyncFunctionDef]


@dataclass(frozen=True)
class ParamSpec:
    """One argument of a component."""

    name: str
    type: TypeSpec
    default: Any = MISSING
    doc: str = ""

    @property
    def required(self) -> bool:
        """A config must give it."""
        return self.default is MISSING and not self.runtime

    @property
    def runtime(self) -> bool:
        """The engine gives it; a config must not."""
        return self.type.runtime

    @property
    def component(self) -> Optional[str]:
        """The kind of component this argument names, if it does."""
        return self.type.component


@dataclass(frozen=True)
class ComponentSpec:
    """One component: what a config may say of it, and where it is written.

    Attributes:
        name, aliases: what a config may call it.
        kind: the registry it belongs to.
        module: the module that declares it; importing this one makes it known.
        qualname: the class or function behind it.
        doc, params: what its source says of it.
        file, line: of the declaration.
        target_module: the module of ``qualname``; empty if that is ``module``.
    """

    name: str
    aliases: tuple[str, ...]
    kind: str
    module: str
    qualname: str
    doc: str
    params: tuple[ParamSpec, ...]
    file: str
    line: int
    target_module: str = ""

    @property
    def defined_in(self) -> str:
        """The module of the class or function behind the name."""
        return self.target_module or self.module

    @property
    def where(self) -> str:
        """``file:line`` of the declaration."""
        return f"{self.file}:{self.line}"

    def param(self, name: str) -> Optional[ParamSpec]:
        """The argument called ``name``, or None."""
        return next((param for param in self.params if param.name == name), None)

    @property
    def configurable(self) -> tuple[ParamSpec, ...]:
        """The arguments a config may give."""
        return tuple(param for param in self.params if not param.runtime)

    @classmethod
    def from_callable(
        cls, name: str, aliases: tuple[str, ...], kind: str, target: Callable[..., Any]
    ) -> ComponentSpec:
        """The spec of an imported component, for declarations the source does not show plainly."""
        docs = argument_docs(inspect.getdoc(target) or "")
        params = []
        for param in inspect.signature(target).parameters.values():
            text = (
                param.annotation
                if isinstance(param.annotation, str)
                else _annotation_text(param.annotation)
            )
            default = MISSING if param.default is param.empty else param.default
            params.append(
                ParamSpec(param.name, parse_annotation(text), default, docs.get(param.name, ""))
            )
        code = inspect.unwrap(target)
        try:
            file, line = inspect.getsourcefile(code) or "?", inspect.getsourcelines(code)[1]
        except (OSError, TypeError):
            file, line = target.__module__, 0
        return cls(
            name,
            aliases,
            kind,
            target.__module__,
            target.__qualname__,
            inspect.getdoc(target) or "",
            tuple(params),
            file,
            line,
        )


def scan_files(
    files: Iterable[Path],
    variables: Mapping[str, str],
    *,
    root: Optional[Path] = None,
    module: Optional[str] = None,
) -> list[ComponentSpec]:
    """Every component declared in ``files``.

    Args:
        files: Python source files.
        variables: registry variable -> kind, for example ``{"LOSSES": "losses"}``.
        root: folder that module names are relative to; or
        module: the dotted name of the (single) file.

    Raises:
        SignatureError: a declaration cannot be read as a schema, with its file and line.
    """
    specs: list[ComponentSpec] = []
    for file in files:
        source = file.read_text(encoding="utf-8")
        if not any(f"{variable}." in source for variable in variables):
            continue
        name = module
        if name is None:
            parts = file.relative_to(root).with_suffix("").parts if root else (file.stem,)
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        specs.extend(_ModuleReader(file, name, source, variables).read())
    return specs


def find_source(module: str) -> Optional[Path]:
    """The source file of a dotted module name; None if there is no such module or no source."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)


class _ModuleReader:
    """Finds the declarations of one module."""

    def __init__(self, file: Path, module: str, source: str, variables: Mapping[str, str]) -> None:
        self.file, self.module, self.variables = str(file), module, variables
        try:
            self.tree = ast.parse(source, filename=str(file))
        except SyntaxError as error:
            raise SignatureError(
                f"{file}:{error.lineno}: this is no valid Python: {error.msg}"
            ) from error
        self.definitions = {
            node.name: node
            for node in self.tree.body
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        }
        self.constants = self._literal_constants()
        self.readers: dict[str, _ModuleReader] = {}

    def read(self) -> list[ComponentSpec]:
        specs = []
        for node in self.tree.body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                for decorator in node.decorator_list:
                    kind = self._registry_call(decorator, "register")
                    if kind is not None and isinstance(decorator, ast.Call):
                        specs.append(self._registered(node, decorator, kind))
            elif isinstance(node, ast.Expr):
                kind = self._registry_call(node.value, "variant")
                if kind is not None and isinstance(node.value, ast.Call):
                    specs.append(self._variant(node.value, kind))
        return specs

    def _registry_call(self, node: ast.expr, method: str) -> Optional[str]:
        """The kind, if ``node`` is ``REGISTRY.method(...)``."""
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            return None
        target = node.func.value
        variable = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")
        return self.variables.get(variable) if node.func.attr == method else None

    def _registered(
        self, node: Union[ast.ClassDef, _Function], call: ast.Call, kind: str
    ) -> ComponentSpec:
        name = self._literal(call.args[0], call) if call.args else node.name
        aliases: tuple[str, ...] = ()
        for keyword in call.keywords:
            if keyword.arg == "name":
                name = self._literal(keyword.value, call) or name
            elif keyword.arg == "aliases":
                aliases = tuple(self._literal(keyword.value, call))
        return ComponentSpec(
            name or node.name,
            aliases,
            kind,
            self.module,
            node.name,
            ast.get_docstring(node) or "",
            self._params(node),
            self.file,
            node.lineno,
        )

    def _variant(self, call: ast.Call, kind: str) -> ComponentSpec:
        name = self._literal(call.args[0], call)
        owner, target = self._target(getattr(call.args[1], "id", "") if len(call.args) > 1 else "")
        if target is None:
            self._fail(
                call,
                f"variant {name!r}: its class must be defined in this module, or imported into it "
                "by `from module import Class`",
            )
        assert target is not None
        defaults: dict[str, Any] = {}
        aliases: tuple[str, ...] = ()
        for keyword in call.keywords:
            value = self._literal(keyword.value, call)
            if keyword.arg is None:
                defaults.update(value)
            elif keyword.arg == "aliases":
                aliases = tuple(value)
            else:
                defaults[keyword.arg] = value
        params = tuple(
            replace(param, default=defaults.pop(param.name)) if param.name in defaults else param
            for param in owner._params(target)
        )
        if defaults:
            self._fail(call, f"variant {name!r}: {target.name} has no argument {sorted(defaults)}")
        doc = ast.get_docstring(target) or ""
        return ComponentSpec(
            name,
            aliases,
            kind,
            self.module,
            target.name,
            doc,
            params,
            self.file,
            call.lineno,
            "" if owner is self else owner.module,
        )

    def _target(
        self, name: str, *, imported: bool = False
    ) -> tuple[_ModuleReader, Optional[Union[ast.ClassDef, _Function]]]:
        """The definition called ``name`` here or where it is imported from, and its reader.

        Args:
            name: in this module.
            imported: it is not one of this module's own, whatever is defined here.
        """
        if name in self.definitions and not imported:
            return self, self.definitions[name]
        module, name = self._imports().get(name, ("", name))
        if not module:
            return self, None
        if module not in self.readers:
            source = find_source(module)
            if source is None:
                return self, None
            text = source.read_text(encoding="utf-8")
            self.readers[module] = _ModuleReader(source, module, text, self.variables)
        reader = self.readers[module]
        return reader, reader.definitions.get(name)

    def _imports(self) -> dict[str, tuple[str, str]]:
        """Names that ``from module import name`` binds -> that module, and the name there."""
        return {
            alias.asname or alias.name: (self._absolute(node), alias.name)
            for node in self.tree.body
            if isinstance(node, ast.ImportFrom) and node.module
            for alias in node.names
        }

    def _absolute(self, node: ast.ImportFrom) -> str:
        """The module of an import, ``from .base import X`` included."""
        up = node.level - (Path(self.file).name == "__init__.py")
        parts = self.module.split(".")
        package = parts[: len(parts) - up] if node.level else []
        return ".".join([*package, node.module or ""])

    def _params(self, node: Union[ast.ClassDef, _Function]) -> tuple[ParamSpec, ...]:
        found = self._constructor(node) if isinstance(node, ast.ClassDef) else (self, node, node)
        if found is None:
            return ()
        owner, holder, function = found
        arguments = function.args
        loose = arguments.vararg or arguments.kwarg
        if loose:
            owner._fail(
                function, f"{node.name}: *{loose.arg} would accept any misspelled key in silence"
            )
        names = [*arguments.posonlyargs, *arguments.args]
        padding: list[Optional[ast.expr]] = [None] * (len(names) - len(arguments.defaults))
        pairs = list(zip(names, [*padding, *arguments.defaults]))
        if isinstance(node, ast.ClassDef):
            pairs = pairs[1:]  # self
        pairs += list(zip(arguments.kwonlyargs, arguments.kw_defaults))
        docs: dict[str, str] = {}
        for place in (holder, function, node):
            docs.update(argument_docs(ast.get_docstring(place) or ""))
        return tuple(
            owner._param(argument, default, docs, node.name) for argument, default in pairs
        )

    def _param(
        self, argument: ast.arg, default: Optional[ast.expr], docs: Mapping[str, str], owner: str
    ) -> ParamSpec:
        if argument.annotation is None:
            self._fail(argument, f"{owner}: argument {argument.arg!r} needs a type annotation")
        assert argument.annotation is not None
        try:
            spec = parse_annotation(argument.annotation)
        except ValueError as error:
            self._fail(argument, f"{owner}.{argument.arg}: {error}")
        value = MISSING if default is None else self._literal(default, argument)
        return ParamSpec(argument.arg, spec, value, docs.get(argument.arg, ""))

    def _constructor(
        self, node: ast.ClassDef
    ) -> Optional[tuple[_ModuleReader, ast.ClassDef, _Function]]:
        """``__init__`` of a class or of its bases, the class that has it, and that one's reader.

        Bases are followed within PASSL and within the package of the class: to find the source of
        another one's would import it.
        """
        for item in node.body:
            if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                return self, node, item
        near = ("passl", self.module.partition(".")[0])
        for base in node.bases:
            name = getattr(base, "id", "")
            imported = name == node.name or name not in self.definitions
            home = self._imports().get(name, ("", ""))[0].partition(".")[0]
            if imported and home not in near:
                continue
            owner, parent = self._target(name, imported=imported)
            found = owner._constructor(parent) if isinstance(parent, ast.ClassDef) else None
            if found is not None:
                return found
        return None

    def _literal_constants(self) -> dict[str, Any]:
        constants: dict[str, Any] = {}
        for node in self.tree.body:
            target = (
                node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            )
            value = getattr(node, "value", None)
            if (
                isinstance(node, (ast.Assign, ast.AnnAssign))
                and isinstance(target, ast.Name)
                and value
            ):
                try:
                    constants[target.id] = _literal_value(value, constants)
                except ValueError:
                    continue  # not a literal: no default can refer to it
        return constants

    def _literal(self, node: ast.expr, at: ast.AST) -> Any:
        try:
            return _literal_value(node, self.constants)
        except ValueError:
            return self._fail(
                at,
                f"{ast.unparse(node)!r} must be a literal, so that it can be read "
                "without running the module",
            )

    def _fail(self, node: ast.AST, message: str) -> Any:
        raise SignatureError(f"{self.file}:{getattr(node, 'lineno', 0)}: {message}")


def _literal_value(node: ast.expr, constants: Mapping[str, Any]) -> Any:
    """The value of a literal, of a name bound to one, or of ``dict(a=1, **NAME)``."""
    if isinstance(node, ast.Name) and node.id in constants:
        return constants[node.id]
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "dict" and not node.args:
        result: dict[str, Any] = {}
        for keyword in node.keywords:
            value = _literal_value(keyword.value, constants)
            result.update(value if keyword.arg is None else {keyword.arg: value})
        return result
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return _literal_value(node.left, constants) ** _literal_value(node.right, constants)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return _literal_value(node.left, constants) / _literal_value(node.right, constants)
    return ast.literal_eval(node)


def argument_docs(doc: str) -> dict[str, str]:
    """``name -> text`` of the ``Args:`` block of a Google-style docstring."""
    block = re.search(r"^(?:Args|Attributes):\n((?:[ \t]+.*\n?|\n)+)", doc + "\n", re.MULTILINE)
    if block is None:
        return {}
    docs: dict[str, str] = {}
    current = ""
    for line in inspect.cleandoc("\n" + block.group(1)).splitlines():
        head = re.match(r"(\w[\w, ]*?)(?: \([^)]*\))?: (.*)", line)
        if head is not None and not line.startswith(" "):
            current = head.group(1)
            for name in current.split(", "):
                docs[name] = head.group(2).strip()
        elif current and line.strip():
            for name in current.split(", "):
                docs[name] += " " + line.strip()
    return docs


def _annotation_text(annotation: Any) -> str:
    return (
        annotation.__name__
        if isinstance(annotation, type)
        else str(annotation).replace("typing.", "")
    )

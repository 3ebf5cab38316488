"""Names in a YAML file -> the classes and functions they build.

A component is declared once, where it is written::

    @LOSSES.register()
    class CELoss:
        def __init__(self, *, epsilon: Annotated[float, Range(min=0.0, max=1.0)] = 0.0) -> None: ...

and that is all it takes to configure it (``Loss.Train: [{name: CELoss, epsilon: 0.1}]``), to check
a config against it and to document it: the signature is the schema, the docstring is the manual.

Checking a config must not cost an import of Paddle, so signatures are read from the *source* (see
:mod:`passl.signatures`), and a module is imported only when one of its components is built.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar

from passl.errors import PasslError
from passl.signatures import ComponentSpec, scan_files

__all__ = [
    "BATCH_TRANSFORMS",
    "DATASETS",
    "EXTERNAL_WEIGHTS",
    "HOOKS",
    "LOSSES",
    "METRICS",
    "MODELS",
    "OPTIMIZERS",
    "REGISTRIES",
    "SAMPLERS",
    "SCHEDULES",
    "TRANSFORMS",
    "WRITERS",
    "Component",
    "Range",
    "RegistryError",
    "Runtime",
    "import_user_modules",
]

_T = TypeVar("_T", bound=Callable[..., Any])
_PACKAGE_DIR = Path(__file__).parent


class RegistryError(PasslError):
    """A component that is declared wrongly, twice, or not at all."""


@dataclass(frozen=True)
class Range:
    """Allowed values of a number; used as ``Annotated[float, Range(min=0.0, max=1.0)]``."""

    min: Optional[float] = None
    max: Optional[float] = None
    min_open: bool = False
    max_open: bool = False


@dataclass(frozen=True)
class Component:
    """The argument is itself a component (or, on a sequence, a list of them) of this kind."""

    kind: str


@dataclass(frozen=True)
class Runtime:
    """The engine supplies this argument; writing it in a config is an error."""


class Registry:
    """The components of one kind, by name.

    Args:
        kind: plural noun, the registry's key in :data:`REGISTRIES` (``"models"``).
        singular: how messages call one entry (``"model"``).
        location: where the built-in ones live, relative to the package (a folder or a file).
    """

    def __init__(self, kind: str, singular: str, location: str) -> None:
        self.kind = kind
        self.singular = singular
        self.variable = kind.upper()
        self._location = _PACKAGE_DIR / location
        self._specs: Optional[dict[str, ComponentSpec]] = None
        self._objects: dict[str, Callable[..., Any]] = {}

    # -- declaring ---------------------------------------------------------------------------

    def register(
        self, name: Optional[str] = None, *, aliases: Sequence[str] = ()
    ) -> Callable[[_T], _T]:
        """Declare the decorated class or function under ``name`` (default: its own name).

        Raises:
            RegistryError: the name is taken, or the signature cannot be a schema.
        """

        def declare(target: _T) -> _T:
            _refuse_loose_signature(target)
            self._add(name or target.__name__, target, aliases)
            return target

        return declare

    def variant(
        self, name: str, target: Callable[..., Any], *, aliases: Sequence[str] = (), **defaults: Any
    ) -> None:
        """Declare ``name`` as ``target`` with other default arguments (still overridable).

        Raises:
            RegistryError: the name is taken, or a default is no argument of ``target``.
        """
        known = inspect.signature(target).parameters
        unknown = sorted(set(defaults) - set(known))
        if unknown:
            raise RegistryError(f"{name}: {target.__qualname__} has no argument {unknown}")

        def build(**arguments: Any) -> Any:
            return target(**{**defaults, **arguments})

        build.__module__, build.__qualname__ = target.__module__, name
        self._add(name, build, aliases)

    # -- looking up --------------------------------------------------------------------------

    def names(self) -> list[str]:
        """All names without aliases, in the order of declaration; imports nothing."""
        return [name for name, spec in self._index().items() if name == spec.name]

    def spec(self, name: str) -> Optional[ComponentSpec]:
        """What is known of ``name`` (or an alias) without importing it; None if unknown."""
        return self._index().get(name)

    def all_names(self) -> list[str]:
        """Names and aliases."""
        return list(self._index())

    def get(self, name: str) -> Callable[..., Any]:
        """The class or function called ``name``; imports its module.

        Raises:
            RegistryError: there is none.
        """
        if name not in self._objects:
            spec = self.spec(name)
            if spec is None:
                raise RegistryError(
                    f"no {self.singular} is called {name!r}; known: "
                    f"{', '.join(sorted(self.names()))}"
                )
            importlib.import_module(spec.module)
        return self._objects[name]

    def build(self, component: Mapping[str, Any], **runtime: Any) -> Any:
        """Build ``{"name": X, **arguments}``, nested components first.

        Args:
            component: the checked config of the component.
            **runtime: what the engine supplies; only what the signature asks for is passed on.
        """
        arguments = dict(component)
        name = arguments.pop("name")
        target = self.get(name)
        spec = self.spec(name)
        if spec is not None:
            for param in spec.params:
                if param.component and arguments.get(param.name) is not None:
                    nested = REGISTRIES[param.component]
                    arguments[param.name] = _build_nested(nested, arguments[param.name], runtime)
                if param.runtime and param.name in runtime:
                    arguments[param.name] = runtime[param.name]
        return target(**arguments)

    def add_specs(self, specs: Iterable[ComponentSpec]) -> None:
        """Make statically read components of a user's module known."""
        self._enter(self._index(), specs)

    def _enter(self, index: dict[str, ComponentSpec], specs: Iterable[ComponentSpec]) -> None:
        for spec in specs:
            for name in (spec.name, *spec.aliases):
                taken = index.get(name)
                if taken is not None and taken.module != spec.module:
                    raise RegistryError(
                        f"{spec.where}: the {self.singular} name {name!r} is already taken by "
                        f"{taken.where}; choose another name"
                    )
                index[name] = spec

    # -- inside ------------------------------------------------------------------------------

    def _index(self) -> dict[str, ComponentSpec]:
        if self._specs is None:
            index: dict[str, ComponentSpec] = {}
            module = self._location.with_suffix(".py")
            files = [module] if module.is_file() else sorted(self._location.rglob("*.py"))
            specs = scan_files(files, {self.variable: self.kind}, root=_PACKAGE_DIR.parent)
            self._enter(index, specs)
            self._specs = index
        return self._specs

    def _add(self, name: str, target: Callable[..., Any], aliases: Sequence[str]) -> None:
        index = self._index()
        for key in (name, *aliases):
            known = index.get(key)
            if key in self._objects or (
                known is not None and known.defined_in != target.__module__
            ):
                owner = known.where if known is not None else self._objects[key].__module__
                raise RegistryError(
                    f"{target.__module__}: the {self.singular} name {key!r} is already taken by "
                    f"{owner}; choose another name"
                )
        for key in (name, *aliases):
            self._objects[key] = target
            if key not in index:  # declared in a way the source does not show
                index[key] = ComponentSpec.from_callable(name, tuple(aliases), self.kind, target)


def import_user_modules(modules: Sequence[str], *, execute: bool = False) -> None:
    """Make the components of ``Global.imports`` known; with ``execute`` import the modules too.

    A module that Python does not find is looked for in the current folder: the commands are no
    scripts of that folder, so it is not on ``sys.path`` by itself.

    Raises:
        RegistryError: a module is not found or declares a component wrongly.
    """
    from passl.signatures import find_source

    variables = {registry.variable: registry.kind for registry in REGISTRIES.values()}
    for module in modules:
        source = find_source(module) or _find_beside(module)
        if source is None:
            raise RegistryError(
                f"module {module!r} is not found, neither in the current folder nor on PYTHONPATH "
                "nor among the installed packages; start where its folder is, or correct the name"
            )
        for spec in scan_files([source], variables, module=module):
            REGISTRIES[spec.kind].add_specs([spec])
        if execute:
            importlib.import_module(module)


def _find_beside(module: str) -> Optional[Path]:
    """Its source in the current folder, which then stays on ``sys.path``, behind all else."""
    from passl.signatures import find_source

    folder = str(Path.cwd())
    if folder in sys.path or "" in sys.path:
        return None
    sys.path.append(folder)
    importlib.invalidate_caches()
    source = find_source(module)
    if source is None:
        sys.path.remove(folder)
    return source


def _build_nested(registry: Registry, value: Any, runtime: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        return registry.build(value, **runtime)
    return [registry.build(item, **runtime) for item in value]


def _refuse_loose_signature(target: Callable[..., Any]) -> None:
    for param in inspect.signature(target).parameters.values():
        where = f"{target.__module__}.{target.__qualname__}"
        if param.kind in (param.VAR_POSITIONAL, param.VAR_KEYWORD):
            raise RegistryError(
                f"{where}: *{param.name} would accept any misspelled key in silence; name each "
                "argument"
            )
        if param.kind is param.POSITIONAL_ONLY or param.annotation is param.empty:
            raise RegistryError(
                f"{where}: argument {param.name!r} needs a name and a type annotation: they are "
                "its schema"
            )


MODELS = Registry("models", "model", "models")
DATASETS = Registry("datasets", "dataset", "data/datasets")
TRANSFORMS = Registry("transforms", "transform", "data/transforms")
BATCH_TRANSFORMS = Registry("batch_transforms", "batch transform", "data/batch_transforms")
SAMPLERS = Registry("samplers", "sampler", "data/samplers")
LOSSES = Registry("losses", "loss", "losses")
METRICS = Registry("metrics", "metric", "metrics")
OPTIMIZERS = Registry("optimizers", "optimizer", "optim")
SCHEDULES = Registry("schedules", "schedule", "schedules")
HOOKS = Registry("hooks", "hook", "engine/hooks")
WRITERS = Registry("writers", "writer", "logs/writers")
#: Readers of weights that a model is built around, such as a block of a language model: how a model
#: reaches them without knowing of file formats.  No config names one, so it is in no list below.
EXTERNAL_WEIGHTS = Registry("external_weights", "reader of weights", "checkpoint/llama.py")

#: Every registry whose components a config can name, by kind.
REGISTRIES: dict[str, Registry] = {
    registry.kind: registry
    for registry in (
        MODELS,
        DATASETS,
        TRANSFORMS,
        BATCH_TRANSFORMS,
        SAMPLERS,
        LOSSES,
        METRICS,
        OPTIMIZERS,
        SCHEDULES,
        HOOKS,
        WRITERS,
    )
}

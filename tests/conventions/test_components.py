"""What is read from the source of a component is what Python says of it."""

from __future__ import annotations

import inspect
from typing import Any, Callable

import pytest

from passl.registry import REGISTRIES
from passl.signatures import MISSING, ComponentSpec

COMPONENTS = [
    (kind, name) for kind, registry in REGISTRIES.items() for name in registry.names()
]
EVERY_KIND_BUT_HOOKS_AND_BATCHES = set(REGISTRIES) - {"hooks", "batch_transforms"}


def test_every_kind_has_components() -> None:
    assert {kind for kind, _ in COMPONENTS} >= EVERY_KIND_BUT_HOOKS_AND_BATCHES


@pytest.mark.parametrize(("kind", "name"), COMPONENTS, ids=[f"{k}-{n}" for k, n in COMPONENTS])
def test_the_source_and_the_class_agree(kind: str, name: str) -> None:
    spec = REGISTRIES[kind].spec(name)
    assert spec is not None
    target, overridden = _target(REGISTRIES[kind].get(name))
    parameters = [p for p in inspect.signature(target).parameters.values() if p.name != "self"]
    assert [param.name for param in spec.params] == [parameter.name for parameter in parameters]
    for param, parameter in zip(spec.params, parameters):
        default = overridden.get(param.name, parameter.default)
        expected = MISSING if default is inspect.Parameter.empty else default
        assert param.default == expected, f"{kind} {name}: default of {param.name}"


@pytest.mark.parametrize(("kind", "name"), COMPONENTS, ids=[f"{k}-{n}" for k, n in COMPONENTS])
def test_a_component_is_documented(kind: str, name: str) -> None:
    spec = REGISTRIES[kind].spec(name)
    assert spec is not None
    assert spec.doc, f"{spec.where}: {name} has no docstring"
    missing = _undocumented(spec)
    assert not missing, f"{spec.where}: {name}: its docstring says nothing of {', '.join(missing)}"


def _undocumented(spec: ComponentSpec) -> list[str]:
    return [param.name for param in spec.configurable if not param.doc]


def _target(registered: Callable[..., Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The class or function behind a name, and the defaults that a variant puts in their place."""
    if inspect.isfunction(registered) and "defaults" in registered.__code__.co_freevars:
        inner = inspect.getclosurevars(registered).nonlocals
        return inner["target"], inner["defaults"]
    return registered, {}

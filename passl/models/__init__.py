"""Models by name.

    from passl.models import create_model, list_models
    list_models("vit_base*")
    model = create_model("ViT_base_patch16_224", seed=0, class_num=10, img_size=96)

Importing this package, and :func:`list_models`, do not import Paddle.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from passl.errors import ConfigError
from passl.registry import MODELS

if TYPE_CHECKING:
    from paddle import nn

    from passl.signatures import ComponentSpec

__all__ = ["check_arguments", "create_model", "list_models", "model_spec", "nearest_models"]


def create_model(name: str, *, seed: int = 0, **args: Any) -> nn.Layer:
    """Build the model called ``name``, with its weights drawn from ``seed``.

    Args:
        name: a name or alias, as :func:`list_models` or ``passl-models`` show them.
        seed: the same seed gives the same weights on every version of Paddle.
        **args: arguments of the model, in place of its defaults.

    Raises:
        ConfigError: no such model, no such argument, or a value that does not fit.
    """
    checked = check_arguments(model_spec(name), args)
    from passl.layers.init import init_seed

    with init_seed(seed):
        return MODELS.build({"name": name, **checked})


def list_models(pattern: str = "*") -> list[str]:
    """Names of the models whose name or one of whose aliases matches, sorted as declared.

    Args:
        pattern: shell wildcards (``*``, ``?``, ``[ab]``); upper and lower case are the same.
    """
    wanted = pattern.lower()
    return [
        name
        for name in MODELS.names()
        if any(fnmatchcase(known.lower(), wanted) for known in (name, *_aliases(name)))
    ]


def nearest_models(name: str) -> list[str]:
    """Up to five names or aliases that look like ``name``, nearest first."""
    spelled: dict[str, str] = {}
    for known in MODELS.all_names():
        spelled.setdefault(known.lower(), known)
    close = difflib.get_close_matches(name.lower().strip("*?"), list(spelled), n=5, cutoff=0.5)
    return [spelled[key] for key in close]


def model_spec(name: str) -> ComponentSpec:
    """What is known of a model without importing it.

    Raises:
        ConfigError: there is none of that name.
    """
    spec = MODELS.spec(name)
    if spec is None:
        raise ConfigError(f"no model is called {name!r}{_did_you_mean(nearest_models(name))}")
    return spec


def check_arguments(spec: ComponentSpec, args: Mapping[str, Any]) -> dict[str, Any]:
    """``args`` as the types that the model's signature asks for.

    Raises:
        ConfigError: with every argument that is unknown or does not fit.
    """
    checked, problems = {}, []
    for key, value in args.items():
        param = spec.param(key)
        if param is None:
            near = difflib.get_close_matches(key, [known.name for known in spec.params], n=1)
            problems.append(f"{spec.name} has no argument {key!r}{_did_you_mean(near)}")
            continue
        checked[key], found = param.type.check(value)
        problems += [f"{spec.name}: {key}: {problem.message}" for problem in found]
    for param in spec.params:
        if param.required and param.name not in args:
            problems.append(f"{spec.name} needs the argument {param.name!r}")
    if problems:
        raise ConfigError(problems)
    return checked


def _aliases(name: str) -> tuple[str, ...]:
    spec = MODELS.spec(name)
    return spec.aliases if spec is not None else ()


def _did_you_mean(names: Sequence[str]) -> str:
    return f"; did you mean {' or '.join(names)}?" if names else "; `passl-models` lists them all"

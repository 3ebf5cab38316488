"""Whether a package can be used, without importing it."""

from __future__ import annotations

import importlib.util

__all__ = ["is_installed"]


def is_installed(name: str) -> bool:
    """Whether there is a package or module ``name`` with code in it.

    Any folder on ``sys.path`` is an empty package to Python: so is ``wandb/``, which Weights &
    Biases leaves in the folder of a run, where ``Global.imports`` may be looked for.

    Args:
        name: without dots.
    """
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None

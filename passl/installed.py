"""What can be imported: whether a package is there, and by a Python that we start."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

__all__ = ["is_installed", "python_for"]


def is_installed(name: str) -> bool:
    """Whether there is a package or module ``name`` with code in it.

    Any folder on ``sys.path`` is an empty package to Python: so is ``wandb/``, which Weights &
    Biases leaves in the folder of a run, where ``Global.imports`` may be looked for.

    Args:
        name: without dots.
    """
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


def python_for(code: str, *options: str) -> list[str]:
    """The start of a command that has this very interpreter run ``code``; arguments may follow.

    ``python -c`` and ``python -m`` look in the current folder first.  Ours may be any folder, and
    what is called ``json.py`` there is none of our business; this package is found all the same.

    Args:
        code: Python.
        options: of the interpreter.
    """
    root = str(Path(__file__).resolve().parents[1])
    paths = (
        "import sys; sys.path[:] = [path for path in sys.path if path]; "
        f"{root!r} in sys.path or sys.path.insert(0, {root!r}); "
    )
    return [sys.executable, *options, "-c", paths + code]

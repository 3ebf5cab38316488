"""Imports point one way, and a config is checked without Paddle."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "passl"

# From the bottom up. A module imports from its own row or from rows above it in this list.
LAYERS = [
    {"errors", "typespec", "installed", "json_text", "trial", "_compat"},
    {"signatures"},
    {"registry", "runtime"},
    {"layers", "config", "logs", "distributed"},
    {
        "models", "data", "losses", "metrics", "schedules", "optim", "precision", "checkpoint",
        "quant",
    },
    {"export", "visualize", "engine", "sweep"},
    {"cli"},
    {"__main__"},
]
# Rows apart, these must not know of each other either.
STRANGERS = [
    ("models", {"data", "optim", "losses", "schedules", "checkpoint"}),
    ("data", {"models", "optim", "losses"}),
    ("config", {"layers", "logs", "distributed"}),
    ("logs", {"config", "layers"}),
]
WITHOUT_PADDLE = [
    "passl",
    "passl.config",
    "passl.registry",
    "passl.signatures",
    "passl.errors",
    "passl.runtime",
    "passl.logs.logger",
    "passl.cli.check",
    "passl.cli.models",
    "passl.cli.train",
    "passl.cli.eval",
    "passl.cli.export",
    "passl.cli.infer",
    "passl.cli.main",
    "passl.cli.new",
    "passl.cli.config",
    "passl.cli.completion",
    "passl.cli.sweep",
    "passl.export.loading",
]
WITHOUT_NUMPY = ["passl", "passl.config", "passl.registry", "passl.errors", "passl.runtime"]

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def _part(module: str) -> str:
    return module.split(".")[1]


def _rank(part: str) -> int:
    for rank, row in enumerate(LAYERS):
        if part in row:
            return rank
    raise AssertionError(f"passl.{part} has no place in the order of imports; add it to LAYERS")


def _imports(path: Path) -> list[tuple[int, str]]:
    """(line, module) of everything of passl that the file imports, inside functions as well."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write imports with the whole name"
            assert node.module is not None
            if node.module == "passl":
                found += [(node.lineno, f"passl.{alias.name}") for alias in node.names]
            else:
                found.append((node.lineno, node.module))
    return [(line, module) for line, module in found if module.startswith("passl.")]


def test_imports_point_down() -> None:
    wrong = []
    for path in FILES:
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        strangers = dict(STRANGERS).get(own, set())
        wrong += [
            f"{path.relative_to(PACKAGE.parent)}:{line}: passl.{own} imports {module}"
            for line, module in _imports(path)
            if _part(module) in strangers or _rank(_part(module)) > _rank(own)
        ]
    assert not wrong, "\n".join(wrong)


def _loaded_after(modules: list[str], watched: str) -> str:
    code = (
        f"import sys, importlib\nfor name in {modules!r}:\n    importlib.import_module(name)\n"
        f"    if {watched!r} in sys.modules:\n        print(name); break"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_checking_a_config_does_not_import_paddle() -> None:
    assert _loaded_after(WITHOUT_PADDLE, "paddle") == ""


def test_config_and_registry_do_not_import_numpy() -> None:
    assert _loaded_after(WITHOUT_NUMPY, "numpy") == ""


def test_zlib_is_loaded_by_the_package_itself() -> None:
    assert _loaded_after(["passl"], "zlib") == "passl"

"""What the pages name is there: modules with what they define, files, options of the commands."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
from docs_blocks import documentation_files

from passl.cli.commands import COMMANDS
from passl.registry import REGISTRIES

REPO = Path(__file__).resolve().parents[2]
PAGES = sorted(
    {*documentation_files(REPO), REPO / "CONTRIBUTING.md", *REPO.glob(".github/**/*.md")}
)
_OUR_FOLDERS = r"(?:passl|tools|tests|configs|benchmarks|docs|tasks)"

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def _spans(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))


def _is_there(name: str) -> bool:
    """``passl.data.dataset.Dataset``: a module, and what its text defines or passes on."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        place = REPO.joinpath(*parts[:count])
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if file.is_file():
            rest = parts[count:]
            return not rest or bool(re.search(rf"\b{rest[0]}\b", file.read_text(encoding="utf-8")))
    return False


@each_page
def test_modules_that_a_page_names_exist(page: Path) -> None:
    named = {name for span in _spans(page) for name in re.findall(r"\bpassl(?:\.\w+)+", span)}
    assert [name for name in sorted(named) if not _is_there(name)] == []


@each_page
def test_files_that_a_page_names_exist(page: Path) -> None:
    named = {
        name.rstrip("/.")
        for span in _spans(page)
        if not re.search(r"[*{<]", span)  # a pattern
        for name in re.findall(rf"(?<![\w./-]){_OUR_FOLDERS}/[\w./-]+", span)
    }
    assert [name for name in sorted(named) if not (REPO / name).exists()] == []


def _options(parser: argparse.ArgumentParser) -> set[str]:
    found = set()
    for action in parser._actions:
        found |= set(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                found |= _options(inner)
    return found


@each_page
def test_options_that_a_page_gives_a_command_exist(page: Path) -> None:
    known = {command.prog: _options(command.build_parser()) for command in COMMANDS.values()}
    wrong = []
    for line in page.read_text(encoding="utf-8").splitlines():
        for prog, options in known.items():
            for rest in re.findall(rf"(?<![\w-]){prog} ([^`|]*)", line):
                given = re.findall(r"(?<!\S)--[a-z][\w-]*", rest)
                wrong += [f"{prog} {option}" for option in given if option not in options]
    assert wrong == []


def test_every_component_is_named_on_a_page() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in (REPO / "docs").glob("*.md"))
    words = set(re.findall(r"\w+", text))
    missing = [
        f"{kind}: {name}"
        for kind, registry in REGISTRIES.items()
        if kind != "models"  # passl-models lists them
        for name in registry.names()
        if registry.spec(name).module.startswith("passl.") and name not in words
    ]
    assert missing == []

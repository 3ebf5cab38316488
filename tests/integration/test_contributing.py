"""CONTRIBUTING is followed to the letter, in a copy of the repository."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from commands import command_dir
from docs_blocks import read_blocks

pytest.importorskip("ruff", reason="the page runs it")

_PARTS = ["passl", "tests/conventions", "tests/helpers", "configs/_base_"]
_FILES = ["pyproject.toml", "setup.py", "tests/conftest.py", "tests/docs_blocks.py"]


def test_the_model_the_data_set_and_the_transform_of_the_page_work(
    repo: Path, tmp_path: Path, user_environment: dict[str, str]
) -> None:
    copy = _copy(repo, tmp_path / "copy")
    blocks = read_blocks(repo / "CONTRIBUTING.md", repo)
    written = []
    for block in blocks:
        named = re.match(r"# ([\w/]+\.(?:py|yaml))\n", block.text)
        if block.language in ("python", "yaml"):
            assert named is not None, f"{block.where}: its first line names no file"
            target = copy / named[1]
            target.parent.mkdir(parents=True, exist_ok=True)
            assert not target.exists(), f"{block.where}: {named[1]} is there already"
            target.write_text(block.text[named.end() :], encoding="utf-8")
            written.append(named[1])
    kinds = ("passl/models", "passl/data/datasets", "passl/data/transforms")
    assert {str(Path(name).parent) for name in written} >= set(kinds)
    path = f"{command_dir(tmp_path)}:{user_environment['PATH']}"
    for block in blocks:
        if block.language == "bash" and block.not_run is None:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.text],
                cwd=copy,
                env={**user_environment, "PYTHONPATH": str(copy), "PATH": path},
                capture_output=True,
                text=True,
                timeout=900,
            )
            said = done.stdout + done.stderr
            assert done.returncode == 0, f"{block.where}:\n{said[-4000:]}"
            assert "best top1: 1.0" in said
            assert " passed" in said
            assert "failed" not in said


def test_a_component_of_the_page_takes_about_twenty_lines_of_code(repo: Path) -> None:
    for block in read_blocks(repo / "CONTRIBUTING.md", repo):
        if block.text.startswith("# passl/"):
            body = block.text.split("register()")[1]
            code = re.sub(r'""".*?"""', "", body, flags=re.DOTALL)
            assert len([line for line in code.splitlines() if line.strip()]) <= 24, block.where


def test_the_forms_for_issues_ask_with_commands_that_exist(repo: Path) -> None:
    forms = sorted((repo / ".github/ISSUE_TEMPLATE").glob("*.md"))
    assert [form.stem for form in forms] == ["bug_report", "feature_request"]
    for form in forms:
        text = form.read_text(encoding="utf-8")
        head = yaml.safe_load(text.split("---\n")[1])
        assert sorted(head) == ["about", "labels", "name"]
        for name in re.findall(r"\bpassl-([a-z]+)", text):
            assert (repo / f"passl/cli/{name}.py").is_file(), name
        for name in re.findall(r"\b(?:docs|tools|configs)/[\w/.]+\b|\bCONTRIBUTING.md", text):
            assert (repo / name).is_file(), name
    assert "passl-config show" in forms[0].read_text()


def _copy(repo: Path, copy: Path) -> Path:
    for part in _PARTS:
        shutil.copytree(repo / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in _FILES:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(repo / name, copy / name)
    return copy

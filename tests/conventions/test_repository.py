"""What ships: links that resolve, targets that exist, nothing of the machine it was written on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from docs_blocks import documentation_files, read_blocks

REPO = Path(__file__).resolve().parents[2]


def _is_installed(path: Path) -> bool:
    """It belongs to a virtual environment, .venv or .venv-paddle26."""
    return any(part.startswith(".venv") for part in path.parts)


PAGES = [*documentation_files(REPO), *REPO.glob("*.md"), *REPO.glob("*/**/README.md")]
PAGES = sorted({page for page in PAGES if not _is_installed(page)})

# A home, a work folder or a package registry named in a file works on one machine only.
_OF_ONE_MACHINE = re.compile(
    r"(?<![\w.])/(?:home|Users|root|work|mnt/[a-z]+|tmp/(?:env|plan|bash_jobs))[/\w.-]*"
    r"|--?(?:extra-)?index-url|--?find-links|--trusted-host|files\.pythonhosted\.|https?://[\w.:-]+/simple\b"
)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)|!\[[^\]]*\]\((?P<image>[^)\s]+)\)")


def shipped_files() -> list[Path]:
    """The files git tracks or would track; all files where there is no git."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPO, capture_output=True, text=True, check=False,
    )
    if listed.returncode == 0:
        names = [REPO / name for name in listed.stdout.split("\0") if name]
    else:
        names = [path for path in REPO.rglob("*") if not _is_installed(path)]
    return [path for path in names if path.is_file()]


def test_the_linter_passes_over_no_file() -> None:
    pytest.importorskip("ruff", reason="it is the linter")
    listed = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--show-files", "."],
        cwd=REPO, capture_output=True, text=True, check=True,
    )
    ours = {str(path) for path in shipped_files() if path.suffix == ".py"}
    assert ours - set(listed.stdout.splitlines()) == set()


def test_no_file_names_the_machine_it_was_written_on() -> None:
    wrong = []
    for path in shipped_files():
        if path == Path(__file__).resolve():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # arrays and images
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            found = _OF_ONE_MACHINE.search(line)
            if found:
                wrong.append(f"{path.relative_to(REPO)}:{number}: {found[0]}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("text", ["cd /home/me/passl", "pip install --index-url x"])
def test_the_check_for_machine_names_finds_them(text: str) -> None:
    assert _OF_ONE_MACHINE.search(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_links_of_a_page_resolve(page: Path) -> None:
    broken = []
    for found in _LINK.finditer(_without_code(page.read_text(encoding="utf-8"))):
        target = found["target"] or found["image"]
        if re.match(r"[a-z]+:", target):  # another site; not looked up
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            broken.append(target)
    assert not broken, f"{page.relative_to(REPO)}: {', '.join(broken)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_files_of_the_repository_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(
        r"`(?:python )?((?:passl|tools|tests|configs|tasks|benchmarks|docs)/[\w./-]+)`",
        page.read_text(encoding="utf-8"),
    )
    missing = [name for name in named if not (REPO / name).exists()]
    assert not missing, f"{page.relative_to(REPO)}: {', '.join(missing)}"


def test_make_targets_that_are_spoken_of_exist() -> None:
    defined = set(re.findall(r"^([a-z0-9-]+):", (REPO / "Makefile").read_text(), re.MULTILINE))
    spoken: set[str] = set()
    for page in [*PAGES, REPO / ".ci/run"]:
        spoken |= set(re.findall(r"(?:^|`|step )make ([a-z0-9-]+)", page.read_text(), re.MULTILINE))
    assert spoken >= {"setup", "test", "quickstart"}
    assert spoken <= defined, f"not in the Makefile: {sorted(spoken - defined)}"


def test_make_help_lists_every_target() -> None:
    text = (REPO / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony is not None
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    shown = subprocess.run(
        ["make", "help"], cwd=REPO, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert sorted(line.split()[0] for line in shown.splitlines()) == sorted(phony[1].split())
    assert "$" not in shown, "a variable's name stands for its value"


def test_make_clean_leaves_runs_alone() -> None:
    would = subprocess.run(
        ["make", "--dry-run", "clean"], cwd=REPO, capture_output=True, text=True, check=True
    ).stdout
    (removal,) = (line for line in would.splitlines() if line.startswith("rm -rf"))
    assert "output" not in removal.split()


def test_ci_stops_at_the_first_step_that_fails_and_says_which(tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    copied = shutil.copy(REPO / ".ci/run", tmp_path / ".ci/run")
    (tmp_path / "Makefile").write_text("setup:\n\t@true\ndocs:\n\t@exit 3\ntest:\n\t@echo no\n")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    ran = subprocess.run([copied], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 2  # of make
    assert "== make setup: done in" in ran.stdout
    assert "== make docs: FAILED with status 2" in ran.stderr
    assert "make test" not in ran.stdout


def test_commands_of_setup_and_tools_are_the_same() -> None:
    setup = (REPO / "setup.py").read_text()
    for name in ("train", "eval", "check", "export", "infer"):
        assert f"passl-{name}=passl.cli.{name}:main" in setup
        assert f"from passl.cli.{name} import main" in (REPO / f"tools/{name}.py").read_text()


def _without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S))


def _anchors(page: Path) -> set[str]:
    """Anchors of the headings, as GitHub and Gitee make them."""
    if page.suffix != ".md":
        return set()
    anchors = set()
    for heading in re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE):
        kept = [
            letter
            for letter in heading.strip().lower()
            if letter in " -_" or unicodedata.category(letter)[0] in "LN"
        ]
        anchors.add("".join(kept).replace(" ", "-"))
    return anchors


def test_the_chinese_readme_has_the_blocks_links_and_figures_of_the_english_one() -> None:
    english, chinese = REPO / "README.md", REPO / "README.zh-CN.md"
    assert chinese.name in english.read_text(encoding="utf-8")
    ours, theirs = (read_blocks(page, REPO) for page in (english, chinese))
    assert [block.text for block in ours] == [block.text for block in theirs]
    texts = [page.read_text(encoding="utf-8") for page in (english, chinese)]
    links = [
        sorted(t for f in _LINK.finditer(_without_code(text)) if (t := f["target"] or f["image"]))
        for text in texts
    ]
    assert [link for link in links[0] if link != chinese.name] == [
        link for link in links[1] if link != english.name
    ]
    figures = [sorted(re.findall(r"\d+(?:\.\d+)?(?:e-\d+)?", _without_code(t))) for t in texts]
    assert figures[0] == figures[1]

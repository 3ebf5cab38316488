"""Every command of README and docs runs, in order, in a folder that looks like the checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from commands import command_dir
from docs_blocks import Block, command_blocks, documentation_files, read_blocks

REPO = Path(__file__).resolve().parents[2]
_QUICK_LIMIT_S, _SLOW_LIMIT_S = 180, 1200

_BLOCKS = [block for block in command_blocks(REPO) if block.not_run is None]
_PAGES = sorted({block.path for block in _BLOCKS})
_SLOW_PAGES = {block.path for block in _BLOCKS if block.slow}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=str(page), marks=[pytest.mark.slow] if page in _SLOW_PAGES else [])
        for page in _PAGES
    ],
)
def test_the_commands_of_the_page_succeed(
    page: Path, tmp_path: Path, user_environment: dict[str, str]
) -> None:
    blocks = [block for block in _BLOCKS if block.path == page]
    limit_s = _SLOW_LIMIT_S if page in _SLOW_PAGES else _QUICK_LIMIT_S
    _run_all(blocks, tmp_path, user_environment, limit_s)


@pytest.mark.parametrize(
    "page", [path.relative_to(REPO) for path in documentation_files(REPO)], ids=str
)
def test_yaml_of_the_page_parses(page: Path) -> None:
    for block in read_blocks(REPO / page, REPO):
        if block.language in ("yaml", "yml"):
            try:
                yaml.safe_load(block.text)
            except yaml.YAMLError as error:
                pytest.fail(f"{block.where}: {error}")


def test_a_block_left_out_without_a_reason_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- not run: -->\n```bash\ntrue\n```\n")
    with pytest.raises(ValueError, match=r"page\.md:2: say why"):
        read_blocks(page, tmp_path)


def test_a_block_that_says_how_it_ends_must_end_so(
    tmp_path: Path, user_environment: dict[str, str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- exit status 2 -->\n```bash\ntrue\n```\n")
    with pytest.raises(pytest.fail.Exception, match=r"page\.md:2: exit status 0"):
        _run_all(read_blocks(page, tmp_path), tmp_path, user_environment, 10)


def test_a_failing_command_fails_its_page(tmp_path: Path, user_environment: dict[str, str]) -> None:
    block = Block(Path("page.md"), 7, "bash", "false | cat\necho unreached\n", False, None)
    with pytest.raises(pytest.fail.Exception, match=r"page\.md:7: exit status 1"):
        _run_all([block], tmp_path, user_environment, 10)


def _run_all(
    blocks: list[Block], folder: Path, environment: dict[str, str], limit_s: float
) -> None:
    checkout = _checkout_like(folder)
    environment = {**environment, "PATH": f"{command_dir(folder)}:{environment['PATH']}"}
    for block in blocks:
        try:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.text],
                cwd=checkout,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=limit_s,
            )
        except subprocess.TimeoutExpired:
            pytest.fail(f"{block.where}: not done after {limit_s} s:\n{block.text}")
        if done.returncode != block.status:
            shown = f"{block.text}\n{done.stdout[-3000:]}"
            pytest.fail(f"{block.where}: exit status {done.returncode}:\n{shown}")


def _checkout_like(folder: Path) -> Path:
    """A folder with the checkout's files, so that what a command writes stays out of it."""
    checkout = folder / "checkout"
    checkout.mkdir()
    ours = {"output", "dataset", "build", "dist"}
    for entry in REPO.iterdir():
        if not entry.name.startswith(".") and entry.name not in ours:
            (checkout / entry.name).symlink_to(entry)
    return checkout

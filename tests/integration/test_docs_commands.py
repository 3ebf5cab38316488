"""Every command of README and docs runs, in order, in a folder that looks like the checkout."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from commands import command_dir
from docs_blocks import Block, command_blocks, documentation_files, read_blocks

from passl import load_config
from passl.cli.commands import COMMANDS
from passl.errors import ConfigError

REPO = Path(__file__).resolve().parents[2]
_QUICK_LIMIT_S, _SLOW_LIMIT_S = 600, 2400

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


def test_every_command_is_accepted_with_its_config(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What can be told in a moment of all pages, also of those that run with the slow tests."""
    monkeypatch.chdir(REPO)
    problems, configs = [], 0
    for block in command_blocks(REPO):
        for prog, words in _commands_of_ours(block.text):
            try:
                arguments = COMMANDS[prog.removeprefix("passl-")].build_parser().parse_args(words)
                config = getattr(arguments, "config", None)
                if isinstance(config, str) and block.status == 0 and _ships(config):
                    mode = "train" if prog in _TRAINING else "eval"
                    load_config(config, arguments.override, mode=mode)
                    configs += 1
            except SystemExit:
                problems.append(f"{block.where}: {prog}: {capsys.readouterr().err}")
            except ConfigError as error:
                problems.append(f"{block.where}: {prog}: {error}")
    assert not problems, "\n".join(problems)
    assert configs > 40


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


_TRAINING = ("passl-train", "passl-check", "passl-benchmark", "passl-sweep")


def _commands_of_ours(text: str) -> Iterator[tuple[str, list[str]]]:
    """Name and words of each ``passl-*`` that begins a line, up to a pipe or the like."""
    for line in text.replace("\\\n", " ").splitlines():
        if not re.match(r"passl-[a-z]+ ", line):
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split, words = True, []
        for word in lexer:
            if set(word) <= set("|&;<>"):
                break
            words.append(word)
        yield words[0], words[1:]


def _ships(config: str) -> bool:
    return config.startswith("configs/") or not config.endswith((".yaml", ".json"))


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

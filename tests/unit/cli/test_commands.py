"""All commands under one name: what they are called, what their help shows, where they lead."""

from __future__ import annotations

import argparse
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import passl
from passl.cli import main as main_module
from passl.cli.commands import COMMANDS
from passl.cli.help_text import laid_out
from passl.cli.main import main, overview, versions
from passl.engine.stopping import STOP_SIGNALS

REPO = Path(__file__).resolve().parents[3]

each_command = pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda one: one.name)


def _subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def test_the_commands_are_those_that_setup_installs():
    installed = dict(re.findall(r'"(passl[\w-]*)=([\w.]+):main"', (REPO / "setup.py").read_text()))
    expected = {one.prog: f"passl.cli.{one.name}" for one in COMMANDS.values() if one.script}
    assert installed == {"passl": "passl.cli.main", **expected}


@pytest.fixture
def _signals():
    """A command that runs as the process leaves signals ignored at its end, for children too."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_signals")
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("name", ["main", *COMMANDS])
def test_the_module_of_a_command_runs_as_a_program_too(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module(f"passl.cli.{name}", run_name="__main__")
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("usage: passl")


def test_the_page_on_commands_has_them_all():
    page = (REPO / "docs/commands.md").read_text()
    for command in COMMANDS.values():
        assert f"| `{command.prog}` | {command.summary} |" in page, command.prog
        for name in _subcommands(command.build_parser()):
            assert f"`{command.prog} {name}`" in page, f"{command.prog} {name}"
    tools = [*(REPO / "tools").glob("*.py"), *(REPO / "tools").glob("*.s*")]
    others = [tool.name for tool in tools if tool.stem not in COMMANDS]
    assert [name for name in others if f"`tools/{name}`" not in page] == []


@each_command
def test_a_command_calls_itself_by_its_name(command):
    assert command.build_parser().prog == command.prog


@each_command
def test_help_shows_examples_of_the_command(command):
    examples = command.build_parser().format_help().partition("examples:\n")[2]
    assert f"{command.prog} " in examples


@each_command
def test_help_of_a_subcommand_shows_examples_of_it(command):
    for name, parser in _subcommands(command.build_parser()).items():
        examples = parser.format_help().partition("examples:\n")[2]
        assert f"{command.prog} {name}" in examples, f"{command.prog} {name}"


@each_command
def test_every_option_says_what_it_is(command):
    for parser in [command.build_parser(), *_subcommands(command.build_parser()).values()]:
        silent = [
            action.dest
            for action in parser._actions
            if not action.help and not isinstance(action, argparse._SubParsersAction)
        ]
        assert silent == [], parser.prog


@each_command
def test_examples_take_options_that_exist(command):
    parsers = [command.build_parser(), *_subcommands(command.build_parser()).values()]
    known = {option for parser in parsers for option in parser._option_string_actions}
    for line in (parsers[0].epilog or "").splitlines():
        if not line.strip().startswith(command.prog):
            continue
        used = set(re.findall(r"(?<=\s)--?[a-z][\w-]*", line.split("   ")[0]))
        assert used <= known, line


@each_command
def test_help_fits_a_terminal_of_80_columns_but_for_what_is_to_be_pasted(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    parsers = [command.build_parser()]
    parsers += _subcommands(parsers[0]).values()
    for parser in parsers:
        for line in parser.format_help().splitlines():
            pasted = line.startswith(("  passl", "  python", "  find", "      -"))
            assert len(line) <= 80 or pasted, line


def test_all_commands_fit_a_terminal_of_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, overview().splitlines())) <= 80


def test_an_example_stays_whole_and_its_meaning_goes_below_it():
    example = "  do this --with that    it is done"
    text = f"Some words\nof prose.\nexit status: 0\n\nexamples:\n{example}\n"
    assert laid_out(text, 60) == (
        f"Some words of prose.\nexit status: 0\n\nexamples:\n{example}"
    )
    assert laid_out(text, 30).endswith("\n  do this --with that\n        it is done")
    long = "  do this --with " + "that " * 9
    assert laid_out(long, 30) == long


def test_help_lists_every_command(capsys):
    assert main([]) == main(["--help"]) == main(["help"]) == 0
    assert capsys.readouterr().out == overview() * 3
    for command in COMMANDS.values():
        assert re.search(rf"^  {command.name} +{re.escape(command.summary)}$", overview(), re.M)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "there is no command 'trian'; did you mean 'train'?"),
        (["--verbose"], "there is no option '--verbose'"),
        (["help", "trian"], "there is no command 'trian'; did you mean 'train'?"),
        (["new", "", "--from", "ViT_base_patch16_224"], "NAME '': give the file a name"),
        (["new", ".", "--from", "ViT_base_patch16_224"], "NAME '.': give the file a name"),
    ],
)
def test_a_mistake_on_the_command_line_is_said(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_command_may_be_written_apart(capsys):
    assert main(["models", "ViT_base_patch16_224"]) == 0
    apart = capsys.readouterr().out
    assert COMMANDS["models"].main()(["ViT_base_patch16_224"]) == 0
    assert apart == capsys.readouterr().out
    assert "ViT_base_patch16_224" in apart


def test_a_mistake_in_a_command_written_apart_is_reported_as_its_own(capsys):
    assert main(["check", "-c", "ViT_base_patch16_224", "-o", "Global.epoch=3"]) == 2
    assert capsys.readouterr().err.startswith("passl-check: -o Global.epoch=3: Global.epoch")


def test_written_apart_the_process_is_that_of_the_command(monkeypatch):
    """The stop signals end it, and config.yaml records what was typed as the command itself."""
    seen = []
    monkeypatch.setattr(sys, "argv", ["passl", "train", "-c", "x.yaml"])
    monkeypatch.setattr(
        "passl.cli.train.main", lambda argv=None: seen.append((argv, list(sys.argv))) or 0
    )
    assert main() == 0
    assert seen == [(None, ["passl-train", "-c", "x.yaml"])]


def test_versions_are_told_without_importing_paddle():
    code = "import sys; from passl.cli.main import main; main(['--version']); "
    code += "print([name for name in ('paddle', 'numpy') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True
    )
    first, imported = done.stdout.splitlines()
    assert first == versions()
    assert imported == "[]"
    assert re.fullmatch(
        rf"passl {re.escape(passl.__version__)} \(Python [\d.]+\S*, paddlepaddle\S* [\d.]+\S*, "
        r"numpy [\d.]+\S*\)",
        first,
    )


def test_where_paddle_is_missing_the_versions_say_so(monkeypatch):
    monkeypatch.setattr(main_module, "_version", lambda _name: None)
    monkeypatch.setattr(main_module.util, "find_spec", lambda _name: None)
    assert "no Paddle, no numpy" in versions()


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "passl", "--version"], cwd=REPO, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, versions())


def test_the_files_for_the_launcher_take_names_too(tmp_path):
    done = subprocess.run(
        [sys.executable, str(REPO / "tools/check.py"), "-c", "ViT_base_patch16_224"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "the config is right" in done.stdout
    assert done.stdout.endswith("its data was not read; --data reads every sample\n")

"""Commands whose output is cut short by their reader, goes nowhere, or cannot show a letter."""

from __future__ import annotations

import argparse
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from passl.cli.common import command_parser, run_command


@pytest.mark.parametrize(
    "arguments",
    [["models"], ["models", "show", "ViT_base_patch16_224"], ["check", "--list"]],
    ids=" ".join,
)
def test_head_gets_its_line_and_nobody_a_traceback(arguments, user_environment):
    command, *rest = arguments
    code = (
        f"import sys; from passl.cli.{command} import main\n"
        f"sys.stdout.reconfigure(line_buffering=True)\nsys.exit(main({rest!r}))"
    )
    done = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=user_environment,
    )  # fmt: skip
    assert done.stdout.readline()
    done.stdout.close()
    assert done.stderr.read() == ""
    assert done.wait() == 0


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", "имя".encode()), ("latin-1", rb"\u0438\u043c\u044f")]
)
def test_a_name_that_stdout_cannot_show_ends_no_command(
    encoding, shown, user_environment, tmp_path
):
    code = "import sys; from passl.cli.config import main; sys.exit(main(sys.argv[1:]))"
    path = tmp_path / "имя.yaml"
    path.write_text("_base_: quickstart/ViT_micro_digits\n")
    done = subprocess.run(
        [sys.executable, "-c", code, "show", "-c", str(path)], capture_output=True, check=False,
        env={**user_environment, "PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"/" + shown + b".yaml" in done.stdout


def shell(text: str, environment: dict[str, str], folder: Path) -> tuple[int, str]:
    """Exit status and screen of a line of a shell."""
    done = subprocess.run(
        ["bash", "-c", text], env=environment, cwd=folder, text=True, timeout=120, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-", "2>/dev/full", ">/dev/full"])
def test_a_run_without_a_screen_trains(closed, run_folder, repo, user_environment):
    train = f"{sys.executable} {repo}/tools/train.py -c {run_folder.config_file}"
    text = f"{train} -o Global.epochs=1 {closed}"
    status, screen = shell(text, user_environment, run_folder.root)
    assert status == 0, screen
    assert run_folder.state()["epoch"] == 2


def test_no_file_gets_what_is_meant_for_a_closed_screen(tmp_path, user_environment):
    code = (
        "import os, sys; from passl.logs.streams import open_closed_streams\n"
        "open_closed_streams()\n"
        "file = open('file', 'w')\n"
        "print('screen'); print('screen', file=sys.stderr)\n"
        "os.write(1, b'screen'); os.write(2, b'screen')\n"
        "sys.exit(file.fileno() <= 2)\n"
    )
    (tmp_path / "code.py").write_text(code)
    text = f"{sys.executable} code.py <&- >&- 2>&-"
    assert shell(text, user_environment, tmp_path) == (0, "")
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has a disk that is always full")
def test_an_output_that_is_not_complete_is_a_failure(tmp_path, user_environment, repo):
    """``passl-config show > FILE`` must not leave half a config and say that all went well."""
    show = f"{sys.executable} -m passl.cli.config show -c quickstart/ViT_micro_digits"
    status, screen = shell(f"{show} >/dev/full", user_environment, repo)
    assert status == 1
    assert screen.startswith("passl-config: cannot write what the command has to say: No space")
    assert "Traceback" not in screen
    listing = f"{sys.executable} -m passl.cli.models --help 2>/dev/full"
    assert shell(listing, user_environment, repo)[0] == 0


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "cannot use a/b: Permission"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "a/b"), "cannot write a/b: Disk quota"),
    ],
)
def test_what_the_system_forbids_is_a_sentence(capsys, error, said):
    def action(_arguments: argparse.Namespace) -> int:
        raise error

    parser = command_parser("passl-some", "", "")
    assert run_command(parser, action, []) == 1
    assert capsys.readouterr().err.startswith(f"passl-some: {said}")
    with pytest.raises(OSError, match="a/b"):
        run_command(parser, action, ["--traceback"])

"""Commands whose output is cut short by their reader, or cannot show a letter."""

from __future__ import annotations

import subprocess
import sys

import pytest


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

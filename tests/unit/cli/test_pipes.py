"""Commands whose output is cut short by their reader."""

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

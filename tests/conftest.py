"""What every test needs: the settings the commands run with, and an environment to run them in."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from local_ports import LAUNCHER_PORTS

pytest_plugins = ["small_run"]

REPO = Path(__file__).resolve().parents[1]
_USER_ENVIRONMENT = dict(os.environ)

# One thread a process: several tests run at a time, and a 2-thread product sums in another order.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The launcher takes this for a GPU machine, also where it is empty.
os.environ.pop("CUDA_VISIBLE_DEVICES", None)

# A shell ignores SIGINT for what it starts with &, and what the tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# And nohup ignores SIGHUP. With a handler it goes on being of no effect here, but not there.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)

from passl import runtime  # noqa: E402  the settings come before Paddle

runtime.prepare()


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the checkout."""
    return REPO


@pytest.fixture(scope="session")
def user_environment() -> dict[str, str]:
    """The environment of the shell that started pytest, for commands run as a user would.

    Without what the commands set for themselves, and with the installed commands and this checkout
    in reach.
    """
    environment = {
        key: value
        for key, value in _USER_ENVIRONMENT.items()
        if not key.startswith(("PADDLE_", "FLAGS_", "PYTEST_")) and key != "CUDA_VISIBLE_DEVICES"
    }
    environment["OMP_NUM_THREADS"] = "1"
    environment.update(LAUNCHER_PORTS)
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(REPO), _USER_ENVIRONMENT.get("PYTHONPATH")])
    )
    return environment


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which commands of the documentation are not run, and why."""
    from docs_blocks import command_blocks

    blocks = command_blocks(REPO)
    left_out = [block for block in blocks if block.not_run is not None]
    if blocks:
        terminalreporter.write_line(
            f"documentation: {len(blocks)} command blocks, {len(left_out)} of them not run"
        )
    for block in left_out:
        terminalreporter.write_line(f"  {block.where}: {block.not_run}")

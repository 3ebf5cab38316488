"""Runs of several processes, started by Paddle's launcher."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from small_run import RunFolder


def launch(
    run: RunFolder,
    repo: Path,
    environment: dict[str, str],
    *overrides: str,
    processes: int = 2,
    command: str = "",
) -> str:
    """Train with several processes; returns what they printed."""
    arguments = ("-c", str(run.config_file), "-o", *overrides)
    script = Path(command or repo / "tools" / "train.py")
    status, logs = launch_script(
        run, repo, environment, script, *arguments, processes=processes
    )
    assert status == 0, "\n".join(logs)
    return "".join(logs)


def launch_script(
    run: RunFolder,
    repo: Path,
    environment: dict[str, str],
    script: Path,
    *arguments: str,
    processes: int = 2,
) -> tuple[int, list[str]]:
    """Run a script in several processes; returns the exit status and what each printed."""
    command = [
        sys.executable,
        "-m",
        "paddle.distributed.launch",
        "--nproc_per_node",
        str(processes),
        "--log_dir",
        str(run.root / "launch"),
        str(script),
        *arguments,
    ]
    done = subprocess.run(
        command, env=environment, cwd=repo, capture_output=True, text=True, timeout=600, check=False
    )
    paths = sorted((run.root / "launch").glob("workerlog.*"))
    return done.returncode, [done.stdout + done.stderr, *(path.read_text() for path in paths)]

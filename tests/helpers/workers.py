"""Several processes of one job, started without the launcher, for tests of what they compute."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from local_ports import free_port


def run_workers(
    script: Path, size: int, environment: dict[str, str], *arguments: str, timeout_s: float = 600.0
) -> list[tuple[int, str]]:
    """Run a script as ranks 0 to ``size - 1``; the exit status and output of each."""
    endpoints = [f"127.0.0.1:{free_port()}" for _ in range(size)]
    processes = []
    for rank in range(size):
        variables = {
            "PADDLE_TRAINER_ID": str(rank),
            "PADDLE_TRAINERS_NUM": str(size),
            "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints),
            "PADDLE_CURRENT_ENDPOINT": endpoints[rank],
            "PADDLE_MASTER": endpoints[0],
            "PADDLE_DISTRI_BACKEND": "gloo",
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, "-W", "ignore", str(script), *arguments],
                env={**environment, **variables},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    ended = []
    try:
        for process in processes:
            output, _ = process.communicate(timeout=timeout_s)
            ended.append((process.returncode, output))
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    return ended

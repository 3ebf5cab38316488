"""Two processes through Paddle's launcher compute what one process computes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_run import RunFolder

pytestmark = pytest.mark.slow

# Dropout masks are drawn per rank, so they are off where two worlds are compared.
EXACT = (
    "Model.drop_rate=0.0",
    "Model.drop_path_rate=0.0",
    "Global.epochs=2",
    "Global.global_batch_size=250",
)


def launch(run: RunFolder, repo: Path, environment: dict[str, str], *overrides: str) -> str:
    """Train with two processes; returns what the launcher and its workers printed."""
    command = [
        sys.executable,
        "-m",
        "paddle.distributed.launch",
        "--nproc_per_node",
        "2",
        "--log_dir",
        str(run.root / "launch"),
        str(repo / "tools" / "train.py"),
        "-c",
        str(run.config_file),
        "-o",
        *overrides,
    ]
    done = subprocess.run(
        command, env=environment, cwd=repo, capture_output=True, text=True, timeout=300, check=False
    )
    logs = "".join(path.read_text() for path in sorted((run.root / "launch").glob("workerlog.*")))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    return logs


def test_two_processes_give_the_weights_and_figures_of_one(make_run, repo, user_environment):
    # 1438 samples in batches of 250: the last one has 188, 94 for each of the two.
    one, two = make_run("one"), make_run("two")
    drop_batch = "~DataLoader.Train.sampler.batch_size"
    assert one.train(drop_batch, *EXACT) == 0
    logs = launch(two, repo, user_environment, drop_batch, *EXACT)
    assert "global batch 250 = 2 processes x 125 images" in logs
    for name, value in one.weights().items():
        np.testing.assert_allclose(two.weights()[name], value, rtol=0, atol=2e-5, err_msg=name)
    for mine, theirs in zip(one.records("train"), two.records("train")):
        assert mine["step"] == theirs["step"]
        for key in ("lr", "loss", "top1", "grad_norm", "samples_seen"):
            assert theirs[key] == pytest.approx(mine[key], rel=1e-4), key
    for mine, theirs in zip(one.records("eval"), two.records("eval")):
        assert (theirs["samples"], theirs["top1"]) == (
            mine["samples"],
            pytest.approx(mine["top1"], abs=0.006),
        )
    assert re.search(r"passl INFO", (two.dir / "rank_1.log").read_text())


def test_a_run_of_two_processes_continues_on_one(make_run, repo, user_environment):
    whole, moved = make_run("whole"), make_run("moved")
    drop_batch = "~DataLoader.Train.sampler.batch_size"
    assert whole.train(drop_batch, *EXACT) == 0
    launch(moved, repo, user_environment, drop_batch, *EXACT, "Global.max_train_step=5")
    assert moved.state()["step"] == 5
    assert moved.train(drop_batch, *EXACT) == 0
    for name, value in whole.weights().items():
        np.testing.assert_allclose(moved.weights()[name], value, rtol=0, atol=2e-5, err_msg=name)

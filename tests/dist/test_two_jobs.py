"""Two jobs of several processes, started by mistake in one folder at the same moment."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from small_run import RunFolder
from started import StartedRun

pytestmark = pytest.mark.slow

_LIMIT_S = 120.0


def start(run: RunFolder, repo: Path, environment: dict[str, str], name: str) -> StartedRun:
    command = [sys.executable, "-W", "ignore", "-m", "paddle.distributed.launch"]
    command += ["--nproc_per_node", "2", "--log_dir", str(run.root / name)]
    command += [str(repo / "tools" / "train.py"), "-c", str(run.config_file), "-o"]
    command += ["~DataLoader.Train.sampler.batch_size", "Global.global_batch_size=250"]
    command += ["Global.epochs=1000", "Global.imports=[slow_parts]"]
    command += ["Hooks=[{name: Pause, seconds: 0.05}]"]
    return StartedRun(command, run.root / f"{name}.txt", environment)


def test_one_of_them_trains_and_the_other_leaves_no_trace(run_folder, repo, user_environment):
    helpers = str(repo / "tests" / "helpers")
    variables = {**user_environment, "PYTHONPATH": f"{helpers}:{user_environment['PYTHONPATH']}"}
    names = ("first", "second")
    with start(run_folder, repo, variables, names[0]) as one, start(
        run_folder, repo, variables, names[1]
    ) as two:
        limit = time.monotonic() + _LIMIT_S
        while one.process.poll() is None and two.process.poll() is None:
            assert time.monotonic() < limit, one.text + two.text
            time.sleep(0.01)
        loser, winner = (one, two) if two.process.poll() is None else (two, one)
        assert "is in use by another run" in loser.text
        mark = run_folder.dir / "metrics.jsonl"
        winner.wait_until(lambda: mark.exists() and mark.stat().st_size > 0, "it trains")
        (run_folder.dir / "STOP").touch()
        winner.end()
    assert "is in use" not in winner.text
    assert "stopped after step" in run_folder.log()
    assert run_folder.state()["step"] > 0
    for name in ("train.log", "rank_1.log"):
        assert run_folder.log(name).count("PASSL_TUNE=0 switches this off") == 1
        assert "ERROR" not in run_folder.log(name)
    assert not list(run_folder.dir.glob("error_rank_*"))
    assert not (run_folder.dir / ".ranks").exists()

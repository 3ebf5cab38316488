"""Two processes under Paddle's launcher: any one rank's wish stops both, at the same step."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_run import RunFolder, assert_same_arrays
from started import StartedRun

pytestmark = pytest.mark.slow

SETTINGS = (
    "~DataLoader.Train.sampler.batch_size",
    "Global.global_batch_size=250",
    "Global.epochs=3",
    "Global.imports=[slow_parts]",
    "DataLoader.Eval.sampler.batch_size=32",
)
PAUSE = "Hooks=[{name: Pause, seconds: 0.1}]"


class Launched:
    """A run of two processes, started through the launcher, and what its ranks noted."""

    def __init__(self, run: RunFolder, repo: Path, environment: dict[str, str]) -> None:
        self.run, self.repo = run, repo
        helpers = str(repo / "tests" / "helpers")
        self.environment = {
            **environment,
            "PYTHONPATH": f"{helpers}:{environment['PYTHONPATH']}",
            "PASSL_ATTEMPT_DIR": str(run.root / "attempt"),
        }
        (run.root / "attempt").mkdir(exist_ok=True)

    def start(self, *overrides: str) -> StartedRun:
        for note in (self.run.root / "attempt").iterdir():
            note.unlink()
        command = [sys.executable, "-W", "ignore", "-m", "paddle.distributed.launch"]
        command += ["--nproc_per_node", "2", "--log_dir", str(self.run.root / "launch")]
        command += [str(self.repo / "tools" / "train.py"), "-c", str(self.run.config_file)]
        command += ["-o", *SETTINGS, *overrides]
        return StartedRun(command, self.run.root / "output.txt", self.environment)

    def exits(self) -> list[int]:
        """The exit status of each rank: the launcher's own says nothing of them."""
        notes = sorted((self.run.root / "attempt").glob("rank_*.json"))
        return [json.loads(note.read_text())["exit"] for note in notes]

    def steps(self) -> list[int]:
        """Finished steps of each rank; a rank whose note is made and not yet written has none."""
        notes = sorted((self.run.root / "attempt").glob("*.step"))
        return [int(note.read_text() or 0) for note in notes]

    def is_training(self) -> bool:
        return len(self.steps()) == 2 and min(self.steps()) >= 1

    def pid_of_rank(self, started: StartedRun, rank: int) -> int:
        for pid in children_of(started.process.pid):
            environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            if f"PADDLE_TRAINER_ID={rank}".encode() in environ:
                return pid
        raise AssertionError(f"no process of rank {rank}")


def children_of(pid: int) -> Iterator[int]:
    for entry in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield int(entry)
        yield from children_of(int(entry))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, repo) -> RunFolder:
    """Two processes that are never stopped."""
    run = RunFolder(tmp_path_factory.mktemp("preemption") / "whole")
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("PADDLE_", "FLAGS_"))}
    environment = {**keep, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repo)}
    with Launched(run, repo, environment).start() as started:
        assert started.end() == 0, started.text
    return run


def assert_same_end(stopped: RunFolder, whole: RunFolder) -> None:
    for link in ("latest", "best"):
        assert_same_arrays(stopped.weights(link), whole.weights(link))
        assert_same_arrays(stopped.optimizer(link), whole.optimizer(link))
        for key in ("step", "samples_seen", "best", "last_eval"):
            assert stopped.state(link)[key] == whole.state(link)[key], key


def test_any_rank_stops_both_at_the_same_step_and_they_continue_exactly(
    make_run, whole, repo, user_environment
):
    job = Launched(make_run("stopped"), repo, user_environment)
    stopped_at = [0]

    def assert_stopped(started: StartedRun, step: int) -> None:
        assert job.exits() == [75, 75], started.text
        assert job.steps() == [step, step]  # both ranks, nothing lost
        assert job.run.state()["step"] == step
        stopped_at.append(step)

    # One rank only, while it trains.
    with job.start(PAUSE) as started:
        started.wait_until(job.is_training, "both ranks train")
        os.kill(job.pid_of_rank(started, 1), signal.SIGTERM)
        assert started.end(within_s=60) == 75
        assert_stopped(started, job.run.state()["step"])
    assert "by process 1, which was asked to; the state is saved" in job.run.log()
    # One rank only, in the evaluation after step 6; either may be the one that makes the file.
    evaluation = (
        "Metric.Eval=[{TopkAcc: {topk: [1, 5]}}, {SignalInEvaluation: "
        f"{{call: 2, number: 10, done: {job.run.root / 'done'}}}}}]"
    )
    with job.start(evaluation) as started:
        assert started.end() == 75
        assert_stopped(started, 6)
    assert job.run.state()["evaluation_due"]
    assert job.run.records("eval") == []
    # The launcher, which passes it on three times and reports 15 whatever the ranks return.
    with job.start(PAUSE) as started:
        started.wait_until(lambda: job.is_training() and min(job.steps()) > 6, "both ranks train")
        started.send(signal.SIGTERM)
        assert started.end(within_s=60) == 15
        assert_stopped(started, job.run.state()["step"])
    assert 0 < stopped_at[1] < 6 < stopped_at[3] < 18
    with job.start() as started:
        assert started.end() == 0, started.text
    assert_same_end(job.run, whole)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_ranks_whose_launcher_is_gone_stop_saved(make_run, repo, user_environment, number):
    """It gives each a session of its own, so nothing else would tell them."""
    job = Launched(make_run("orphans"), repo, user_environment)
    with job.start(PAUSE) as started:
        started.wait_until(job.is_training, "both ranks train")
        ranks = [job.pid_of_rank(started, rank) for rank in range(2)]
        started.send(number)
        assert started.end(within_s=60) == -number
        limit = time.monotonic() + 60
        while any(Path(f"/proc/{pid}").exists() for pid in ranks) and time.monotonic() < limit:
            time.sleep(0.1)
    assert job.exits() == [75, 75]
    assert job.run.state()["step"] == job.steps()[0] < 18
    assert "by SIGTERM; the state is saved" in job.run.log()

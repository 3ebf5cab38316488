"""Two processes under Paddle's launcher: any one rank's wish stops both, at the same step."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from small_run import RunFolder, assert_same_arrays
from started import StartedRun, lives

pytestmark = pytest.mark.slow

SETTINGS = (
    "~DataLoader.Train.sampler.batch_size",
    "Global.global_batch_size=250",
    "Global.epochs=3",
    "Global.imports=[slow_parts]",
    "DataLoader.Eval.sampler.batch_size=32",
)


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

    def held_at(self, step: int, rank: int = -1) -> tuple[str, Path]:
        """A hook that holds ranks after a step until they are asked to stop, and its mark."""
        mark = self.run.root / f"held_at_{step}"
        return f"Hooks=[{{name: Hold, step: {step}, reached: {mark}, rank: {rank}}}]", mark

    def pid_of_rank(self, started: StartedRun, rank: int) -> int:
        for pid in children_of(started.process.pid):
            with suppress(OSError):  # a short-lived child of theirs
                environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                if f"PADDLE_TRAINER_ID={rank}".encode() in environ:
                    return pid
        raise AssertionError(f"no process of rank {rank}")


def children_of(pid: int) -> Iterator[int]:
    children = ""
    with suppress(OSError):  # it has ended
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    for entry in children.split():
        yield int(entry)
        yield from children_of(int(entry))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, repo, user_environment) -> RunFolder:
    """Two processes that are never stopped."""
    run = RunFolder(tmp_path_factory.mktemp("preemption") / "whole")
    with Launched(run, repo, user_environment).start() as started:
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

    def assert_stopped(started: StartedRun, step: int) -> None:
        assert job.exits() == [75, 75], started.text
        assert job.steps() == [step, step]  # both ranks, nothing lost
        assert job.run.state()["step"] == step

    # One rank only, while it trains and the other one waits for it.
    hold, mark = job.held_at(3, rank=1)
    with job.start(hold) as started:
        started.wait_for_file(mark)
        os.kill(job.pid_of_rank(started, 1), signal.SIGTERM)
        assert started.end() == 75
        assert_stopped(started, 3)
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
    hold, mark = job.held_at(9)
    with job.start(hold) as started:
        started.wait_for_file(mark)
        started.send(signal.SIGTERM)
        assert started.end() == 15
        assert_stopped(started, 9)
    with job.start() as started:
        assert started.end() == 0, started.text
    assert_same_end(job.run, whole)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_ranks_whose_launcher_is_gone_stop_saved(make_run, repo, user_environment, number):
    """It gives each a session of its own, so nothing else would tell them."""
    job = Launched(make_run("orphans"), repo, user_environment)
    hold, mark = job.held_at(3)
    with job.start(hold) as started:
        started.wait_for_file(mark)
        ranks = [job.pid_of_rank(started, rank) for rank in range(2)]
        started.send(number)
        assert started.end() == -number
        limit = time.monotonic() + 300
        while any(map(lives, ranks)):
            assert time.monotonic() < limit, started.text
            time.sleep(0.1)
    assert job.exits() == [75, 75]
    assert job.run.state()["step"] == job.steps()[0] == 3
    assert "by SIGTERM; the state is saved" in job.run.log()

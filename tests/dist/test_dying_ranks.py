"""A process of a job dies: the others end by themselves, and the screen says which one and why."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from small_run import RunFolder
from started import StartedRun

pytestmark = pytest.mark.slow


def start(run: RunFolder, repo: Path, environment: dict[str, str], *overrides: str) -> StartedRun:
    helpers = str(repo / "tests" / "helpers")
    command = [sys.executable, "-W", "ignore", "-m", "paddle.distributed.launch"]
    command += ["--nproc_per_node", "2", "--log_dir", str(run.root / "launch")]
    command += [str(repo / "tools" / "train.py"), "-c", str(run.config_file), "-o"]
    command += ["~DataLoader.Train.sampler.batch_size", "Global.global_batch_size=250"]
    command += ["Global.imports=[slow_parts]", *overrides]
    variables = {**environment, "PYTHONPATH": f"{helpers}:{environment['PYTHONPATH']}"}
    return StartedRun(command, run.root / "output.txt", variables)


def end_of(
    run: RunFolder, repo: Path, environment: dict[str, str], rank: int, how: str
) -> str:
    """What the screen showed."""
    hook = f"{{name: DieAt, step: 4, rank: {rank}, how: {how}}}"
    with start(run, repo, environment, f"Hooks=[{hook}]") as started:
        assert started.end() not in (0, 75), started.text
    return started.text


@pytest.mark.parametrize("rank", [1, 0])
def test_the_traceback_of_the_culprit_is_on_screen_and_in_its_files(
    make_run, repo, user_environment, rank
):
    run = make_run("raises")
    text = end_of(run, repo, user_environment, rank, "raise")
    assert "ValueError: injected failure" in text
    assert "in on_step_end" in text
    log = run.log("train.log" if rank == 0 else "rank_1.log")
    for told in (log, (run.dir / f"error_rank_{rank}.txt").read_text()):
        assert told.count("ValueError: injected failure") == 1
        assert "slow_parts.py" in told
    # The other one is a victim: it names the culprit and claims no failure of its own.
    victim = run.log("rank_1.log" if rank == 0 else "train.log")
    assert f"process {rank} failed first" in victim
    assert not (run.dir / f"error_rank_{1 - rank}.txt").exists()


@pytest.mark.parametrize("how", ["exit", "SIGKILL"])
def test_a_process_that_vanishes_is_named(make_run, repo, user_environment, how):
    run = make_run("vanishes")
    text = end_of(run, repo, user_environment, 1, how)
    assert "process 1 (pid " in text
    assert "ended without a last word" in text
    assert str(run.root / "launch" / "workerlog.1") in text


@pytest.mark.parametrize("rank", [1, 0])
def test_a_crash_in_native_code_leaves_the_place_in_python(make_run, repo, user_environment, rank):
    run = make_run("crashes")
    text = end_of(run, repo, user_environment, rank, "SIGSEGV")
    told = (run.dir / f"error_rank_{rank}.txt").read_text()
    assert "Segmentation fault" in told
    assert "in on_step_end" in told
    if rank == 1:
        assert told.rstrip() in text


def test_the_next_start_continues_and_leaves_nothing_of_the_failure(
    make_run, repo, user_environment
):
    run = make_run("again")
    end_of(run, repo, user_environment, 1, "SIGKILL")
    assert (run.dir / ".ranks").exists()
    with start(run, repo, user_environment, "Global.epochs=1") as started:
        assert started.end() == 0, started.text
    assert not list(run.dir.glob("error_rank_*"))
    assert not (run.dir / ".ranks").exists()


def test_a_process_that_hangs_while_another_fails_ends_as_well(make_run, repo, user_environment):
    run = make_run("hangs")
    hooks = [
        f"{{name: DieAt, step: 4, rank: {rank}, how: {how}}}"
        for rank, how in ((0, "hang"), (1, "raise"))
    ]
    with start(run, repo, user_environment, f"Hooks=[{', '.join(hooks)}]") as started:
        assert started.end() not in (0, 75), started.text
    assert "ending within 5 s, as another process failed: process 1" in started.text
    assert "ValueError: injected failure" in started.text

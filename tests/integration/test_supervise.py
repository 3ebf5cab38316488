"""A failed job is started again from its last checkpoint, but never twice on the same step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_run import RunFolder, assert_same_arrays
from spoiled import spoiled_data
from started import StartedRun

from passl.checkpoint.store import CheckpointStore
from passl.engine.faults.supervise import read_attempt

# Saved before training goes on: a kill finds the checkpoints that the tests ask for.
SHORT = ("Global.epochs=3", "Global.imports=[slow_parts]", "Global.save_in_background=false")


@pytest.fixture
def environment(user_environment, repo) -> dict[str, str]:
    helpers = str(repo / "tests" / "helpers")
    return {**user_environment, "PYTHONPATH": f"{helpers}:{user_environment['PYTHONPATH']}"}


def supervised(run: RunFolder, repo: Path, *overrides: str, restarts: int = 3) -> list[str]:
    command = [sys.executable, str(repo / "tools" / "supervise.py"), "--delay", "0"]
    command += ["--max-restarts", str(restarts), "--notes", str(run.root / "notes"), "--"]
    command += [sys.executable, str(repo / "tools" / "train.py"), "-c", str(run.config_file)]
    return [*command, *run.options([*SHORT, *overrides])]


def fail_at(step: int, until: int, marks: Path, kill: bool = False) -> str:
    settings = f"step: {step}, until: {until}, marks: {marks}, kill: {str(kill).lower()}"
    return f"Hooks=[{{name: FailAt, {settings}}}]"


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def test_a_killed_run_is_started_again_and_ends_as_if_nothing_had_happened(
    run_folder, make_run, repo, environment
):
    failing = fail_at(9, 1, run_folder.root / "marks", kill=True)
    done = run(supervised(run_folder, repo, failing), environment)
    assert done.returncode == 0, done.stderr
    assert "start 1 failed after step 8: process 0 was killed without a last word" in done.stderr
    assert "starting again (1 of at most 3 restarts)" in done.stderr
    assert "step_00000006" in done.stderr
    whole = make_run("whole")
    assert whole.train(*SHORT) == 0
    assert_same_arrays(run_folder.weights(), whole.weights())
    assert_same_arrays(run_folder.optimizer(), whole.optimizer())


def test_it_never_starts_twice_on_the_same_failing_step(tmp_path, repo, environment):
    """A job that ends as a training does, without the training."""
    job = (
        "from passl.engine.faults.attempt import Attempt, noting_the_end\n"
        "with noting_the_end():\n"
        f"    open({str(tmp_path / 'marks')!r}, 'a').write('.')\n"
        "    Attempt.from_environment().step(8)\n"
        "    raise RuntimeError('injected at step 9')\n"
    )
    command = [sys.executable, str(repo / "tools" / "supervise.py"), "--delay", "0"]
    command += ["--max-restarts", "9", "--notes", str(tmp_path / "notes"), "--"]
    done = run([*command, sys.executable, "-c", job], environment)
    assert_given_up(done, tmp_path)


@pytest.mark.slow
def test_it_never_starts_a_training_twice_on_the_same_failing_step(run_folder, repo, environment):
    failing = fail_at(9, 99, run_folder.root / "marks")
    done = run(supervised(run_folder, repo, failing, restarts=9), environment)
    assert_given_up(done, run_folder.root)


def assert_given_up(done: subprocess.CompletedProcess[str], root: Path) -> None:
    """After two failures at step 9, of which ``marks`` and ``notes`` in ``root`` tell."""
    assert done.returncode == 1
    assert len((root / "marks").read_bytes()) == 2
    last = done.stderr.strip().splitlines()[-1]
    assert "not started again: it failed twice after step 8" in last
    notes = next((root / "notes").iterdir())
    for number in (1, 2):
        traceback = notes / f"attempt_{number}" / "rank_0.traceback"
        assert str(traceback) in last
        assert "injected at step 9" in traceback.read_text()


def test_a_wrong_config_is_not_started_again(run_folder, repo, environment):
    done = run(supervised(run_folder, repo, "Global.epochs=none"), environment)
    assert done.returncode == 2
    assert "supervise:" not in done.stderr


def test_a_stop_is_passed_on_and_not_undone(run_folder, repo, environment):
    held = run_folder.root / "held"
    command = supervised(run_folder, repo, f"Hooks=[{{name: Hold, step: 3, reached: {held}}}]")
    with StartedRun(command, run_folder.root / "output.txt", environment) as started:
        started.wait_for_file(held)
        started.send(signal.SIGTERM)
        assert started.end() == 75, started.text
    assert "starting again" not in started.text
    assert run_folder.state()["step"] == 3


# -- what the notes mean ---------------------------------------------------------------------------


@pytest.fixture
def notes(tmp_path) -> Path:
    folder = tmp_path / "attempt"
    folder.mkdir()
    for rank in (0, 1):
        (folder / f"rank_{rank}.run").write_text(str(tmp_path))
        (folder / f"rank_{rank}.step").write_text("7\n")
    return folder


def end(folder: Path, rank: int, status: int, error: str = "", at_s: int = 1) -> None:
    path = folder / f"rank_{rank}.json"
    path.write_text(json.dumps({"exit": status, "error": error}))
    (folder / f"rank_{rank}.traceback").write_text(error)
    os.utime(path, (at_s, at_s))


def test_the_ranks_count_and_not_the_status_of_the_launcher(notes):
    end(notes, 0, 75)
    end(notes, 1, 75)
    assert read_attempt(notes, 15).status == 75
    end(notes, 1, 0)
    end(notes, 0, 0)
    assert read_attempt(notes, 250).status == 0


def test_the_culprit_is_the_rank_that_failed_first_not_the_lowest_one(notes):
    end(notes, 0, 1, "lost its peer", at_s=20)
    end(notes, 1, 1, "index out of range", at_s=10)
    found = read_attempt(notes, 250)
    assert found.status == 1
    assert found.culprit == "process 1: index out of range"
    assert found.traceback == notes / "rank_1.traceback"
    assert found.step == 7


def test_a_rank_without_a_last_word_was_killed(notes):
    end(notes, 0, 1, "lost its peer")
    found = read_attempt(notes, 250)
    assert found.status == 1
    assert found.culprit.startswith("process 1 was killed without a last word")


def test_a_command_that_notes_nothing_is_judged_by_its_status(tmp_path):
    assert read_attempt(tmp_path, 0).status == 0
    assert read_attempt(tmp_path, 75).status == 75
    assert read_attempt(tmp_path, -9).status == 1


@pytest.mark.slow
def test_bad_numbers_are_not_tried_for_ever(run_folder, repo, environment):
    everywhere = spoiled_data(*range(700, 720))  # every batch of 256 has some of them
    overrides = (*everywhere[1:], "Global.imports=[spoiled]", "Global.max_bad_steps=2")
    command = [part for part in supervised(run_folder, repo, *overrides) if part != SHORT[1]]
    done = run(command, environment)
    assert done.returncode == 1, done.stderr
    assert "not started again: it failed twice" in done.stderr
    assert "2 steps in a row" in done.stderr


def test_a_supervisor_that_is_killed_leaves_no_job_behind(tmp_path, repo, environment):
    """It would go on unseen, and the next supervisor would find the folder in use."""
    job = (
        "import signal, sys, time; from pathlib import Path; here = Path(sys.argv[1])\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit((here / 'told').touch()))\n"
        "(here / 'up').touch(); time.sleep(60); (here / 'alone').touch()\n"
    )
    command = [sys.executable, str(repo / "tools" / "supervise.py"), "--notes", str(tmp_path)]
    command += ["--", sys.executable, "-c", job, str(tmp_path)]
    with StartedRun(command, tmp_path / "screen", environment) as supervisor:
        supervisor.wait_until((tmp_path / "up").exists, "the job is up")
        supervisor.send(signal.SIGKILL)
        supervisor.end()
        limit = time.monotonic() + 30
        while not (tmp_path / "told").exists() and time.monotonic() < limit:
            time.sleep(0.01)
    assert (tmp_path / "told").exists()


@pytest.mark.parametrize("command", [["/no/such/command"], ["/"]])
def test_a_command_that_cannot_be_started_is_a_sentence(tmp_path, repo, environment, command):
    start = [sys.executable, str(repo / "tools" / "supervise.py"), "--notes", str(tmp_path / "n")]
    done = run([*start, "--", *command], environment)
    assert done.returncode == 2
    assert done.stderr.startswith(f"supervise: cannot start {command[0]}: ")
    assert done.stderr.count("\n") == 1
    (tmp_path / "n").rename(tmp_path / "moved")
    (tmp_path / "n").touch()
    done = run([*start, "--", "true"], environment)
    assert done.returncode == 2
    assert done.stderr.startswith(f"supervise: cannot write notes in {tmp_path / 'n'}")


def test_the_newest_checkpoint_is_the_one_saved_last_whatever_the_clock_did(notes, tmp_path):
    store = CheckpointStore(tmp_path / "run")
    for step in (1, 2):
        path = store.save(step, {"state.json": {}})
        os.utime(path, (100 - step, 100 - step))
    (tmp_path / "run" / "checkpoints" / "step_00000009").mkdir()  # no checkpoint
    (notes / "rank_0.run").write_text(str(tmp_path / "run"))
    assert read_attempt(notes, 1).checkpoint == str(path)
    (notes / "rank_0.run").write_text("")  # the disk was full
    (notes / "rank_0.step").write_bytes(b"\xff\xb2")
    assert read_attempt(notes, 1).checkpoint is None

"""The short version of ``make torture``, and that it notices what it looks for."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_a_few_kills_at_random_moments_lose_nothing(repo, user_environment):
    kills, sigterms = "6", "1"
    options = ["--kills", kills, "--sigterms", sigterms, "--seed", "3", "--cold-every", "5"]
    done = subprocess.run(
        [sys.executable, str(repo / "benchmarks" / "torture.py"), *options],
        env=user_environment,
        cwd=repo,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    table = dict(re.findall(r"^(\S.*?)  +(\d+)$", done.stdout, re.MULTILINE))
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert (table["kills (SIGKILL, one process)"], table["SIGTERMs (launcher, two processes)"]) == (
        kills,
        sigterms,
    )
    assert int(table["runs finished and compared"]) >= 1
    for name in ("differing bytes at the end", "torn checkpoints loaded"):
        assert table[f"{name} (must be 0)"] == "0"


@pytest.fixture(scope="module")
def torture(repo):
    spec = importlib.util.spec_from_file_location("torture", repo / "benchmarks" / "torture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_counts_bytes_that_differ(torture):
    assert torture.differing_bytes(b"abcd", b"abcd") == 0
    assert torture.differing_bytes(b"abxd", b"abcde") == 2


def test_it_notices_a_torn_checkpoint_and_one_that_was_loaded(torture, tmp_path):
    job, tally = torture.Job(tmp_path / "job", []), torture.Tally()
    for step in (3, 6):
        folder = job.folder / "out" / "Model" / "checkpoints" / f"step_{step:08d}"
        folder.mkdir(parents=True)
        (folder / "model.pdparams").write_bytes(b"weights %d" % step)
        (folder / "optimizer.pdopt").write_bytes(b"moments")
    reference = job.checkpoints()
    assert tally.check(job, reference) == {"step_00000003", "step_00000006"}
    (folder / "model.pdparams").write_bytes(b"weig")
    assert tally.check(job, reference) == {"step_00000003"}
    log = job.dir / "train.log"
    log.write_text(f"continuing from {folder}: step 6, epoch 1\n")
    tally.resumed(job, 0, {"step_00000003"})
    assert tally.counts["torn checkpoints loaded"] == 1
    assert len(tally.problems) == 2


def test_it_notices_steps_that_a_stop_cost(torture, tmp_path):
    job, tally = torture.Job(tmp_path / "job", []), torture.Tally()
    for rank in (0, 1):
        (job.notes / f"rank_{rank}.step").write_text("9\n")
    assert tally.lost(job, {"step_00000009"}) == 0
    assert tally.lost(job, {"step_00000006"}) == 3

"""The array's script asks Slurm for what is left, and each of its tasks makes one run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from swept import swept

from passl.errors import ConfigError, PasslError
from passl.sweep.slurm import read_task, submit, write_array


@pytest.fixture
def records(tmp_path):
    return [swept(tmp_path / "a sweep", {"K.k": n}, state="new") for n in (1, 2, 3)]


def array(records, tmp_path, *, command=("true",), options=(), at_once=None) -> Path:
    return write_array(
        records, tmp_path / "a sweep", command=command, options=options, at_once=at_once
    )


def test_the_script_holds_what_was_asked_for(records, tmp_path):
    script = array(records, tmp_path, options=["--time=10:00:00", "-p gpu"], at_once=2)
    lines = script.read_text().splitlines()
    assert "#SBATCH --array=1-3%2" in lines
    assert "#SBATCH --time=10:00:00" in lines
    assert "#SBATCH -p gpu" in lines
    # Slurm 22.05: "--gpus-per-task used without either --gpus or -n/--ntasks is not allowed"
    assert lines.index("#SBATCH --ntasks=1") < lines.index("#SBATCH --time=10:00:00")
    last = max(n for n, line in enumerate(lines) if line.startswith("#SBATCH"))
    first = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
    assert last < first, "Slurm reads no option after the first command"
    checker = shutil.which("shellcheck")
    if checker:
        subprocess.run([checker, str(script)], check=True)


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("--comment=two words", '#SBATCH --comment="two words"'),
        ('--comment="two words"', '#SBATCH --comment="two words"'),
        ("--mem-per-cpu=4G", "#SBATCH --mem-per-cpu=4G"),
    ],
)
def test_a_value_with_spaces_stays_one_value(records, tmp_path, option, line):
    """Slurm splits its lines at spaces outside of quotes; the user's own quotes are the shell's."""
    assert line in array(records, tmp_path, options=[option]).read_text().splitlines()


def test_a_later_array_leaves_the_numbers_of_an_earlier_one_alone(records, tmp_path):
    first = array(records, tmp_path)
    second = array(records[2:], tmp_path)
    assert first != second
    assert read_task(first.with_suffix(".json"), 1).name == "k=1"
    assert read_task(second.with_suffix(".json"), 1).name == "k=3"


@pytest.mark.parametrize("number", [0, 4, -1])
def test_a_task_that_is_not_listed_is_refused(records, tmp_path, number):
    with pytest.raises(ConfigError, match=f"1 to 3; not {number}"):
        read_task(array(records, tmp_path).with_suffix(".json"), number)


@pytest.mark.parametrize("option", ["time=1:00", "--time=1\nrm -rf x"])
def test_what_is_no_option_is_refused(records, tmp_path, option):
    with pytest.raises(ConfigError, match="not an option of sbatch"):
        array(records, tmp_path, options=[option])


@pytest.mark.parametrize(("status", "ends", "requeues"), [(0, 0, 0), (1, 1, 0), (75, 0, 1)])
def test_a_task_passes_its_number_on_and_requeues_what_was_stopped(
    records, tmp_path, status, ends, requeues
):
    code = f"import json, sys; print(json.dumps(sys.argv[1:])); sys.exit({status})"
    script = array(records, tmp_path, command=(sys.executable, "-S", "-c", code))
    done = _run(script, tmp_path, SLURM_ARRAY_TASK_ID="2", SLURM_ARRAY_JOB_ID="77")
    assert done.returncode == ends, done.stderr
    words = json.loads(done.stdout.splitlines()[0])
    assert words == ["--task", "2", "--tasks", str(script.with_suffix(".json"))]
    assert done.stdout.count("scontrol requeue Incomplete 77_2") == requeues


@pytest.mark.parametrize(
    ("name", "asks"),
    # after a scancel the job is no longer "incomplete", and stays out of the queue
    [("SIGUSR1", "scontrol requeue 78_1\n"), ("SIGTERM", "scontrol requeue Incomplete 78_1\n")],
)
def test_slurms_signals_reach_the_run_as_a_stop(records, tmp_path, name, asks):
    code = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *a: sys.exit(75))\n"
        f"os.kill(os.getppid(), signal.{name})\ntime.sleep(3600)\n"
    )
    script = array(records, tmp_path, command=(sys.executable, "-S", "-c", code))
    done = _run(script, tmp_path, SLURM_ARRAY_TASK_ID="1", SLURM_ARRAY_JOB_ID="78")
    assert done.returncode == 0, done.stderr
    assert asks in done.stdout


def test_submitting_says_what_sbatch_said(records, tmp_path, monkeypatch):
    script = array(records, tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(ConfigError, match="there is no sbatch on this machine"):
        submit(script)
    _tool(tmp_path, "sbatch", 'echo "Submitted batch job 9: $1"')
    assert submit(script) == f"Submitted batch job 9: {script}"
    _tool(tmp_path, "sbatch", 'echo "Invalid partition" >&2; exit 1')
    with pytest.raises(PasslError, match="ended with 1: Invalid partition"):
        submit(script)


def _run(script: Path, tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    _tool(tmp_path, "scontrol", 'echo "scontrol $*"')
    environment = {**os.environ, **variables, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", str(script)], env=environment, capture_output=True, text=True, timeout=300,
        check=False,
    )


def _tool(tmp_path: Path, name: str, body: str) -> None:
    path = tmp_path / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)

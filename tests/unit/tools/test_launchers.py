"""The shell launchers: what they check, what they run, how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

_PYTHON = """#!/bin/bash
# Stands in for Python where it would start Paddle's launcher.
if [[ "${1:-} ${2:-}" == "-m paddle.distributed.launch" ]]; then
    %s
fi
exec %s "$@"
"""


@pytest.fixture
def shell(repo: Path, tmp_path: Path, user_environment: dict[str, str]):
    """Starts a script of tools/ with a launcher that does what the test says."""
    started: list[subprocess.Popen] = []

    def start(script: str, *options: str, launcher: str = 'echo "$@"; exit 0', **variables: str):
        python = tmp_path / "python"
        python.write_text(_PYTHON % (launcher, sys.executable))
        python.chmod(0o755)
        process = subprocess.Popen(
            ["bash", str(repo / "tools" / script), *options],
            cwd=repo, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**user_environment, "PYTHON": str(python),
                 "PASSL_LOG_DIR": str(tmp_path / "log"), **variables},
            start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:  # the test failed; what it started goes as well
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def outcome(process: subprocess.Popen) -> tuple[int, str, str]:
    # Only so that what hangs fails in the end: a loaded machine takes many seconds for a second.
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def test_all_options_go_to_passl_train(shell):
    status, out, err = outcome(shell("launch_multinode.sh", "-c", "a b.yaml", "-o", "x.y=[1, 2]"))
    assert (status, out.rstrip().endswith("tools/train.py -c a b.yaml -o x.y=[1, 2]")) == (0, True)
    assert "--nnodes 1 --nproc_per_node 1" in out
    assert "1 process(es) here on CPU" in err


def test_options_before_two_dashes_are_the_scripts_own(shell):
    status, out, _ = outcome(shell("launch_multinode.sh", "--check", "--", "-c", "x.yaml"))
    assert (status, out.rstrip().endswith("tools/check.py --dist -c x.yaml")) == (0, True)
    status, out, err = outcome(shell("launch_multinode.sh", "--dry-run", "--", "-c", "x.yaml"))
    assert (status, out) == (0, "")
    assert "-m paddle.distributed.launch" in err


def test_the_variables_of_passl_become_options_of_the_launcher(shell):
    variables = {"PADDLE_NNODES": "4", "PADDLE_MASTER": "10.0.0.1:12538", "PADDLE_RANK": "2"}
    status, out, err = outcome(shell("launch_multinode.sh", "-c", "x.yaml", **variables))
    assert status == 0, err
    assert "--nnodes 4 --master 10.0.0.1:12538 --rank 2 " in out


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"PADDLE_NNODES": "two"}, "PADDLE_NNODES is 'two'"),
        ({"PADDLE_NNODES": "2"}, "PADDLE_MASTER must be set"),
        ({"PADDLE_MASTER": "node1"}, "give HOST:PORT"),
        ({"PADDLE_MASTER": "node1:70000"}, "a port is 1 to 65535"),
        ({"PADDLE_NNODES": "2", "PADDLE_MASTER": "a:1", "PADDLE_RANK": "2"}, "numbered from 0"),
        ({"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES is ''"),
        ({"CUDA_VISIBLE_DEVICES": "0,1,0"}, "lists a device twice: 0"),
        ({"PASSL_NPROC": "0"}, "PASSL_NPROC is '0'"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_starts(shell, variables, expected):
    status, out, err = outcome(shell("launch_multinode.sh", "-c", "x.yaml", **variables))
    assert (status, out) == (2, "")
    assert expected in err


def test_a_failure_keeps_its_status_and_says_where_the_reason_is(shell):
    status, _, err = outcome(shell("launch_multinode.sh", "-c", "x.yaml", launcher="exit 250"))
    assert status == 250
    assert "the reason is in" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP])
def test_a_signal_reaches_the_launcher_as_sigterm_and_ends_with_75(shell, tmp_path, number):
    ready, got = tmp_path / "ready", tmp_path / "got"
    launcher = """trap 'touch "$GOT"; exit 15' TERM; touch "$READY"; while :; do sleep 0.05; done"""
    # Where the script is slow to set its traps, the launcher is not ahead of them.
    slow = tmp_path / "slow.sh"
    slow.write_text("trap 'if [[ $BASH_COMMAND == trap* ]]; then sleep 0.2; fi' DEBUG\n")
    process = shell(
        "launch_multinode.sh", "-c", "x.yaml", launcher=launcher, BASH_ENV=str(slow),
        READY=str(ready), GOT=str(got),
    )  # fmt: skip
    end = time.monotonic() + 600
    while not ready.exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(number)
    status, _, err = outcome(process)
    assert (status, got.exists()) == (75, True), err
    assert "the same line continues from the last checkpoint" in err


_SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
for ((node = 0; node < $(scontrol show hostnames x | wc -l); node++)); do
    SLURM_NODEID=$node "$@" || status=$?
done
exit ${status:-0}
"""
_SCONTROL = '#!/bin/bash\n[[ $1 == show ]] && printf "n1\\nn2\\n" || echo "$@" >> "$REQUEUED"\n'



@pytest.fixture
def slurm(shell, tmp_path: Path, user_environment: dict[str, str]):
    """Submits a job to a Slurm that runs ``srun`` as it is told, and notes what is requeued."""

    def submit(srun: str, **settings: str) -> subprocess.Popen:
        commands = tmp_path / "commands"
        commands.mkdir()
        for name, text in (("srun", srun), ("scontrol", _SCONTROL)):
            (commands / name).write_text(text)
            (commands / name).chmod(0o755)
        return shell(
            "launch_slurm.sbatch",
            "-c",
            "x.yaml",
            **settings,
            PATH=f"{commands}:{user_environment['PATH']}",
            REQUEUED=str(tmp_path / "requeued"),
            SLURM_JOB_ID="123456",
            SLURM_JOB_NODELIST="n[1-2]",
        )

    return submit


@pytest.mark.parametrize(("ended", "requeued"), [(0, False), (75, True), (1, False)])
def test_slurm_requeues_what_was_stopped_and_nothing_else(slurm, tmp_path, ended, requeued):
    status, out, err = outcome(slurm(_SRUN, launcher=f'echo "$@"; exit {ended}'))
    note = tmp_path / "requeued"
    assert note.exists() is requeued, out + err
    assert status == (0 if requeued else ended), out + err
    for node in (0, 1):
        assert f"--nnodes 2 --master n1:23456 --rank {node} " in out
        assert f"log/node{node} " in out
    if requeued:
        assert note.read_text() == "requeue Incomplete 123456\n"


@pytest.mark.parametrize(
    ("name", "asks"),
    # after a scancel the job is no longer "incomplete", and stays out of the queue
    [("USR1", "requeue 123456\n"), ("TERM", "requeue Incomplete 123456\n")],
)
def test_what_scancel_ended_is_not_put_back(slurm, tmp_path, name, asks):
    """``srun`` is the child of the job's shell: it sends what Slurm sends, and saves when told."""
    saves = "trap 'exit 75' TERM"
    waits = "for i in {1..600}; do sleep 0.1; done"
    srun = f"#!/bin/bash\n{saves}\nkill -{name} $PPID\n{waits}\n"
    status, out, err = outcome(slurm(srun))
    assert f"launch_slurm.sbatch: SIG{name}: asking all nodes to save" in out, out + err
    assert (status, (tmp_path / "requeued").read_text()) == (0, asks)

"""passl-sweep as a person uses it: real runs, stopped by a real signal, continued, compared."""

from __future__ import annotations

import csv
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import RunFolder, assert_same_arrays
from started import StartedRun

from passl.checkpoint.files import read_arrays
from passl.checkpoint.lock import RunLock
from passl.cli import sweep, train

LR = "LRScheduler.learning_rate"
#: Only so that what hangs fails in the end.
LIMIT_S = 300


@pytest.fixture
def environment(user_environment, repo) -> dict[str, str]:
    helpers = str(repo / "tests" / "helpers")
    return {**user_environment, "PYTHONPATH": f"{helpers}:{user_environment['PYTHONPATH']}"}


def command(run: RunFolder, *options: str) -> list[str]:
    code = "import sys; from passl.cli.sweep import main; sys.exit(main())"
    return [sys.executable, "-c", code, "-c", str(run.config_file), *options]


def held(root: Path) -> tuple[str, ...]:
    """Runs that wait in their second epoch for a stop or the file ``go``, and say so."""
    hook = f"{{name: Hold, step: 9, reached: {root / 'held'}, until: {root / 'go'}}}"
    return ("-o", "Global.imports=[slow_parts]", f"Hooks=[{hook}]", "Global.epochs=3")


def records(folder: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/run.json")}


@pytest.mark.slow
def test_a_sweep_stopped_in_the_middle_goes_on_as_if_nothing_had_happened(
    run_folder, make_run, environment
):
    folder = run_folder.root / "out" / "sweep_config"
    options = ["--grid", f"{LR}=0.01,0.03", *held(run_folder.root)]
    with StartedRun(command(run_folder, *options), run_folder.root / "one", environment) as first:
        first.wait_for_file(run_folder.root / "held")
        first.send(signal.SIGTERM)
        assert first.end() == 75, first.text
    (run_folder.root / "go").touch()
    states = {name: record["state"] for name, record in records(folder).items()}
    assert states == {"learning_rate=0.01": "stopped", "learning_rate=0.03": "new"}
    assert "the same command goes on from here" in first.text

    again = command(run_folder, *options, "--jobs", "2")
    with StartedRun(again, run_folder.root / "two", environment) as second:
        assert second.end() == 0, second.text
    assert "1 to go on with, 1 new" in second.text
    assert {name: record["starts"] for name, record in records(folder).items()} == {
        "learning_rate=0.01": 2, "learning_rate=0.03": 1,
    }
    with open(folder / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["done"] * 2
    scores = [float(row["measure"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert (folder / "results.png").stat().st_size > 5000

    # As trained without a stop, by the command that the report gives.
    stopped = next(row for row in rows if row[LR] == "0.01")
    straight = make_run("straight")
    repeat = shlex.split(stopped["command"])
    plain = [word for word in repeat[1:] if not word.startswith(("Hooks=", "Global.imports="))]
    assert train.main([*plain, f"Global.output_dir={straight.root / 'out'}"]) == 0
    mine = read_arrays(Path(stopped["folder"]) / "latest" / "model.pdparams")
    assert_same_arrays(mine, straight.weights())


def test_what_is_done_is_not_done_again_and_a_failure_is_told(run_folder, capfd, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    arguments = ["-c", str(run_folder.config_file), "-o", "Global.epochs=1",
                 "--grid", "Model.num_heads=2,3"]
    assert sweep.main(arguments) == 1  # 16 channels for 3 heads: the model refuses
    said = capfd.readouterr().out
    assert "FAILED num_heads=3" in said
    assert "failed: num_heads=3: " in said
    assert "best: num_heads=2: top1" in said
    assert sweep.main([*arguments, "--skip-failed", "--by", "top9"]) == 1
    said, errors = capfd.readouterr()
    assert "no report: --by top9: the evaluations have" in errors
    assert "1 done, 1 failed before" in said
    assert "start" not in said
    state = records(run_folder.root / "out" / "sweep_config")
    assert {name: record["starts"] for name, record in state.items()} == {
        "num_heads=2": 1, "num_heads=3": 1,
    }
    assert sweep.main(["--report", "--out", str(run_folder.root / "out" / "sweep_config")]) == 0
    assert "best: num_heads=2: top1" in capfd.readouterr().out


def test_a_dry_run_lists_the_runs_and_writes_nothing(run_folder, capsys):
    arguments = ["-c", str(run_folder.config_file), "--grid", f"{LR}=1e-3,3e-3", "--dry-run"]
    assert sweep.main(arguments) == 0
    said = capsys.readouterr().out
    assert "[2/2] learning_rate=0.003   new" in said
    assert not (run_folder.root / "out").exists()


def test_mistakes_are_told_at_once_with_status_2_and_without_paddle(run_folder, environment):
    code = (
        "import sys; from passl.cli.sweep import main; status = main(sys.argv[1:]); "
        "print('paddle' in sys.modules); sys.exit(status)"
    )
    options = ["-c", str(run_folder.config_file), "--grid", f"{LR}=fast,0.1", "Model.depth=0,2"]
    done = subprocess.run(
        [sys.executable, "-c", code, *options], env=environment, capture_output=True, text=True,
        timeout=LIMIT_S, check=False,
    )
    assert done.returncode == 2
    assert done.stdout == "False\n"
    assert done.stderr.startswith("passl-sweep: 2 mistakes:")
    assert not (run_folder.root / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--random", f"{LR}=log(0.1,1)"], "--random needs --trials"),
        (["--grid", f"{LR}=1,2", "--trials", "3"], "--trials is for --random"),
        (["--grid", f"{LR}=1,2", "--jobs", "0"], "must be 1 or more"),
        (["--grid", f"{LR}=1,2", "--devices", "0", "--jobs", "2"], "one or the other"),
        (["--grid", f"{LR}=1,2", "--devices", "0,1"], "they would use no GPU"),
        (["--grid", f"{LR}=1,2", "--submit"], "--submit is for --slurm"),
        ([], "nothing varies"),
    ],
)
def test_options_that_contradict_each_other_are_refused(run_folder, capsys, options, said):
    assert sweep.main(["-c", str(run_folder.config_file), *options]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_two_sweeps_do_not_work_in_one_folder(run_folder, environment):
    slowed = held(run_folder.root)
    options = ["--grid", f"{LR}=0.01,0.1", *slowed]
    with StartedRun(command(run_folder, *options), run_folder.root / "one", environment) as first:
        first.wait_for_line("start learning_rate=0.01")
        folder = run_folder.root / "out" / "sweep_config"
        done = subprocess.run(
            command(run_folder, "--grid", f"{LR}=0.2,0.3", *slowed), env=environment, text=True,
            capture_output=True, timeout=LIMIT_S, check=False,
        )
        assert done.returncode == 1
        assert f"another passl-sweep works in {folder}" in done.stderr
        (folder / "STOP").touch()
        assert first.end() == 75, first.text


def test_a_second_sweep_changes_no_plan_before_it_is_refused(run_folder):
    """The first one may be between two runs, or wait for one to begin: no run is in use then."""
    folder = run_folder.root / "out" / "sweep_config"
    plan = ["-c", str(run_folder.config_file), "--grid", f"{LR}=0.01"]
    assert sweep.main([*plan, "--slurm"]) == 0
    name = "learning_rate=0.01"
    record = json.loads((folder / name / "run.json").read_text())
    (folder / name / "run.json").write_text(json.dumps({**record, "state": "running"}))
    before = {path: path.read_bytes() for path in folder.rglob("*.json")}
    first = RunLock(folder)
    assert first.acquire() is None
    assert sweep.main([*plan[:2], "--grid", f"{LR}=0.01,0.5"]) == 1
    first.release()
    assert {path: path.read_bytes() for path in folder.rglob("*.json")} == before


@pytest.mark.parametrize("name", ["run.json", "sweep.json"])
def test_a_record_that_is_nested_without_end_is_a_sentence(run_folder, capsys, name):
    folder = run_folder.root / "out" / "sweep_config"
    plan = ["-c", str(run_folder.config_file), "--grid", f"{LR}=0.01"]
    assert sweep.main([*plan, "--slurm"]) == 0
    (path,) = folder.rglob(name)
    path.write_text("[" * 200_000)
    assert sweep.main(["--report", "--out", str(folder)]) == 2
    assert str(path) in capsys.readouterr().err


@pytest.mark.slow
def test_a_slurm_task_trains_its_run(run_folder, environment, tmp_path):
    options = ["-o", "Global.epochs=1", "--grid", f"{LR}=0.01,0.1", "--slurm"]
    done = subprocess.run(
        command(run_folder, *options), env=environment, capture_output=True, text=True,
        timeout=LIMIT_S, check=False,
    )
    assert done.returncode == 0, done.stderr
    folder = run_folder.root / "out" / "sweep_config"
    script = folder / "slurm" / "001.sbatch"
    assert f"sbatch {script}" in done.stdout
    task = {**environment, "SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_JOB_ID": "1"}
    subprocess.run(["bash", str(script)], env=task, check=True, timeout=LIMIT_S)
    states = {name: record["state"] for name, record in records(folder).items()}
    assert states == {"learning_rate=0.01": "new", "learning_rate=0.1": "done"}


@pytest.mark.slow
def test_a_terminal_shows_a_live_line(run_folder, environment):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(run_folder, "--grid", f"{LR}=0.01", "-o", "Global.epochs=1"),
        env={**environment, "TERM": "xterm", "COLUMNS": "120"}, stderr=theirs,
        stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
    )
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 4096):
            seen += chunk
    except OSError:  # Linux says so when the last writer has closed it
        pass
    finally:
        os.close(ours)
    assert process.wait(timeout=LIMIT_S) == 0
    assert b"sweep: 1 running [--------------------] 0/1" in seen

"""``passl-check --dist`` under the launcher: who is here, who is missing, what differs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("preflight_worker.py")


def launch(
    folder: Path, environment: dict[str, str], script: Path, *arguments: str
) -> tuple[int, dict[int, str]]:
    """Two processes under the launcher; its exit status, and what each of them wrote."""
    done = subprocess.run(
        [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2",
         "--log_dir", str(folder / "launch"), str(script), *arguments],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=6000, check=False,
    )  # fmt: skip
    logs = sorted((folder / "launch").glob("workerlog.*"))
    return done.returncode, {int(path.suffix[1:]): path.read_text() for path in logs}


@pytest.mark.slow
def test_two_processes_find_each_other_and_agree(tmp_path, repo, user_environment) -> None:
    config = repo / "configs/quickstart/ViT_micro_digits.yaml"
    status, logs = launch(
        tmp_path, user_environment, repo / "tools/check.py", "--dist", "-c", str(config)
    )
    assert status == 0, logs
    assert "all 2 processes are here and agree" in logs[0]
    rows = re.findall(
        r"^([01])  .*127\.0\.0\.1:\d+ .* ([0-9a-f]{12})  ([0-9a-f]{12})$", logs[0], re.M
    )
    assert [row[0] for row in rows] == ["0", "1"], logs[0]
    assert rows[0][1:] == rows[1][1:]
    assert re.search(r"^all-reduce of 4 MiB: \d+\.\d+ s$", logs[0], re.M)
    assert "rank" not in logs[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "timeout_s", "expected"),
    [
        ("sleeps", "6", r"1 of 2 ranks did not come within 6 s: rank 1 \(127\.0\.0\.1:\d+\);"),
        ("dies", "90", r"1 of 2 ranks did not come when the launcher stopped .*: rank 1 \(127"),
        (
            "dies-later",
            "90",
            r"rank 0: forming the group was interrupted by the launcher.*"
            r"not done either: rank 1 \(127",
        ),
        ("terminated", "90", r"interrupted by the launcher.*not done either: rank 1 \(127"),
    ],
)
def test_the_rank_that_is_missing_is_named(
    how, timeout_s, expected, tmp_path, user_environment
) -> None:
    status, logs = launch(tmp_path, user_environment, WORKER, how, timeout_s)
    assert status != 0
    assert re.search(f"passl-check: .*{expected}", logs[0]), logs[0]


@pytest.mark.slow
def test_a_rank_with_another_config_is_found(tmp_path, repo, user_environment) -> None:
    script = tmp_path / "differs.py"
    script.write_text(
        "import os, sys\nfrom passl.cli import check\n"
        f"config = {str(repo / 'configs/quickstart/ViT_micro_digits.yaml')!r}\n"
        "seed = 'Global.seed=' + os.environ['PADDLE_TRAINER_ID']\n"
        "sys.exit(check.main(['--dist', '-c', config, '-o', seed]))\n"
    )
    status, logs = launch(tmp_path, user_environment, script)
    assert status == 1
    expected = r"the config is not the same everywhere: [0-9a-f]{12} on rank 0; \w{12} on rank 1"
    assert re.search(expected, logs[0]), logs[0]


def test_one_process_is_looked_at_and_told_how_to_check_a_job(repo, user_environment) -> None:
    done = subprocess.run(
        [sys.executable, str(repo / "tools/check.py"), "--dist"],
        env=user_environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"^rank  host .* config$", done.stdout, re.M)
    assert "python -m paddle.distributed.launch --nproc_per_node 2 tools/check.py" in done.stdout


def test_a_limit_of_no_time_is_refused(repo, user_environment) -> None:
    done = subprocess.run(
        [sys.executable, str(repo / "tools/check.py"), "--dist", "--timeout", "0"],
        env=user_environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--timeout must be above 0 seconds; got 0" in done.stderr

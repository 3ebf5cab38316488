"""Running averages of batch normalisations: two processes continue as if never stopped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from small_run import RunFolder, assert_same_arrays

pytestmark = pytest.mark.slow

OPTIONS = (
    "Global.epochs=2", "Global.global_batch_size=480", "Global.eval_interval=1",
    "Global.imports=[batch_norm_model]", "~DataLoader.Train.sampler.batch_size",
)


class ConvolutionRun(RunFolder):
    """The small run with another model."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        config = yaml.safe_load(self.config_file.read_text())
        config["Model"] = {"name": "SmallConvolution"}
        self.config_file.write_text(yaml.safe_dump(config, sort_keys=False))

    @property
    def dir(self) -> Path:
        return self.root / "out/SmallConvolution"


def test_two_processes_continue_a_model_with_batch_statistics(tmp_path, repo, user_environment):
    helpers = str(repo / "tests/helpers")
    environment = {**user_environment, "PYTHONPATH": f"{helpers}:{user_environment['PYTHONPATH']}"}

    def train(run: RunFolder, *more: str) -> None:
        command = [
            sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2",
            "--log_dir", str(run.root / "launch"), str(repo / "tools/train.py"),
            "-c", str(run.config_file), "-o", *OPTIONS, *more,
        ]
        done = subprocess.run(
            command, env=environment, cwd=repo, capture_output=True, text=True, timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    whole, stopped = ConvolutionRun(tmp_path / "whole"), ConvolutionRun(tmp_path / "stopped")
    train(whole)
    train(stopped, "Global.max_train_step=4")
    train(stopped)
    assert any(name.endswith("_mean") for name in whole.weights())
    assert_same_arrays(stopped.weights(), whole.weights())
    assert_same_arrays(stopped.optimizer(), whole.optimizer())
    assert stopped.state()["last_eval"] == whole.state()["last_eval"]

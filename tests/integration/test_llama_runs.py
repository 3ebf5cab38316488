"""Real runs of iLLaMA and ViT-LLaMA: the soft mask over a resume, and the frozen block's way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from docs_blocks import read_blocks
from small_run import RunFolder, assert_same_arrays, without_times

from passl.checkpoint.files import read_arrays, write_arrays
from passl.checkpoint.llama import extract_llama_block
from passl.cli import eval as eval_command

LLAMA = Path(__file__).parents[1] / "golden" / "llama_7b_layout"

class LlamaRun(RunFolder):
    """The small run with another model."""

    def __init__(self, root: Path, model: dict[str, Any], hooks: list[dict[str, Any]]) -> None:
        super().__init__(root)
        self.name = model["name"]
        config = yaml.safe_load(self.config_file.read_text())
        shared = ("img_size", "patch_size", "in_chans", "class_num", "depth")
        config["Model"] = {**{key: config["Model"][key] for key in shared}, **model}
        config["Hooks"] = hooks
        self.config_file.write_text(yaml.safe_dump(config, sort_keys=False))

    @property
    def dir(self) -> Path:
        return self.root / "out" / self.name

    def evaluate(self, *overrides: str) -> int:
        return eval_command.main(["-c", str(self.config_file), *self.options(overrides)])


@pytest.fixture
def illama(tmp_path) -> Callable[[str], LlamaRun]:
    model = {
        "name": "iLLaMA", "embed_dim": 16, "num_heads": 2, "multiple_of": 16,
        "drop_rate": 0.1, "drop_path_rate": 0.1,
    }
    hooks = [
        {"name": "SoftMask", "schedule": "linear", "cutoff_epochs": 3},
        {"name": "DropSchedule", "target": "dropout", "rate": 0.1, "mode": "early",
         "cutoff_steps": 10},
    ]
    return lambda name: LlamaRun(tmp_path / name, model, hooks)


@pytest.fixture
def vit_llama(tmp_path) -> Callable[[str], LlamaRun]:
    llama = tmp_path / "7B"
    shutil.copytree(LLAMA, llama)
    model = {
        "name": "ViT_LLaMA", "embed_dim": 16, "num_heads": 2, "mlp_ratio": 2.0,
        "llama_path": str(llama),
    }
    return lambda name: LlamaRun(tmp_path / name, model, [])


# -- the page --------------------------------------------------------------------------------------


def test_the_python_of_the_page_runs_and_its_hooks_are_accepted(repo, tmp_path, illama):
    blocks = read_blocks(repo / "docs" / "llama_models.md", repo)
    (tmp_path / "tests").symlink_to(repo / "tests")
    code = "\n".join(block.text for block in blocks if block.language == "python")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(repo)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "0.37"
    assert (tmp_path / "output" / "llama_block.pdparams").exists()

    run = illama("run")
    config = yaml.safe_load(run.config_file.read_text())
    shown = [yaml.safe_load(block.text) for block in blocks if block.language == "yaml"]
    config["Hooks"] = [hook for part in shown for hook in part.get("Hooks", [])]
    run.config_file.write_text(yaml.safe_dump(config))
    assert run.train("Global.max_train_step=2") == 0
    assert set(run.records("train")[-1]) >= {"soft_mask_rate", "drop_path_rate"}


# -- iLLaMA ----------------------------------------------------------------------------------------


# 6 steps an epoch: the mask is soft for 18 steps
def test_a_run_stopped_while_the_mask_is_soft_continues_exactly(illama):
    whole, stopped = illama("whole"), illama("stopped")
    assert whole.train() == 0
    for step in (1, 8, 12, 17):
        assert stopped.train(f"Global.max_train_step={step}") == 0
    assert stopped.train() == 0
    assert_same_arrays(stopped.weights(), whole.weights())
    assert_same_arrays(stopped.optimizer(), whole.optimizer())
    last = without_times(whole.records("eval"))[-1]
    assert without_times(stopped.records("eval"))[-1] == last


def test_the_rate_of_every_logged_step_and_evaluation_is_said(illama):
    run = illama("run")
    assert run.train("Global.epochs=4", "Global.print_batch_step=1") == 0
    rates = [record["soft_mask_rate"] for record in run.records("train")]
    expected = [*np.linspace(1, 0, 18), *[0.0] * 6]
    assert rates == expected
    assert [record["drop_rate"] for record in run.records("train")] == [0.1] * 10 + [0.0] * 14
    # an evaluation uses the rate of the step before it
    assert [record["soft_mask_rate"] for record in run.records("eval")] == rates[5::6]
    assert "evaluation with soft_mask_rate 0.705882" in run.log()
    assert ", soft_mask_rate: 0.94118, " in run.log()


def test_an_evaluation_says_its_rate_and_warns_of_another_in_training(illama):
    run = illama("run")
    assert run.train("Global.max_train_step=6") == 0
    assert run.evaluate() == 0
    log = run.log("eval.log")
    assert "evaluation with soft_mask_rate 0\n" in log
    assert "the weights were saved while soft_mask_rate was 0.705882" in log
    assert run.evaluate("Model.soft_mask_rate=0.7058823529411764") == 0
    said = run.log("eval.log").replace(log, "")
    assert "evaluation with soft_mask_rate 0.705882" in said
    assert "were saved while" not in said
    assert "WARNING" not in said


def test_an_evaluation_warns_of_another_attention_than_in_training(illama):
    run = illama("run")
    assert run.train("Global.max_train_step=2") == 0
    assert run.evaluate("Model.attention=causal") == 0
    said = "the weights were trained with attention: released, and are evaluated with causal"
    assert said in run.log("eval.log")


# -- ViT-LLaMA -------------------------------------------------------------------------------------


def test_checkpoints_refer_to_the_frozen_block_and_continue_exactly(vit_llama):
    whole, stopped = vit_llama("whole"), vit_llama("stopped")
    assert whole.train("Global.epochs=2") == 0
    assert stopped.train("Global.epochs=2", "Global.max_train_step=7") == 0
    assert stopped.train("Global.epochs=2") == 0
    assert_same_arrays(stopped.weights(), whole.weights())
    assert not any(name.startswith("llama.") for name in whole.weights())
    assert not any("llama." in name for name in whole.optimizer())
    external = json.loads((whole.dir / "latest" / "state.json").read_text())["external"]
    assert external["llama_path"]["path"].endswith("7B")
    assert whole.evaluate() == 0


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_two_processes_train_beside_the_frozen_block(vit_llama, repo, user_environment, dtype):
    run = vit_llama("run")
    command = [
        sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2",
        "--log_dir", str(run.root / "launch"), str(repo / "tools" / "train.py"),
        "-c", str(run.config_file), "-o", "Global.epochs=1", f"Model.llama_dtype={dtype}",
        "Global.global_batch_size=250", "~DataLoader.Train.sampler.batch_size",
    ]
    one = vit_llama("one")
    assert one.train(*command[command.index("-o") + 1 :]) == 0
    done = subprocess.run(
        command, cwd=repo, env=user_environment, capture_output=True, text=True, timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name, value in one.weights().items():
        np.testing.assert_allclose(run.weights()[name], value, rtol=0, atol=2e-5, err_msg=name)


def test_the_block_may_move_but_not_change(vit_llama, tmp_path, capsys):
    run = vit_llama("run")
    assert run.train("Global.max_train_step=3") == 0
    block = tmp_path / "block.pdparams"
    extract_llama_block(tmp_path / "7B", block)
    shutil.rmtree(tmp_path / "7B")
    assert run.train(f"Model.llama_path={block}", "Global.max_train_step=5") == 0
    other = tmp_path / "other.pdparams"
    extract_llama_block(LLAMA, other, layer=0)
    assert run.train(f"Model.llama_path={other}") == 1
    assert "give the file it was trained with" in capsys.readouterr().err
    assert run.evaluate(f"Model.llama_path={other}") == 1
    anew = (f"Global.pretrained_model={run.dir / 'latest'}", f"Global.output_dir={tmp_path / 'b'}")
    assert run.train(*anew, f"Model.llama_path={other}") == 1
    assert run.evaluate(f"Model.llama_path={block}") == 0
    assert run.evaluate() == 1
    assert "Give the place with -o Model.llama_path=PATH" in capsys.readouterr().err


def test_a_checkpoint_with_the_block_is_evaluated_without_llama_files(vit_llama, tmp_path):
    run = vit_llama("run")
    assert run.train("Model.llama_trainable=true", "Global.max_train_step=3") == 0
    assert "llama.layers.0.attention.wq.weight" in run.weights()
    shutil.rmtree(tmp_path / "7B")
    assert run.evaluate() == 0  # heads and widths are remembered, too
    assert "7B does not exist" in run.log("eval.log")
    first = run.log("eval.log").splitlines()[-2]
    assert run.evaluate("Model.llama_path=null") == 0
    assert run.log("eval.log").splitlines()[-2].split("[Avg]")[1] == first.split("[Avg]")[1]
    plain = tmp_path / "released.pdparams"
    write_arrays(plain, read_arrays(run.dir / "latest" / "model.pdparams"))
    sizes = ("Model.llama_dim=64", "Model.llama_num_heads=4", "Model.llama_hidden_dim=192")
    assert run.evaluate(f"Global.pretrained_model={plain}", "Model.llama_path=null", *sizes) == 0
    values = run.log("eval.log").splitlines()[-2]
    assert values.split("[Avg]")[1] == first.split("[Avg]")[1]


def test_training_without_the_block_never_starts(vit_llama, capsys):
    run = vit_llama("run")
    sizes = ("Model.llama_dim=64", "Model.llama_num_heads=4", "Model.llama_hidden_dim=192")
    assert run.train("Model.llama_path=null", *sizes) == 2
    assert "llama_path is null, and no weights were loaded" in capsys.readouterr().err
    assert run.train("Model.llama_path=nowhere") == 1
    assert "there is no LLaMA checkpoint" in capsys.readouterr().err

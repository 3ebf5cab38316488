"""The recipes of iLLaMA and ViT-LLaMA have their authors' values, and a launcher."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Optional

import pytest

from passl.config import load_config, plan_batches

REPO = Path(__file__).resolve().parents[2]
TASKS = REPO / "tasks/classification"

_SCRATCH: dict[str, Any] = {
    "epochs": 300, "batch": (4096, 128, 4), "lr": 4e-3, "warmup": 5, "decay": 0.05,
    "size": 224, "classes": 1000, "start": None,
}
_IN21K = {
    **_SCRATCH, "epochs": 90, "batch": (4096, 32, 16), "lr": 1e-3, "decay": 0.01, "drop_path": 0.1,
    "mixing": (0.8, 1.0), "mask": ("constant", 30), "classes": 10450,
}
_FINETUNE = {
    **_SCRATCH, "epochs": 30, "batch": (512, 32, 2), "warmup": 0, "decay": 1e-8, "mixing": None,
    "mask": None,
}
_384 = {**_FINETUNE, "size": 384}
_IN1K_BEST = "./output/iLLaMA_base_patch16_224/best"
_TINY = {**_SCRATCH, "drop_path": 0.0, "mixing": (0.1, 0.1), "mask": ("constant", 50)}
_SMALL = {**_SCRATCH, "drop_path": 0.1, "mixing": (0.5, 0.5), "mask": ("linear", 50)}
_BASE = {
    **_SCRATCH, "drop_path": 0.4, "mixing": (0.95, 1.0), "mask": ("linear", 25), "warmup": 50,
}
_VIT = {**_SCRATCH, "mixing": (0.8, 1.0), "mask": None, "warmup": 50}


def _from_21k(size: str) -> str:
    return f"./output/in21k/iLLaMA_{size}_patch16_224/latest"


def _selected(size: str) -> str:
    return f"./pretrained/illama_ws_{size}.pdparams"


#: Source: scripts, logs and history of techmonsterwang/iLLaMA.
ILLAMA: dict[str, dict[str, Any]] = {
    "iLLaMA_tiny_patch16_224": _TINY,
    "iLLaMA_small_patch16_224": _SMALL,
    "iLLaMA_base_patch16_224": _BASE,
    "iLLaMA_tiny_patch16_224_from_llama2": {**_TINY, "start": _selected("tiny")},
    "iLLaMA_small_patch16_224_from_llama2": {**_SMALL, "start": _selected("small")},
    "iLLaMA_base_patch16_224_from_llama2": {**_BASE, "start": _selected("base")},
    "iLLaMA_base_patch16_224_in21k": _IN21K,
    "iLLaMA_large_patch16_224_in21k": _IN21K,
    "iLLaMA_base_patch16_384_ft": {**_384, "lr": 8e-5, "drop_path": 0.8, "start": _IN1K_BEST},
    "iLLaMA_base_patch16_224_in21k_ft": {
        **_FINETUNE, "lr": 8e-5, "drop_path": 0.2, "start": _from_21k("base"),
    },
    "iLLaMA_base_patch16_384_in21k_ft": {
        **_384, "lr": 1.1e-4, "drop_path": 0.2, "batch": (512, 16, 4), "start": _from_21k("base"),
    },
    "iLLaMA_large_patch16_224_in21k_ft": {
        **_FINETUNE, "lr": 6e-5, "drop_path": 0.3, "start": _from_21k("large"),
    },
    "iLLaMA_large_patch16_384_in21k_ft": {
        **_384, "lr": 3.5e-5, "drop_path": 0.3, "batch": (512, 16, 4), "start": _from_21k("large"),
    },
    "ViT_tiny_patch16_224_illama": {**_VIT, "drop_path": 0.0},
    "ViT_small_patch16_224_illama": {**_VIT, "drop_path": 0.1},
    "ViT_base_patch16_224_illama": {**_VIT, "drop_path": 0.4},
}
LM4 = (
    "ViT_LLaMA_tiny_patch16_224", "ViT_LLaMA_small_patch16_224",
    "ViT_tiny_patch16_224_lm4", "ViT_small_patch16_224_lm4",
)


def mixing_of(config: Any) -> Optional[tuple[float, float]]:
    """The alphas of Mixup and CutMix; None where nothing is mixed.  The targets are smoothed."""
    (loss,) = config.Loss.Train
    if not config.DataLoader.Train.batch_transform:
        assert loss.component["epsilon"] == 0.1
        return None
    (mixing,) = config.DataLoader.Train.batch_transform
    assert (mixing["prob"], mixing["switch_prob"], mixing["mode"]) == (1.0, 0.5, "batch")
    assert mixing["epsilon"] == 0.1
    assert not loss.component.get("epsilon")
    return mixing["mixup_alpha"], mixing["cutmix_alpha"]


def check_images(config: Any, size: int) -> None:
    """Sizes and augmentation, which all recipes share."""
    train = {op["name"]: op for op in config.DataLoader.Train.dataset["transform_ops"]}
    evaluation = {op["name"]: op for op in config.DataLoader.Eval.dataset["transform_ops"]}
    assert train["RandCropImage"]["size"] == size
    assert list(train["RandCropImage"]["scale"]) == [0.08, 1.0]
    assert train["TimmAutoAugment"]["config_str"] == "rand-m9-mstd0.5-inc1"
    assert (train["RandomErasing"]["prob"], train["RandomErasing"]["mode"]) == (0.25, "pixel")
    crops = {op["interpolation"] for op in (train["RandCropImage"], evaluation["ResizeImage"])}
    assert crops == {"bicubic"}
    if size == 224:
        assert evaluation["ResizeImage"]["resize_short"] == 256
        assert evaluation["CenterCropImage"]["size"] == 224
    else:  # squeezed, not cropped
        assert evaluation["ResizeImage"]["size"] == size
        assert "CenterCropImage" not in evaluation
    assert config.Export.input_shape == [None, 3, size, size]


@pytest.mark.parametrize("name", ILLAMA)
def test_a_recipe_of_illama_has_its_authors_values(name: str) -> None:
    expected = ILLAMA[name]
    config = load_config(str(REPO / "configs" / f"{name}.yaml"))
    plan = plan_batches(config, 8)
    passes, mask = plan.accum_steps, None
    for hook in config.Hooks:
        assert hook["name"] == "SoftMask"
        mask = hook["schedule"], hook["cutoff_epochs"]
    optimizer = config.Optimizer.component
    assert {
        "epochs": config.Global.epochs,
        "batch": (plan.global_batch_size, plan.batch_size // passes, passes),
        "lr": config.LRScheduler["learning_rate"],
        "warmup": config.LRScheduler["warmup_epochs"],
        "decay": optimizer["weight_decay"],
        "size": config.Export.input_shape[-1],
        "classes": config.Model["class_num"],
        "start": config.Global.pretrained_model,
        "drop_path": config.Model.get("drop_path_rate", 0.0),
        "mixing": mixing_of(config),
        "mask": mask,
    } == expected
    check_images(config, expected["size"])
    assert (config.LRScheduler["name"], config.LRScheduler["eta_min"]) == ("Cosine", 1e-6)
    assert (optimizer["name"], *optimizer["betas"], optimizer["eps"]) == ("AdamW", 0.9, 0.999, 1e-8)
    assert config.Optimizer.no_weight_decay_1d
    assert (config.FP16.level, config.EMA, config.Optimizer.grad_clip) == ("O0", None, None)
    assert config.DataLoader.Train.sampler.component["name"] == "DistributedBatchSampler"
    assert config.Global.finetune == ("ft" in name.split("_"))


@pytest.mark.parametrize("name", LM4)
def test_a_recipe_of_vit_llama_has_its_authors_values(name: str) -> None:
    config = load_config(str(REPO / "configs" / f"{name}.yaml"))
    plan = plan_batches(config, 4)
    assert (plan.global_batch_size, plan.batch_size, plan.accum_steps) == (1024, 256, 1)
    schedule, optimizer = config.LRScheduler, config.Optimizer.component
    assert (schedule["name"], schedule["unit"], config.Global.epochs) == (
        "TimmCosine",
        "epoch",
        300,
    )
    assert (schedule["learning_rate"], schedule["eta_min"]) == (1e-3, 1e-5)
    assert (schedule["warmup_epoch"], schedule["warmup_start_lr"]) == (20, 1e-6)
    assert (optimizer["name"], optimizer["weight_decay"]) == ("AdamW", 0.05)
    assert (config.EMA.decay, config.EMA.warmup, config.FP16.level) == (0.99996, False, "O1")
    assert config.Optimizer.grad_clip is None
    assert config.Model["drop_path_rate"] == 0.1
    assert mixing_of(config) == (0.8, 1.0)
    assert config.DataLoader.Train.sampler.component["name"] == "RepeatedAugSampler"
    check_images(config, 224)


@pytest.mark.parametrize(("task", "recipes"), [("illama", tuple(ILLAMA)), ("vit_llama", LM4)])
def test_every_recipe_is_on_the_page_and_in_the_launcher(task: str, recipes: list[str]) -> None:
    page = (TASKS / task / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`((?:iLLaMA|ViT)_\w+)`", page)) >= set(recipes)
    script = TASKS / task / "scripts/train.sh"
    assert os.access(script, os.X_OK)
    done = subprocess.run([str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert set(done.stderr.splitlines()[0].split()) >= {"RECIPE", "usage:"}
    assert sorted(line.strip() for line in done.stderr.splitlines()[1:]) == sorted(recipes)


def test_the_launcher_starts_a_recipe(tmp_path: Path) -> None:
    script = TASKS / "illama/scripts/train.sh"
    python = REPO / "tests" / "nowhere" / "python"
    done = subprocess.run(
        [str(script), "iLLaMA_tiny_patch16_224", "-o", "Global.epochs=1"],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHON": str(python)},
        cwd=tmp_path,
    )
    assert done.returncode == 2  # the launcher was reached, and found no Paddle in that Python
    assert "launch_multinode.sh" in done.stderr


def test_the_scripts_pass_shellcheck() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed; the package shellcheck of the system has it")
    scripts = [str(TASKS / task / "scripts/train.sh") for task in ("illama", "vit_llama")]
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout

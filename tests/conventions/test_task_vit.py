"""The launch-scale ViT recipes resolve to the values of PASSL's files of the same names."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from passl.config import load_config, plan_batches

REPO = Path(__file__).resolve().parents[2]
TASK = REPO / "tasks/classification/vit"

_COMMON = {
    "pretrained_model": None,
    "finetune": False,
    "drop_rate": 0.1,
    "scheduler": ("ViTLRScheduler", "cosine"),
    "data": "./dataset/ILSVRC2012/",
    "lists": ("train_list.txt", "val_list.txt"),
    "labels": (False, None),
}
_BASE_224: dict[str, Any] = {
    **_COMMON,
    "model": ("ViT_base_patch16_224", 1000),
    "epochs": 300,
    "processes": 8,
    "batch": (4096, 512, 2),
    "drop_last": False,
    "learning_rate": 3e-3,
    "warmup_steps": 10000,
    "optimizer": {"name": "AdamW", "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.3},
    "clip_norm": 1.0,
    "loss": ("sigmoid", 0.0001),
    "train_metric": True,
    "crop": (224, (0.05, 1.0), "bicubic"),
    "eval_sizes": {"resize_short": 256, "interpolation": "bicubic", "crop": 224},
    "eval_batch": 256,
}
_BASE_384: dict[str, Any] = {
    **_BASE_224,
    "finetune": True,
    "pretrained_model": "./output/ViT_base_patch16_224/best",
    "model": ("ViT_base_patch16_384", 1000),
    "epochs": 8,
    "batch": (512, 64, 2),
    "drop_last": True,
    "learning_rate": 0.003,
    "warmup_steps": 500,
    "optimizer": {"name": "Momentum", "momentum": 0.9, "weight_decay": 0.0001},
    "clip_norm": 0.5,
    "loss": ("softmax", None),
    "crop": (384, (0.05, 1.0), "bilinear"),
    "eval_sizes": {"size": 384, "interpolation": "bilinear", "crop": None},
    "eval_batch": 32,
}

#: PASSL's values. Ours on purpose: where the fine-tuning starts from, checkpoint: auto, curves on.
RECIPES: dict[str, dict[str, Any]] = {
    "ViT_base_patch16_224_in1k_1n8c_dp_fp16o2": _BASE_224,
    "ViT_base_patch16_384_ft_in1k_1n8c_dp_fp16o2": _BASE_384,
    "ViT_large_patch16_224_in21k_4n32c_dp_fp16o2": {
        **_BASE_224,
        "model": ("ViT_large_patch16_224", 21841),
        "epochs": 90,
        "processes": 32,
        "batch": (4096, 128, 1),
        "drop_last": True,
        "scheduler": ("ViTLRScheduler", "linear"),
        "learning_rate": 1e-3,
        "optimizer": {"name": "AdamW", "betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.15},
        "clip_norm": None,
        "train_metric": False,
        "crop": (224, (0.08, 1.0), "bicubic"),
        "data": "./dataset/ImageNet21K/",
        "lists": ("image_all_list.txt", "image_dummy_val_list.txt"),
        "labels": (True, 21841),
    },
    "ViT_large_patch16_384_in1k_ft_4n32c_dp_fp16o2": {
        **_BASE_384,
        "pretrained_model": "./output/ViT_large_patch16_224/latest",
        "model": ("ViT_large_patch16_384", 1000),
        "processes": 32,
        "batch": (512, 16, 1),
        "learning_rate": 0.015,
        "clip_norm": 1.5,
        "train_metric": False,
        "eval_batch": 256,
    },
}
_TRAIN_OPS = ["DecodeImage", "RandCropImage", "RandFlipImage", "NormalizeImage", "ToCHWImage"]


def resolved(name: str, processes: int) -> dict[str, Any]:
    """The values of a shipped recipe under the names of :data:`RECIPES`."""
    config = load_config(str(TASK / "configs" / f"{name}.yaml"))
    plan = plan_batches(config, processes)
    train, evaluation = config.DataLoader.Train, config.DataLoader.Eval
    train_ops = {op["name"]: op for op in train.dataset["transform_ops"]}
    eval_ops = {op["name"]: op for op in evaluation.dataset["transform_ops"]}
    assert list(train_ops) == _TRAIN_OPS
    for ops in (train_ops, eval_ops):
        assert ops["NormalizeImage"]["scale"] == 1.0 / 255.0
        assert (
            list(ops["NormalizeImage"]["mean"]) == list(ops["NormalizeImage"]["std"]) == [0.5] * 3
        )
    resize, crop = eval_ops["ResizeImage"], train_ops["RandCropImage"]
    assert (resize["backend"], crop["backend"]) == ("pil", "pil")
    size = config.Model["img_size"] if "img_size" in config.Model else crop["size"]
    assert config.Export.input_shape == [None, 3, size, size]
    assert (config.FP16.level, config.FP16.GradScaler.init_loss_scaling) == ("O2", 65536.0)
    assert (config.Global.seed, config.Global.eval_unit, config.Global.eval_interval) == (
        2021,
        "epoch",
        1,
    )
    assert (config.Global.print_batch_step, config.Global.save_interval) == (10, 1)
    assert (train.sampler.shuffle, evaluation.sampler.shuffle) == (True, False)
    assert (train.loader.num_workers, evaluation.loader.num_workers) == (8, 8)
    (loss,), (eval_loss,) = config.Loss.Train, config.Loss.Eval
    assert (loss.component["name"], eval_loss.component["name"]) == ("ViTCELoss", "CELoss")
    assert [tuple(metric["topk"]) for metric in config.Metric.Eval] == [(1, 5)]
    clip = config.Optimizer.grad_clip
    root = train.dataset["image_root"]
    eval_sizes = {key: resize[key] for key in ("resize_short", "size") if resize.get(key)}
    return {
        "model": (config.Model["name"], config.Model["class_num"]),
        "drop_rate": config.Model["drop_rate"],
        "finetune": config.Global.finetune,
        "pretrained_model": config.Global.pretrained_model,
        "epochs": config.Global.epochs,
        "processes": processes,
        "batch": (plan.global_batch_size, plan.batch_size, plan.accum_steps),
        "drop_last": train.sampler.drop_last,
        "scheduler": (config.LRScheduler["name"], config.LRScheduler["decay_type"]),
        "learning_rate": config.LRScheduler["learning_rate"],
        "warmup_steps": config.LRScheduler["warmup_steps"],
        "optimizer": {key: config.Optimizer.component[key] for key in RECIPES[name]["optimizer"]},
        "clip_norm": clip.clip_norm if clip is not None else None,
        "loss": (loss.component["type"], loss.component.get("epsilon")),
        "train_metric": bool(config.Metric.Train),
        "crop": (crop["size"], tuple(crop.get("scale", (0.08, 1.0))), crop["interpolation"]),
        "eval_sizes": {
            **eval_sizes,
            "interpolation": resize["interpolation"],
            "crop": eval_ops.get("CenterCropImage", {}).get("size"),
        },
        "eval_batch": plan.eval_batch_size // processes,
        "data": root,
        "lists": tuple(
            section.dataset["cls_label_path"].replace(root, "") for section in (train, evaluation)
        ),
        "labels": (
            bool(train.dataset.get("multi_label")),
            train.dataset.get("class_num"),
        ),
    }


@pytest.mark.parametrize("name", RECIPES)
def test_a_launch_scale_recipe_has_passls_values(name: str) -> None:
    expected = RECIPES[name]
    found = resolved(name, expected["processes"])
    found["optimizer"] = {
        key: tuple(value) if isinstance(value, (list, tuple)) else value
        for key, value in found["optimizer"].items()
    }
    assert found == expected


def test_every_recipe_ships_under_passls_name_with_a_script_that_runs_it() -> None:
    shipped = {path.stem for path in (TASK / "configs").glob("*.yaml")}
    assert shipped == set(RECIPES)
    for name in RECIPES:
        path = f"tasks/classification/vit/configs/{name}.yaml"
        scripts = [s for s in (TASK / "scripts").glob("*.sh") if path in s.read_text()]
        assert len(scripts) == 1, f"{path}: {scripts}"
        assert os.access(scripts[0], os.X_OK)
        nodes = "4" if "4n32c" in name else "1"
        assert f"PADDLE_NNODES:-{nodes}}}" in scripts[0].read_text()
        assert scripts[0].name in (TASK / "configs" / f"{name}.yaml").read_text()


def test_shell_scripts_pass_shellcheck() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed; the package shellcheck of the system has it")
    scripts = [
        *REPO.glob("tools/*.sh"),
        *REPO.glob("tools/*.sbatch"),
        *TASK.glob("scripts/*.sh"),
    ]
    assert len(scripts) >= 6
    done = subprocess.run(
        ["shellcheck", *map(str, scripts)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout

"""The recipes of DeiT III have the values of the commands that its authors published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from passl.config import load_config, plan_batches
from passl.registry import BATCH_TRANSFORMS, TRANSFORMS

REPO = Path(__file__).resolve().parents[2]

_SCRATCH: dict[str, Any] = {
    "epochs": 800, "batch": 2048, "optimizer": "Lamb", "lr": 3e-3, "decay": 0.05, "classes": 1000,
    "loss": "BCELoss", "mixing": (0.8, 1.0, 0.0), "repeats": 3, "augment": "ThreeAugment",
    "crop": "RandCropImage", "start": None, "head": None,
}
_FINETUNE = {
    **_SCRATCH, "epochs": 20, "batch": 512, "optimizer": "AdamW", "lr": 1e-5, "decay": 0.1,
    "loss": "CELoss", "mixing": (0.8, 1.0, 0.1), "repeats": 1, "augment": "TimmAutoAugment",
    "head": "keep",
}
_IN21K = {
    **_SCRATCH, "epochs": 240, "lr": 1e-3, "decay": 0.02, "classes": 21841, "loss": "CELoss",
    "mixing": (0.0, 1.0, 0.1), "repeats": 1, "crop": "RandomCrop",
}
_FROM_21K = {**_IN21K, "epochs": 50, "lr": 3e-4, "classes": 1000, "head": "new"}


def _in(folder: str, name: str) -> str:
    return f"./output/{folder}DeiT3_{name}_224/latest"


#: Source: README_revenge.md of facebookresearch/deit, at commit 4bd679b.
RECIPES: dict[str, dict[str, Any]] = {
    "small_patch16_224": {**_SCRATCH, "size": 224, "lr": 4e-3, "drop_path": 0.05, "procs": 8},
    "base_patch16_192": {**_SCRATCH, "size": 192, "drop_path": 0.2, "procs": 8},
    "large_patch16_192": {**_SCRATCH, "size": 192, "drop_path": 0.45, "procs": 32},
    # The command says 160; patches of 14 pixels cover 154 of them.
    "huge_patch14_154": {**_SCRATCH, "size": 154, "drop_path": 0.6, "procs": 32},
    "base_patch16_224_ft": {
        **_FINETUNE, "size": 224, "drop_path": 0.2, "procs": 8,
        "start": _in("at_192/", "base_patch16"),
    },
    "large_patch16_224_ft": {
        **_FINETUNE, "size": 224, "drop_path": 0.45, "procs": 8,
        "start": _in("at_192/", "large_patch16"),
    },
    "huge_patch14_224_ft": {
        **_FINETUNE, "size": 224, "drop_path": 0.55, "procs": 16,
        "start": _in("at_154/", "huge_patch14"),
    },
    "small_patch16_384_ft": {
        **_FINETUNE, "size": 384, "drop_path": 0.0, "procs": 8, "start": _in("", "small_patch16"),
    },
    "small_patch16_224_in21k": {**_IN21K, "size": 224, "drop_path": 0.05, "procs": 16},
    "base_patch16_224_in21k": {**_IN21K, "size": 224, "drop_path": 0.1, "procs": 32},
    "large_patch16_224_in21k": {**_IN21K, "size": 224, "drop_path": 0.3, "procs": 32},
    "small_patch16_224_in21k_ft": {
        **_FROM_21K, "size": 224, "drop_path": 0.05, "procs": 16,
        "start": _in("in21k/", "small_patch16"),
    },
    "base_patch16_224_in21k_ft": {
        **_FROM_21K, "size": 224, "drop_path": 0.15, "procs": 32,
        "start": _in("in21k/", "base_patch16"),
    },
    "large_patch16_224_in21k_ft": {
        **_FROM_21K, "size": 224, "drop_path": 0.4, "procs": 32,
        "start": _in("in21k/", "large_patch16"),
    },
}  # fmt: skip


def test_these_are_all() -> None:
    shipped = {path.stem for path in REPO.glob("configs/DeiT3_*.yaml")}
    assert shipped == {f"DeiT3_{name}" for name in RECIPES}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_its_authors_values(name: str) -> None:
    expected = dict(RECIPES[name])
    config = load_config(str(REPO / f"configs/DeiT3_{name}.yaml"), mode="train")
    procs = expected.pop("procs")
    plan = plan_batches(config, procs)
    assert (plan.accum_steps, plan.batch_size * procs) == (1, plan.global_batch_size)
    train = config.DataLoader.Train
    assert train is not None
    ops = {op["name"]: op for op in train.dataset["transform_ops"]}
    (mixing,) = train.batch_transform
    (loss,) = config.Loss.Train
    sampler = train.sampler.component
    optimizer = config.Optimizer.component
    assert {
        "epochs": config.Global.epochs,
        "batch": plan.global_batch_size,
        "optimizer": optimizer["name"],
        "lr": config.LRScheduler["learning_rate"],
        "decay": optimizer["weight_decay"],
        "classes": config.Model["class_num"],
        "loss": loss.component["name"],
        "mixing": (mixing["mixup_alpha"], mixing["cutmix_alpha"], mixing["epsilon"]),
        "repeats": sampler.get("num_repeats", 1),
        "augment": next(n for n in ops if n in ("ThreeAugment", "TimmAutoAugment")),
        "crop": next(n for n in ops if n in ("RandCropImage", "RandomCrop")),
        "start": config.Global.pretrained_model,
        "head": config.Global.finetune_head if config.Global.finetune else None,
        "size": config.Export.input_shape[-1],
        "drop_path": config.Model["drop_path_rate"],
    } == expected
    assert config.Model["init_values"] == 1e-4
    schedule = config.LRScheduler
    assert (schedule["name"], schedule["unit"]) == ("TimmCosine", "epoch")
    assert schedule["eta_min"] == 1e-5
    assert (schedule["warmup_epoch"], schedule["warmup_start_lr"]) == (5, 1e-6)
    assert (*optimizer["betas"], optimizer["eps"]) == (0.9, 0.999, 1e-8)
    clip = config.Optimizer.grad_clip
    assert (clip.clip_norm if clip is not None else None) == (
        1.0 if expected["optimizer"] == "Lamb" else None
    )
    assert config.Optimizer.no_weight_decay_1d
    assert config.Optimizer.no_weight_decay_name == ["pos_embed", "cls_token"]
    assert (config.EMA.decay, config.EMA.warmup) == (0.99996, False)
    _check_images(config, ops, expected)


def _check_images(config: Any, ops: dict[str, Any], expected: dict[str, Any]) -> None:
    size = expected["size"]
    if expected["crop"] == "RandomCrop":
        crop = ops["RandomCrop"]
        assert (crop["size"], crop["padding"], crop["padding_mode"]) == (size, 4, "reflect")
        assert (ops["Resize"]["size"], ops["Resize"]["interpolation"]) == (size, "bicubic")
    else:
        crop = ops["RandCropImage"]
        assert (crop["size"], list(crop["scale"])) == (size, [0.08, 1.0])
        assert crop["interpolation"] == "bicubic"
    if expected["augment"] == "ThreeAugment":
        assert ops["ThreeAugment"]["color_jitter"] == 0.3
    else:
        assert ops["TimmAutoAugment"]["config_str"] == "rand-m9-mstd0.5-inc1"
    assert "RandomErasing" not in ops
    evaluation = {op["name"]: op for op in config.DataLoader.Eval.dataset["transform_ops"]}
    resized = evaluation["ResizeImage"]
    assert (resized["resize_short"], evaluation["CenterCropImage"]["size"]) == (size, size)
    for section in (config.DataLoader.Train, config.DataLoader.Eval):
        assert [TRANSFORMS.build(op) for op in section.dataset["transform_ops"]]
        for op in section.batch_transform:
            BATCH_TRANSFORMS.build(op, model_class_num=config.Model["class_num"])

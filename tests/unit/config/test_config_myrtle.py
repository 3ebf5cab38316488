"""myrtle-vision's JSON configs, of both versions: every key is mapped or named, the result runs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from passl.cli import config as command
from passl.config import load_config
from passl.config.myrtle import import_myrtle
from passl.errors import ConfigError
from passl.schedules.stepwise import MultiStepDecay

# The keys and values of their files.
TRAIN = {
    "train_config": {
        "output_directory": "checkpoints_deit_tiny", "checkpoint_path": "", "epochs": 300,
        "local_batch_size": 32, "global_batch_size": 64, "iters_per_checkpoint": 1000,
        "iters_per_val": 1000, "seed": 1234, "drop_last_batch": True, "optimizer": "adamw",
        "opt_eps": 1e-8, "opt_betas": None, "momentum": 0.9, "weight_decay": 0.05,
        "clip_grad": None, "scheduler": "cosine", "lr": 5e-4, "lr_noise": None,
        "lr_noise_pct": 0.67, "lr_noise_std": 1.0, "warmup_lr": 1e-6, "min_lr": 1e-5,
        "warmup_epochs": 5, "decay_epochs": 15, "cooldown_epochs": 5, "patience_epochs": 5,
        "decay_rate": 0.1, "distributed": True,
    },
    "data_config_path": "data_configs/data_config.json",
    "dist_config": {"dist_backend": "nccl", "dist_url": "tcp://localhost:54321"},
    "vit_config": {
        "image_size": 224, "patch_size": 16, "embed_dim": 192, "depth": 12, "heads": 3,
        "mlp_dim": 768, "dropout": 0.1, "emb_dropout": 0.1, "q_format": "FP32",
    },
}  # fmt: skip
TEACHER = {
    "distiller_config": {
        "temperature": 3, "alpha": 0.5,
        "teacher_weights_path": "resnet50_resisc45_pyt_finetuned_weights.pth",
    }
}  # fmt: skip
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
HALF = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
DATA = {
    "dataset_path": "NWPU-RESISC45", "train_files": "train_imagepaths.txt",
    "valid_files": "val_imagepaths.txt", "test_files": "test_imagepaths.txt",
    "label_map": "label_map.json", "number_of_classes": 45,
    "transform_ops_train": {
        "Normalize": IMAGENET, "RandomHorizontalFlip": None, "RandomResizedCrop": 224,
    },
    "transform_ops_val": {"Resize": 224, "CenterCrop": 224, "Normalize": IMAGENET},
}  # fmt: skip


def of_head(train: dict[str, Any], data: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same files at their head."""
    train, data = copy.deepcopy(train), copy.deepcopy(data)
    train["train_config"]["pretrained_backbone"] = "vit_tiny_patch16_224"
    train["train_config"]["lr"] = 6.25e-5
    train["vit_config"].update(decoder="classification", dropout=0.0, emb_dropout=0.0)
    for split in ("train", "val"):
        data[f"transform_ops_{split}"]["Normalize"] = HALF
    del data["transform_ops_val"]["CenterCrop"]
    return train, data


@pytest.fixture
def write_json(tmp_path):
    """Write the two files in their folders; returns the training config's path."""

    def write(train: dict[str, Any], data: dict[str, Any] = DATA) -> Path:
        for name, content in (("train_configs/x.json", train),
                              ("data_configs/data_config.json", data)):  # fmt: skip
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(content))
        return tmp_path / "train_configs/x.json"

    return write


def loaded(path: Path, tmp_path: Path):
    out = tmp_path / "out.yaml"
    out.write_text(import_myrtle(path).to_yaml("x.json"))
    return load_config(out, mode="train")


def every_key(train: dict[str, Any], data: dict[str, Any]) -> set[str]:
    nested = {f"{s}.{k}" for s, v in train.items() if isinstance(v, dict) for k in v}
    flat = {key for key, value in train.items() if not isinstance(value, dict)}
    return nested | flat | {f"data.{k}" for k in data if k != "number_of_classes"}


@pytest.mark.parametrize("teacher", [{}, TEACHER], ids=["vit", "deit"])
@pytest.mark.parametrize("version", ["d5089bc", "2b3665d"])
def test_every_key_is_mapped_or_named_with_a_reason(write_json, tmp_path, version, teacher):
    train, data = {**TRAIN, **teacher}, DATA
    if version == "2b3665d":
        train, data = of_head(train, data)
    path = write_json(train, data)
    found = import_myrtle(path)
    assert found.variant == version
    told = {*found.mapped, *found.unmapped} - {"number_of_classes"}
    assert told == every_key(train, data)
    assert not set(found.mapped) & set(found.unmapped)
    assert all(found.unmapped.values())
    assert loaded(path, tmp_path).Model["class_num"] == 45


def test_a_hidden_width_survives_being_a_ratio(write_json, tmp_path):
    sizes = {**TRAIN["vit_config"], "embed_dim": 704, "heads": 11, "mlp_dim": 1920}
    model = loaded(write_json({**TRAIN, "vit_config": sizes}), tmp_path).Model
    assert int(model["embed_dim"] * model["mlp_ratio"]) == 1920


@pytest.mark.parametrize("sizes", [{"heads": 0, "embed_dim": 0}, {"mlp_dim": 0}])
def test_sizes_of_nothing_are_refused(write_json, tmp_path, sizes):
    path = write_json({**TRAIN, "vit_config": {**TRAIN["vit_config"], **sizes}})
    with pytest.raises(ConfigError, match="heads and mlp_dim must be at least 1"):
        loaded(path, tmp_path)


def test_the_first_versions_values(write_json, tmp_path):
    config = loaded(write_json({**TRAIN, **TEACHER}), tmp_path)
    run, model = config.Global, config.Model
    assert (run.epochs, run.seed, run.output_dir) == (300, 1234, "checkpoints_deit_tiny")
    assert (run.global_batch_size, run.micro_batch_size) == (64, 32)
    assert (run.save_interval, run.save_unit) == (1000, "step")
    assert (run.eval_interval, run.eval_unit) == (1000, "step")
    assert model["name"] == "MyrtleDistilledVisionTransformer"
    assert {key: model[key] for key in ("embed_dim", "depth", "num_heads", "mlp_ratio")} == {
        "embed_dim": 192, "depth": 12, "num_heads": 3, "mlp_ratio": 4.0,
    }  # fmt: skip
    assert (model["qkv_bias"], model["drop_rate"], model["epsilon"]) == (False, 0.1, 1e-5)
    assert config.LRScheduler is not None
    assert config.LRScheduler["learning_rate"] == pytest.approx(6.25e-5)
    assert (config.LRScheduler["warmup_start_lr"], config.LRScheduler["eta_min"]) == (1e-6, 1e-5)
    assert config.Optimizer is not None
    assert config.Optimizer.component["betas"] == (0.9, 0.999)
    assert config.Optimizer.component["weight_decay"] == 0.05
    assert config.Distillation is not None
    assert (config.Distillation.form, config.Distillation.alpha) == ("myrtle", 0.5)
    assert config.Distillation.temperature == 3.0
    teacher = config.Distillation.teacher
    assert teacher is not None
    assert (teacher.name, teacher.transform.mean) == ("ResNet50", None)
    assert config.DataLoader.Train is not None
    names = [step["name"] for step in config.DataLoader.Train.dataset["transform_ops"]]
    assert names == ["RandomResizedCrop", "RandFlipImage", "NormalizeImage", "ToCHWImage"]
    assert config.DataLoader.Eval is not None
    names = [step["name"] for step in config.DataLoader.Eval.dataset["transform_ops"]]
    assert names == ["ResizeImage", "CenterCrop", "NormalizeImage", "ToCHWImage"]
    assert config.DataLoader.Train.sampler.drop_last
    assert not config.DataLoader.Eval.sampler.drop_last
    assert config.Quantization is None


def test_the_heads_values(write_json, tmp_path):
    config = loaded(write_json(*of_head({**TRAIN, **TEACHER}, DATA)), tmp_path)
    assert (config.Model["qkv_bias"], config.Model["drop_rate"]) == (True, 0.0)
    assert config.LRScheduler is not None
    assert config.LRScheduler["learning_rate"] == 6.25e-5
    assert config.Distillation is not None
    assert config.Distillation.teacher is not None
    assert config.Distillation.teacher.transform.mean == IMAGENET["mean"]


@pytest.mark.parametrize("key", ["vit_config.q_format", "vit_config.q_config",
                                 "train_config.q_config"])  # fmt: skip
@pytest.mark.parametrize(
    ("theirs", "ours", "mode"),
    [("FP16_32", "FP16_32", "qat"), ("TF32", "TF32", "qat"), ("PyTorchINT8", "int8", "ptq")],
)
def test_number_formats_are_found_under_both_names(write_json, tmp_path, key, theirs, ours, mode):
    train = copy.deepcopy(TRAIN)
    del train["vit_config"]["q_format"]
    section, name = key.split(".")
    train[section][name] = theirs
    config = loaded(write_json(train), tmp_path)
    assert config.Quantization is not None
    assert (config.Quantization.format, config.Quantization.mode) == (ours, mode)


def changed(key: str, value: Any) -> dict[str, Any]:
    train = copy.deepcopy(TRAIN)
    section, name = key.split(".")
    train[section][name] = value
    return train


REFUSED = {
    "two formats": ("train_config.q_config", "TF32", "their code reads q_format only"),
    "unknown format": ("vit_config.q_format", "FP8", "q_format: expected one of FP32, FP16_32"),
    "segmentation": ("vit_config.decoder", "segmentation", "only classification is there"),
    "head width": ("vit_config.heads", 4, "4 heads of theirs have 64 channels each, 256 in all"),
    "scheduler": ("train_config.scheduler", "tanh", "cosine and step are converted"),
    "optimizer": ("train_config.optimizer", "nadam", "lamb, lars, nlars are converted"),
    "type": ("train_config.epochs", "many", "epochs: expected a whole number, found 'many'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_converted_is_refused_with_the_reason(write_json, case):
    key, value, message = REFUSED[case]
    with pytest.raises(ConfigError) as error:
        import_myrtle(write_json(changed(key, value)))
    assert message in str(error.value)


@pytest.mark.parametrize("epoch", [0, 3, 5, 14, 15, 29, 30, 299])
def test_steps_are_timms(write_json, tmp_path, epoch):
    """timm 0.5.4's StepLRScheduler: a line to the rate, then a factor every decay_epochs."""
    config = loaded(write_json(changed("train_config.scheduler", "step")), tmp_path)
    assert config.LRScheduler is not None
    arguments = {key: value for key, value in config.LRScheduler.items() if key != "name"}
    schedule = MultiStepDecay(**arguments, total_steps=300 * 7, steps_per_epoch=7)
    base, start = 5e-4 * 64 / 512, 1e-6
    wanted = start + epoch * (base - start) / 5 if epoch < 5 else base * 0.1 ** (epoch // 15)
    assert schedule(epoch * 7 + 3) == pytest.approx(wanted)
    found = import_myrtle(write_json(changed("train_config.scheduler", "step")))
    assert found.unmapped["train_config.min_lr"] == "steps of a factor have no lowest rate"
    assert {*found.mapped, *found.unmapped} - {"number_of_classes"} == every_key(TRAIN, DATA)


@pytest.mark.parametrize(
    ("theirs", "ours", "settings"),
    [
        ("lamb", "Lamb", {"eps": 1e-8, "betas": (0.9, 0.999)}),
        ("lars", "LARS", {"momentum": 0.9, "use_nesterov": False}),
        ("nlars", "LARS", {"use_nesterov": True}),
        ("nesterov", "Momentum", {"use_nesterov": True}),
        ("momentum", "Momentum", {"use_nesterov": False}),
    ],
)
def test_optimizers_are_found_by_timms_names(write_json, tmp_path, theirs, ours, settings):
    path = write_json(changed("train_config.optimizer", theirs))
    config = loaded(path, tmp_path)
    assert config.Optimizer is not None
    component = config.Optimizer.component
    assert component["name"] == ours
    assert {key: component[key] for key in settings} == settings
    clip = config.Optimizer.grad_clip
    assert (clip.clip_norm if clip else None) == (1.0 if theirs == "lamb" else None)
    found = import_myrtle(path)
    assert {*found.mapped, *found.unmapped} - {"number_of_classes"} == every_key(TRAIN, DATA)


def test_keys_that_nobody_reads_are_named(write_json):
    found = import_myrtle(write_json(changed("train_config.epoch", 3)))
    assert found.unmapped["train_config.epoch"] == (
        "no key of theirs, so their code does not read it; did you mean 'epochs'?"
    )


def test_the_command_writes_a_config_and_says_what_it_left(write_json, tmp_path, capsys):
    path, out = write_json({**TRAIN, **TEACHER}), tmp_path / "deit.yaml"
    assert command.main(["import-myrtle", str(path), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert f"next: passl-check -c {out}" in said.out
    assert "not mapped: train_config.distributed: the launcher decides" in said.err
    text = out.read_text()
    assert "#   train_config.lr -> LRScheduler.learning_rate 6.25e-05 (0.0005 * 64 / 512" in text
    assert command.main(["import-myrtle", str(path), "--out", str(out)]) == 2
    assert command.main(["import-myrtle", str(path)]) == 0
    assert capsys.readouterr().out == text


def test_a_missing_data_config_says_where_it_was_looked_for(tmp_path, capsys):
    (tmp_path / "x.json").write_text(json.dumps(TRAIN))
    assert command.main(["import-myrtle", str(tmp_path / "x.json")]) == 2
    message = capsys.readouterr().err
    assert "data_config_path: data_configs/data_config.json is not in" in message
    assert "--data FILE" in message

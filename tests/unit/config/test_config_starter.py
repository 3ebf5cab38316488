"""A small config to start from says what its base says, and what the keys in it mean."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml

from passl.config import load_config
from passl.config.flat import differences
from passl.config.keys import all_keys
from passl.config.shipped import shipped_configs
from passl.config.starter import write_starter
from passl.errors import ConfigError


@pytest.mark.parametrize(
    "base", ["ViT_base_patch16_224", "iLLaMA_tiny_patch16_224", "quickstart/ViT_micro_digits"]
)
def test_it_is_its_base_but_for_the_folder_of_the_run(base, tmp_path):
    config = write_starter(tmp_path / "mine.yaml", base)
    found = differences(load_config(base), config)
    assert [difference.path for difference in found] == ["Global.output_dir"]
    assert config.Global.output_dir == "./output/mine"
    assert yaml.safe_load(Path("mine.yaml").read_text())["_base_"] == base


@pytest.mark.slow
@pytest.mark.parametrize("base", shipped_configs())
def test_every_shipped_config_can_be_started_from(base, tmp_path):
    config = write_starter(tmp_path / "mine.yaml", base)
    found = differences(load_config(base), config)
    assert [difference.path for difference in found] == ["Global.output_dir"]


def test_each_key_in_it_is_explained_by_the_schema(tmp_path):
    write_starter(tmp_path / "mine.yaml", "ViT_base_patch16_224")
    text = " ".join(Path("mine.yaml").read_text().replace("#", " ").split())
    for path in ("Global.epochs", "Model.ViT_base_patch16_224.class_num", "FP16.level"):
        key = next(key for key in all_keys() if key.path == path)
        assert f"{key.doc} ({key.takes}; default {key.default})" in text


def test_the_settings_asked_for_are_in_it(tmp_path):
    settings = ["Global.epochs=7", "Optimizer.betas=[0.8, 0.9]", "Loss.Train.0.epsilon=0.25"]
    config = write_starter(tmp_path / "mine.yaml", "ViT_base_patch16_224", settings)
    assert config.Global.epochs == 7
    assert config.Optimizer.component["betas"] == (0.8, 0.9)
    assert config.Loss.Train[0].component["epsilon"] == 0.25
    assert config.Loss.Train[0].component["name"] == "ViTCELoss"
    assert config.overrides == ()


def test_another_component_may_be_asked_for(tmp_path):
    settings = ["Optimizer.name=Lion", "Optimizer.weight_decay=0.5"]
    config = write_starter(tmp_path / "mine.yaml", "ViT_base_patch16_224", settings)
    assert config.Optimizer.component["name"] == "Lion"
    assert config.Optimizer.component["weight_decay"] == 0.5
    assert config.Optimizer.grad_clip is not None


def test_a_file_may_be_the_base(write, base, tmp_path):
    write("sub/mine.yaml", base)
    (tmp_path / "other").mkdir()
    config = write_starter(tmp_path / "other/new.yaml", "sub/mine.yaml", ["Global.epochs=9"])
    assert yaml.safe_load(Path("other/new.yaml").read_text())["_base_"] == "../sub/mine.yaml"
    assert (config.Global.epochs, config.Model["name"]) == (9, "ToyNet")


def test_nothing_is_overwritten(write):
    write("mine.yaml", "keep")
    with pytest.raises(ConfigError, match=r"mine\.yaml is there already"):
        write_starter(Path("mine.yaml"), "ViT_base_patch16_224")
    assert Path("mine.yaml").read_text() == "keep"


@pytest.mark.parametrize(
    ("base", "settings", "message"),
    [
        ("ViT_base_patch16_225", [], "did you mean 'ViT_base_patch16_224'"),
        ("ViT_base_patch16_224", ["Global.epoch=3"], "did you mean 'epochs'"),
        ("ViT_base_patch16_224", ["Global.epochs"], "no '='"),
        ("ViT_base_patch16_224", ["~Metric.Train"], "write Metric.Train: null into the file"),
        ("ViT_base_patch16_224", ["Optimizer.lr_decay_unit=step"], "resolved config has no"),
    ],
)
def test_a_mistake_leaves_no_file(base, settings, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        write_starter(Path("mine.yaml"), base, settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a b: #c", "мой запуск", "1e5", "null"])
def test_any_name_of_a_file_is_taken_and_can_be_pasted(name):
    config = write_starter(Path(f"{name}.yaml"), "quickstart/ViT_micro_digits")
    assert config.Global.output_dir == f"./output/{name}"
    lines = Path(f"{name}.yaml").read_text("utf-8").splitlines()
    command = next(line for line in lines if "passl-train" in line)
    assert shlex.split(command, comments=False) == ["#", "passl-train", "-c", f"{name}.yaml"]


def test_a_folder_that_takes_no_files_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"/proc/mine\.yaml cannot be written: "):
        write_starter(Path("/proc/mine.yaml"), "quickstart/ViT_micro_digits")


def test_settings_that_a_file_cannot_say_are_refused(write, base, tmp_path):
    """A mapping of a file adds to its base's, where that of an override replaces it."""
    write("base.yaml", base.replace("Global:\n", "Global:\n  flags: {FLAGS_a: 1, FLAGS_b: 2}\n"))
    with pytest.raises(ConfigError, match=r"cannot say these settings: Global\.flags\.FLAGS_a"):
        write_starter(Path("mine.yaml"), "base.yaml", ["Global.flags={FLAGS_b: 3}"])
    assert [path.name for path in tmp_path.iterdir()] == ["base.yaml"]


# -- differences -------------------------------------------------------------------------------


def test_configs_differ_by_what_they_resolve_to(load, write, base):
    first = load(base)
    again = write("again.yaml", base.replace("epochs: 2", "epochs: 2\n  seed: 2021"))
    assert differences(first, load_config(again)) == []  # a default that is written out
    other = load_config(again, ["Global.seed=5", "Loss.Train.0.epsilon=0.2"])
    found = {item.path: (item.values, item.origins) for item in differences(first, other)}
    assert found == {
        "Global.seed": ((2021, 5), ("default", "-o Global.seed=5")),
        "Loss.Train.0.epsilon": ((0.1, 0.2), ("x.yaml:10", "-o Loss.Train.0.epsilon=0.2")),
    }

"""Fine-tuning through the command, on real digits: other classes, another image size."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from small_run import assert_same_arrays

from passl.checkpoint.files import read_arrays
from passl.cli import train

QUICKSTART = Path(__file__).parents[2] / "configs/quickstart/ViT_micro_digits.yaml"
NORMALIZE = {"NormalizeImage": {"mean": [0.5], "std": [0.5], "order": "hwc", "channel_num": 1}}
TOP, HEAD = "VisionTransformer", ("head.weight", "head.bias")


class Task:
    """The quick start's recipe on some digits, at some size."""

    def __init__(self, folder: Path, digits: list[int], img_size: int, epochs: int) -> None:
        config: dict[str, Any] = yaml.safe_load(QUICKSTART.read_text())
        steps = [{"ResizeImage": {"size": img_size}}, NORMALIZE, {"ToCHWImage": None}]
        for mode, split in (("Train", "train"), ("Eval", "val")):
            config["DataLoader"][mode]["dataset"] = {
                "name": "SomeDigits",
                "digits": digits,
                "split": split,
                "transform_ops": copy.deepcopy(steps),
            }
        config["Global"].update(epochs=epochs, imports=["some_digits"], use_visualdl=False)
        config["Model"].update(img_size=img_size, class_num=len(digits))
        config["LRScheduler"]["warmup_epoch"] = 1
        folder.mkdir()
        self.folder, self.file = folder, folder / "config.yaml"
        self.file.write_text(yaml.safe_dump(config, sort_keys=False))

    def train(self, name: str, *overrides: str) -> Path:
        """Train and return the run's folder."""
        output = f"Global.output_dir={self.folder / name}"
        assert train.main(["-c", str(self.file), "-o", output, *overrides]) == 0
        return self.folder / name / TOP


def last_accuracy(run: Path) -> float:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == "eval"][-1]["top1"]


def weights(run: Path) -> dict[str, np.ndarray]:
    return read_arrays(run / "latest/model.pdparams")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    """The quick start's model after twelve epochs of the digits 0 to 5, at 8 x 8."""
    root = tmp_path_factory.mktemp("pretrained")
    return Task(root / "task", [0, 1, 2, 3, 4, 5], img_size=8, epochs=12).train("run") / "latest"


@pytest.fixture
def task(tmp_path) -> Task:
    """Four epochs of four other digits, at 12 x 12."""
    return Task(tmp_path / "task", [6, 7, 8, 9], img_size=12, epochs=4)


def test_pretrained_weights_help_with_other_classes_at_another_size(task, pretrained):
    """Measured on seeds 1 to 3: 0.78 to 0.91 fine-tuned, 0.26 to 0.48 from scratch."""
    scratch = task.train("scratch")
    tuned = task.train("tuned", f"Global.pretrained_model={pretrained}", "Global.finetune=true")
    assert last_accuracy(tuned) > 0.6  # with room for the last bits of other processors
    assert last_accuracy(tuned) > last_accuracy(scratch) + 0.15
    log = (tuned / "train.log").read_text()
    for line in (
        "model.pdparams: 30 of 32 tensors loaded",
        "resized pos_embed: grid 4x4 -> 6x6, bicubic",
        "newly initialised head.weight: [48, 6] in the file, [48, 4] in the model (6 -> 4 classes)",
    ):
        assert line in log
    assert "weights from" not in (scratch / "train.log").read_text()


def test_a_resumed_fine_tuning_does_not_load_or_resize_again(task, pretrained):
    options = [
        f"Global.pretrained_model={pretrained}", "Global.finetune=true", "Global.save_interval=1",
    ]  # fmt: skip
    whole = task.train("whole", *options)
    task.train("cut", *options, "Global.max_train_step=16")
    cut = task.train("cut", *options)
    assert_same_arrays(weights(cut), weights(whole))
    assert (cut / "train.log").read_text().count("weights from") == 1


def test_weights_that_do_not_fit_stop_the_run_unless_they_may_be_missing(task, pretrained, capsys):
    deeper = ["Model.depth=3", f"Global.pretrained_model={pretrained}", "Global.finetune=true"]
    command = ["-c", str(task.file), "-o", f"Global.output_dir={task.folder / 'deeper'}", *deeper]
    assert train.main(command) == 1
    assert "blocks.2.norm1.weight: missing in the file" in capsys.readouterr().err
    run = task.train("deeper", *deeper, r"Global.allow_missing=['^blocks\.2\.']")
    log = (run / "train.log").read_text()
    assert "kept as initialised blocks.2.norm1.weight: not in the file" in log


def test_the_method_and_a_new_head_can_be_asked_for(tmp_path, pretrained):
    same = Task(tmp_path / "same", [0, 1, 2, 3, 4, 5], img_size=12, epochs=1)
    options = [f"Global.pretrained_model={pretrained}", "Global.finetune=true"]
    kept = same.train("kept", *options)
    new = same.train("new", *options, "Global.finetune_head=new", "Global.pos_embed_resize=zoom")
    assert "newly initialised" not in (kept / "train.log").read_text()
    log = (new / "train.log").read_text()
    assert "resized pos_embed: grid 4x4 -> 6x6, zoom" in log
    assert "newly initialised head.weight: a new head was asked for" in log


def test_layers_near_the_image_learn_slower_and_the_log_shows_the_table(task, pretrained):
    run = task.train(
        "decay",
        f"Global.pretrained_model={pretrained}",
        "Global.finetune=true",
        "Global.epochs=1",
        "Optimizer.layer_decay=0.1",
    )
    log = (run / "train.log").read_text()
    assert "layer decay 0.1:" in log
    table = re.findall(r"INFO: (\d) +([\d.]+) +\d+ +[\d,]+  (\S+?),", log)
    assert table == [
        ("0", "0.001", "cls_token"),
        ("1", "0.01", "blocks.0.norm1.weight"),
        ("2", "0.1", "blocks.1.norm1.weight"),
        ("3", "1", "head.weight"),
    ]
    before, after = read_arrays(pretrained / "model.pdparams"), weights(run)
    moved = [
        np.abs(after[name] - before[name]).mean()
        for name in ("blocks.0.mlp.fc1.weight", "blocks.1.mlp.fc1.weight")
    ]
    assert 0 < moved[0] < 0.3 * moved[1]


def test_frozen_parameters_do_not_move_and_are_counted(task, pretrained):
    run = task.train(
        "frozen",
        f"Global.pretrained_model={pretrained}",
        "Global.finetune=true",
        "Optimizer.freeze=['^(?!head)']",
        "Optimizer.no_weight_decay_name=[]",
    )
    before, after = read_arrays(pretrained / "model.pdparams"), weights(run)
    fixed = [name for name in before if name not in (*HEAD, "pos_embed")]
    assert_same_arrays({n: after[n] for n in fixed}, {n: before[n] for n in fixed})
    assert np.abs(after["head.weight"]).max() > 0
    assert "30 tensors (40,080 parameters) frozen" in (run / "train.log").read_text()
    assert last_accuracy(run) > 0.4  # the features of other digits, linearly read


def test_a_pattern_that_is_none_is_told_before_anything_is_loaded(task, capsys):
    command = ["-c", str(task.file), "-o", "Global.allow_missing=['(']", "Optimizer.freeze=['[']"]
    assert train.main(command) == 2
    said = capsys.readouterr().err
    assert "Global.allow_missing.0: '(' is not a regular expression" in said
    assert "Optimizer.freeze.0: '[' is not a regular expression" in said

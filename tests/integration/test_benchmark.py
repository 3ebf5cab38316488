"""``passl-benchmark`` on real parts: what it counts, keeps, refuses and leaves behind."""

from __future__ import annotations

import json

import cv2
import pytest
import yaml

from passl import build_run, load_config
from passl.cli import benchmark
from passl.engine.measuring.benchmark import measure
from passl.engine.measuring.synthetic import NUM_IMAGES
from passl.models.summary import macs


def test_every_part_is_measured_kept_and_compared(run_folder, tmp_path, capsys):
    kept = tmp_path / "report.json"
    command = ["-c", str(run_folder.config_file), "--steps", "2", "--json", str(kept)]
    assert benchmark.main([*command, "-o", "Global.seed=3", "EMA.every=2"]) == 0
    assert "\nbottleneck: " in capsys.readouterr().out
    content = json.loads(kept.read_text())
    timings = content["timings"]
    assert list(timings) == ["forward", "forward_backward", "step", "loader", "together"]
    assert all(timing["images"] == 256 for timing in timings.values())
    model = content["about"]["model"]
    assert content["about"]["overrides"] == "Global.seed=3 EMA.every=2"
    config = load_config(run_folder.config_file)
    arguments = {key: value for key, value in config.Model.items() if key != "name"}
    assert timings["forward"]["flops"] == 2 * macs(model, **arguments) * 256
    assert timings["step"]["flops"] == 3 * timings["forward"]["flops"]
    assert timings["forward"]["fastest"] <= timings["forward"]["seconds"]
    assert 0 < timings["forward_backward"]["utilisation"] < 1
    assert content["memory"]["host"] > 100 * 2**20
    assert not run_folder.dir.exists()  # nothing of a run is left

    assert benchmark.main(["--compare", str(kept), str(kept)]) == 0
    out = capsys.readouterr().out
    assert out.count("       1\n") == 7  # peak, five parts, memory: each is itself


def test_a_model_can_be_measured_without_its_images(run_folder, tmp_path, capsys):
    content = yaml.safe_load(run_folder.config_file.read_text())
    content["DataLoader"]["Train"]["dataset"] = {
        "name": "ImageNetDataset",
        "image_root": "not/here",
        "cls_label_path": "not/here.txt",
        "transform_ops": [
            {"DecodeImage": {"to_rgb": True, "channel_first": False}},
            {"ResizeImage": {"size": 8}},
            {"NormalizeImage": {"mean": [0.5] * 3, "std": [0.5] * 3, "order": ""}},
            {"ToCHWImage": None},
        ],
    }
    content["DataLoader"]["Train"]["sampler"]["batch_size"] = 8
    content["Model"]["in_chans"] = 3
    run_folder.config_file.write_text(yaml.safe_dump(content))
    command = ["-c", str(run_folder.config_file), "--steps", "1", "--what", "loader"]
    assert benchmark.main(command) == 2
    assert "not/here" in capsys.readouterr().err
    assert benchmark.main([*command, "--synthetic"]) == 0
    assert "loader alone" in capsys.readouterr().out


def test_made_up_images_weigh_what_photographs_do(tmp_path):
    from passl.engine.measuring.synthetic import _write_images

    paths = [tmp_path / path for path in _write_images(tmp_path, 10)]
    assert len(paths) == NUM_IMAGES
    mean = sum(path.stat().st_size for path in paths) / NUM_IMAGES
    assert 40e3 < mean < 70e3
    assert cv2.imread(str(paths[0])).shape == (375, 500, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--what", "speed"], "--what 'speed': write some of model, loader, step, together"),
        (["--steps", "0"], "--steps must be at least 1, found 0"),
        (["--synthetic"], "not for DigitsDataset; leave it out"),
        (["--compare", "a", "b", "c"], "--compare takes one file or two, not 3"),
        (["--compare", "gone.json"], "gone.json: cannot be read"),
        (["--json", "no/such/x.json"], "--json no/such/x.json: there is no folder no/such"),
        (["--json", "."], "--json .: is a folder"),
    ],
)
def test_a_mistake_on_the_command_line_is_told(run_folder, capsys, arguments, message):
    assert benchmark.main(["-c", str(run_folder.config_file), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_batches_that_are_not_full_do_not_count(run_folder):
    config = load_config(run_folder.config_file, ["Global.eval_during_train=false"])
    run = build_run(config, "train")  # 1438 digits are five batches of 256 and one of 158
    try:
        report = measure(run, ["loader", "together"], steps=7, warm_up=0)
    finally:
        run.close()
    assert report.timings["loader"].images == report.timings["together"].images == 256
    assert report.timings["together"].wait_s is not None


def test_forward_and_backward_are_those_of_a_training_step_teacher_included(run_folder):
    config = load_config(run_folder.config_file, ["Global.eval_during_train=false"])
    run = build_run(config, "train")
    parts, calls = run.trainer.parts, []

    class Slow:
        """Stands for a teacher: what a training step calls instead of model and loss alone."""

        def __call__(self, model, images, target, loss, precision):
            calls.append(len(images))
            logits = model(images)
            return logits, loss(logits, target)

        teacher = type("Teacher", (), {"name": "Big"})

    parts.distillation = Slow()
    try:
        report = measure(run, ["model"], steps=2, warm_up=1)
    finally:
        run.close()
    assert calls == [256] * 3
    assert report.about["teacher"] == "Big"

"""Training and evaluation through the commands, on real digits."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from small_run import assert_same_arrays
from started import start_training

import passl
from passl.cli import eval as eval_command
from passl.cli import train as train_command
from passl.data.batch_transforms.switching import MixupCutmix

NO_RANDOM_LAYERS = ("Model.drop_rate=0.0", "Model.drop_path_rate=0.0")


def test_a_run_learns_logs_saves_and_says_where_everything_is(run_folder, capsys):
    assert run_folder.train("Global.use_visualdl=true", "Global.epochs=6") == 0
    losses = [record["loss"] for record in run_folder.records("train")]
    assert losses[-1] < 0.9 * losses[0]
    out = capsys.readouterr().out
    assert "model VisionTransformer: " in out
    assert "global batch 256 = 1 process x 256 images" in out
    assert "weight decay: " in out
    train_line = re.compile(
        r"\[\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\] passl INFO: \[Train\]\[Epoch 2/6\]\[Iter: 2/6\] "
        r"lr: 0\.\d{6,}, top1: \d\.\d{5}, metric: \d\.\d{5}, top5: \d\.\d{5}, CELoss: \d\.\d{5}, "
        r"loss: \d\.\d{5}, batch_cost: \d\.\d{5}, reader_cost: \d\.\d{5}, "
        r"ips: \d+\.\d{5} images/sec, eta: \d:\d\d:\d\d"
    )
    assert train_line.search(out)
    assert re.search(r"\[Eval\]\[Epoch 6\]\[Avg\]CELoss: \d\.\d{5}, loss: \d\.\d{5}, top1: ", out)
    for name in ("train.log", "metrics.jsonl", "config.yaml", "best", "latest"):
        assert (run_folder.dir / name).exists(), name
    assert f"visualdl --logdir {run_folder.dir}/vdl" in out
    assert f"passl-eval -c {run_folder.config_file}" in out


def test_evaluation_gives_the_accuracy_that_training_printed(run_folder, capsys):
    assert run_folder.train("Global.epochs=2") == 0
    best = run_folder.state()["best"]
    printed = next(r for r in run_folder.records("eval") if r["step"] == best["step"])
    capsys.readouterr()
    for batch_size in (359, 256, 7):  # all at once, ragged, and much smaller
        assert (
            eval_command.main(
                [
                    "-c",
                    str(run_folder.config_file),
                    "-o",
                    f"DataLoader.Eval.sampler.batch_size={batch_size}",
                ]
            )
            == 0
        )
        line = re.findall(r"\[Eval\]\[Epoch \d\]\[Avg\].*", capsys.readouterr().out)[-1]
        assert f"top1: {printed['top1']:.5f}" in line
        assert f"top5: {printed['top5']:.5f}" in line
        loss = float(re.search(r" loss: ([\d.]+)", line)[1])
        assert loss == pytest.approx(printed["loss"], abs=2e-5)


@pytest.mark.parametrize("drop_last", ["false", "true"])
def test_accumulation_gives_the_weights_of_the_big_batch(make_run, drop_last):
    # The last batch of an epoch has 158 samples: micro-batches of 64, 64 and 30.
    options = (
        *NO_RANDOM_LAYERS,
        "Global.epochs=2",
        f"DataLoader.Train.sampler.drop_last={drop_last}",
    )
    big, small = make_run("big"), make_run("small")
    assert big.train(*options) == 0
    assert small.train(*options, "Global.accum_steps=4") == 0
    for name, value in big.weights().items():
        np.testing.assert_allclose(small.weights()[name], value, rtol=0, atol=2e-5, err_msg=name)
    for mine, theirs in zip(big.records("train"), small.records("train")):
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-4)
        assert theirs["grad_norm"] == pytest.approx(mine["grad_norm"], rel=1e-3)


def test_the_number_of_loader_threads_changes_nothing(make_run):
    runs = [make_run(f"threads{count}") for count in (0, 1, 3)]
    for run, count in zip(runs, (0, 1, 3)):
        assert run.train("Global.epochs=1", f"DataLoader.Train.loader.num_workers={count}") == 0
    assert_same_arrays(runs[0].weights(), runs[1].weights())
    assert_same_arrays(runs[0].weights(), runs[2].weights())


def test_as_many_epochs_are_mixed_as_off_epoch_says(run_folder, monkeypatch):
    mixed = []
    real = MixupCutmix.mix
    monkeypatch.setattr(
        MixupCutmix, "mix", lambda op, *batch: mixed.append(1) or real(op, *batch)
    )
    mixing = "DataLoader.Train.batch_transform=[{MixupCutmix: {off_epoch: 2}}]"
    assert run_folder.train(mixing, "~Metric.Train", "Global.epochs=4") == 0
    assert len(mixed) == 2 * 6  # batches of an epoch


def test_the_logged_rate_is_the_one_that_was_used(run_folder):
    assert run_folder.train("Global.epochs=1", "Global.print_batch_step=1") == 0
    schedule = passl.registry.SCHEDULES.build(
        {"name": "ViTLRScheduler", "learning_rate": 0.01, "warmup_steps": 3},
        total_steps=6,
        steps_per_epoch=6,
    )
    rates = [record["lr"] for record in run_folder.records("train")]
    assert rates == [schedule(step) for step in range(6)]


def test_evaluations_in_steps_and_max_train_step_that_saves(run_folder):
    assert (
        run_folder.train(
            "Global.eval_unit=step", "Global.eval_interval=4", "Global.max_train_step=10"
        )
        == 0
    )
    assert [record["step"] for record in run_folder.records("eval")] == [4, 8, 10]
    assert run_folder.state()["step"] == 10


def test_a_run_without_evaluation_needs_no_eval_data(run_folder):
    assert (
        run_folder.train("Global.eval_during_train=false", "~DataLoader.Eval", "Global.epochs=1")
        == 0
    )
    assert run_folder.records("eval") == []
    assert run_folder.state()["best"] is None


def test_python_gives_what_the_commands_give(make_run):
    by_command, by_python = make_run("command"), make_run("python")
    assert by_command.train("Global.epochs=1") == 0
    config = passl.load_config(by_python.config_file, ["Global.epochs=1"])
    state = passl.build_run(config, mode="train").fit()
    assert state.step == 6
    assert_same_arrays(by_command.weights(), by_python.weights())
    result = passl.build_run(config, mode="eval").evaluate()
    assert result.values["top1"] == state.best.metric
    assert result.samples == 359


def test_pretrained_weights_start_a_run_and_its_state_does_not(make_run):
    first, second = make_run("first"), make_run("second")
    assert first.train("Global.epochs=2") == 0
    assert (
        second.train(
            f"Global.pretrained_model={first.dir / 'latest'}",
            "Global.epochs=1",
            "LRScheduler.learning_rate=0.0",
        )
        == 0
    )
    assert second.state()["step"] == 6
    assert_same_arrays(second.weights(), first.weights())  # a rate of 0 changes nothing
    assert "30 of 30 tensors loaded" in second.log()


USER_MODULE = '''
from typing import Annotated

import paddle

from passl.engine.hooks.base import Hook
from passl.registry import HOOKS, LOSSES, MODELS, Range, SCHEDULES, Runtime


@MODELS.register()
class OneLayer(paddle.nn.Layer):
    """A linear classifier of pixels."""

    def __init__(self, *, pixels: int = 64, class_num: int = 10) -> None:
        super().__init__()
        self.head = paddle.nn.Linear(pixels, class_num)

    def forward(self, images):
        return self.head(images.flatten(1))


@LOSSES.register()
class Margin(object):
    """Multi-class hinge."""

    def __init__(self, *, margin: Annotated[float, Range(min=0.0)] = 1.0) -> None:
        self.margin = margin

    def __call__(self, logits, target):
        right = paddle.take_along_axis(logits, target.unsqueeze(1), 1)
        return paddle.nn.functional.relu(self.margin + logits - right).mean()


@SCHEDULES.register()
class Halving:
    """Half the rate every epoch."""

    def __init__(self, *, learning_rate: float, steps_per_epoch: Annotated[int, Runtime()]) -> None:
        self.learning_rate, self.steps_per_epoch = learning_rate, steps_per_epoch

    def __call__(self, step):
        return self.learning_rate * 0.5 ** (step // self.steps_per_epoch)


@HOOKS.register()
class Diary(Hook):
    """Writes what happened."""

    def __init__(self, *, path: str) -> None:
        self.path = path

    def note(self, text):
        with open(self.path, "a") as file:
            file.write(text + "\\n")

    def on_start(self, trainer):
        self.note(f"start {trainer.state.step}")

    def on_eval_end(self, trainer, result):
        self.note(f"eval {result.samples}")

    def on_epoch_end(self, trainer):
        self.note("epoch")

    def on_finish(self, trainer):
        self.note(f"finish {trainer.state.step}")
'''


def test_users_bring_models_losses_schedules_and_hooks_without_touching_ours(
    run_folder, tmp_path, monkeypatch, capsys
):
    (tmp_path / "my_diary_project.py").write_text(USER_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    options = (
        "Global.imports=[my_diary_project]",
        "Global.epochs=2",
        "Global.print_batch_step=1",
        "Model={_delete_: true, name: OneLayer}",
        "Loss.Train=[{Margin: {margin: 2.0}}]",
        "LRScheduler={_delete_: true, name: Halving, learning_rate: 0.5}",
        f"Hooks=[{{name: Diary, path: {tmp_path / 'diary.txt'}}}]",
    )
    run = run_folder
    assert run.train(*options) == 0
    assert (tmp_path / "diary.txt").read_text().split("\n") == [
        "start 0",
        "epoch",
        "eval 359",
        "epoch",
        "eval 359",
        "finish 12",
        "",
    ]
    records = [
        json.loads(line)
        for line in (run.root / "out" / "OneLayer" / "metrics.jsonl").read_text().splitlines()
    ]
    train = [record for record in records if record["kind"] == "train"]
    assert [record["lr"] for record in train] == [0.5] * 6 + [0.25] * 6
    assert "Margin" in train[0]
    assert run.train(*options[:-1], "Hooks=[{name: Diary, pth: x}]") == 2
    assert "did you mean 'path'?" in capsys.readouterr().err


def imagenet_tree(root: Path, classes: int, images: int) -> Path:
    """A folder laid out as ILSVRC2012, with list files, of crops of scikit-learn's photographs."""
    import cv2
    from sklearn.datasets import load_sample_images

    photos = load_sample_images().images
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        lines = []
        for label in range(classes):
            folder = root / split / f"n{label:08d}"
            folder.mkdir(parents=True)
            for number in range(images):
                height, width = rng.integers(70, 120, 2)
                top, left = rng.integers(0, 300), rng.integers(0, 500)
                crop = photos[label % 2][top : top + height, left : left + width]
                name = f"{split}/n{label:08d}/{split} {number}.JPEG"  # a blank in the name
                assert cv2.imwrite(str(root / name), crop)
                lines.append(f"{name} {label}\n")
        (root / f"{split}_list.txt").write_text("".join(lines))
    return root


def test_the_imagenet_recipe_trains_on_a_cpu_with_a_small_tree_and_overrides(
    tmp_path, repo, capsys
):
    tree = imagenet_tree(tmp_path / "ILSVRC2012", classes=4, images=6)
    parts = [
        option
        for part, lists in (("Train", "train_list"), ("Eval", "val_list"))
        for option in (
            f"DataLoader.{part}.dataset.image_root={tree}",
            f"DataLoader.{part}.dataset.cls_label_path={tree / lists}.txt",
        )
    ]
    status = train_command.main([
        "-c", str(repo / "configs" / "ViT_base_patch16_224.yaml"), "-o", *parts,
        f"Global.output_dir={tmp_path / 'out'}", "Global.device=cpu", "Global.epochs=1",
        "Global.global_batch_size=8", "Model.img_size=32", "Model.depth=1", "Model.class_num=4",
        "DataLoader.Train.dataset.transform_ops.1.size=32",
        "DataLoader.Eval.dataset.transform_ops.1.resize_short=36",
        "DataLoader.Eval.dataset.transform_ops.2.size=32",
        "Global.use_visualdl=false",
    ])  # fmt: skip
    out = capsys.readouterr().out
    assert status == 0, out
    assert "FP16 O2 float16 does not exist on a CPU: running in fp32" in out
    assert "data: 24 training samples, 3 steps an epoch; 24 to evaluate" in out
    # Training and evaluation have different losses here; the criterion is still the accuracy.
    assert re.search(
        r"\[Eval\]\[Epoch 1\]\[Avg\]CELoss: [\d.]+, loss: [\d.]+, top1: (\S+), metric: \1", out
    )
    assert re.search(r"\[Avg\]top1: \S+ metric: \S+ top5: \S+ ViTCELoss: ", out)
    assert "best top1: " in out
    assert "warm" in out.lower()  # 10000 warm-up steps in a run of 3: allowed, and said
    assert (tmp_path / "out" / "ViT_base_patch16_224" / "best" / "model.pdparams").is_file()


def test_a_killed_run_started_again_ends_as_one_never_killed(make_run, repo, user_environment):
    whole, killed = make_run("whole"), make_run("killed")
    options = ("Global.save_unit=step", "Global.save_interval=2", "Global.epochs=4")
    assert whole.train(*options) == 0
    environment = {
        **user_environment,
        "PYTHONPATH": f"{repo / 'tests' / 'helpers'}:{user_environment['PYTHONPATH']}",
    }
    held = killed.root / "held"
    hold = ("Global.imports=[slow_parts]", f"Hooks=[{{name: Hold, step: 9, reached: {held}}}]")
    with start_training(killed, environment, *options, *hold) as started:
        started.wait_for_file(held)
        started.wait_for_file(killed.dir / "latest")
        started.send(signal.SIGKILL)
        assert started.end() == -signal.SIGKILL
    assert killed.state()["step"] in (2, 4, 6, 8)
    assert killed.train(*options) == 0
    assert_same_arrays(killed.weights(), whole.weights())
    assert_same_arrays(killed.optimizer(), whole.optimizer())


def test_the_training_parts_leave_no_thread_behind(run_folder):
    import threading

    def our_threads() -> int:
        """All but those that update parameters, which wait for the next run."""
        names = [thread.name for thread in threading.enumerate()]
        return sum(not name.startswith("passl-optim") for name in names)

    before = our_threads()
    assert run_folder.train("Global.epochs=1", "DataLoader.Train.loader.num_workers=3") == 0
    assert our_threads() <= before

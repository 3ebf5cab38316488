"""Real runs with a teacher: what it sees, what is saved and logged, and that it helps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
import yaml
from small_run import RunFolder, assert_same_arrays

from passl import build_run, load_config
from passl.checkpoint.files import read_arrays, write_arrays
from passl.cli import eval as eval_command
from passl.data.transforms.normalize import NormalizeImage
from passl.errors import EXIT_CONFIG
from passl.models import create_model

TINY = {
    "img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 2, "num_heads": 2,
    "mlp_ratio": 2.0, "class_num": 10,
}


class Student(RunFolder):
    """The small run with another model and a teacher."""

    def __init__(
        self, root: Path, teacher: Path, name: str = "DistilledVisionTransformer", **section: Any
    ) -> None:
        super().__init__(root)
        self.name = name
        config = yaml.safe_load(self.config_file.read_text())
        config["Model"] = {"name": name, **TINY}
        arguments = {key: value for key, value in TINY.items() if key != "class_num"}
        config["Distillation"] = {
            "teacher": {
                "name": "VisionTransformer", "pretrained": str(teacher), "arguments": arguments,
            },
            **section,
        }
        self.config_file.write_text(yaml.safe_dump(config, sort_keys=False))

    @property
    def dir(self) -> Path:
        return self.root / "out" / self.name


def save_start(path: Path, seed: int) -> Path:
    """Weights that nobody trained."""
    model = create_model("VisionTransformer", seed=seed, **TINY)
    write_arrays(path, {name: value.numpy() for name, value in model.state_dict().items()})
    return path


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """A teacher that knows nothing, which is enough to see how it is treated."""
    return save_start(tmp_path / "teacher.pdparams", seed=7)


WIDER = {"embed_dim": 32, "mlp_ratio": 4.0}


@pytest.fixture(scope="module")
def good_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wider transformer that makes no mistake on the digits it learned."""
    run = RunFolder(tmp_path_factory.mktemp("teacher"))
    options = ["Model.drop_rate=0", "Model.drop_path_rate=0", "Global.eval_interval=60"]
    options += [f"Model.{key}={value}" for key, value in WIDER.items()]
    assert run.train("Global.epochs=60", *options) == 0
    assert run.records("train")[-1]["top1"] == 1.0
    return run.dir / "latest"


def accuracy(root: Path, teacher: Path, arguments: dict[str, Any], **section: Any) -> float:
    """Of a student with one head, after thirty epochs."""
    run = Student(root, teacher, "VisionTransformer", **section)
    config = yaml.safe_load(run.config_file.read_text())
    config["Distillation"]["teacher"]["arguments"].update(arguments)
    run.config_file.write_text(yaml.safe_dump(config, sort_keys=False))
    assert run.train("Global.epochs=30", "Global.eval_interval=30") == 0
    return float(run.state()["last_eval"]["top1"])


def test_both_losses_are_logged_and_both_heads_learn(tmp_path, teacher):
    run = Student(tmp_path, teacher, type="hard")
    assert run.train("Global.epochs=2") == 0
    records = run.records("train")
    assert {"loss_ce", "loss_kd", "loss", "top1"} <= records[0].keys()
    for record in records:
        mean = (record["loss_ce"] + record["loss_kd"]) / 2
        assert record["loss"] == pytest.approx(mean, rel=1e-5)
    assert "CELoss" in run.records("eval")[0]
    weights = run.weights()
    start = create_model(run.name, seed=2021, **TINY).state_dict()
    assert weights.keys() == start.keys()  # the teacher is in no checkpoint
    for name in ("dist_token", "head_dist.weight", "head.weight"):
        assert (weights[name] != start[name].numpy()).any(), name
    assert "the student's distillation token learns from it: hard, form deit" in run.log()


def test_a_stopped_run_goes_on_bit_for_bit_with_all_its_parts(tmp_path, teacher):
    options = (
        "EMA={decay: 0.9}", "Global.epochs=2", "Global.accum_steps=2",
        "Global.eval_during_train=false",
    )
    whole, stopped = (Student(tmp_path / name, teacher) for name in ("whole", "stopped"))
    assert whole.train(*options) == 0
    for end in (4, 7):
        assert stopped.train(*options, f"Global.max_train_step={end}") == 0
    assert stopped.train(*options) == 0
    assert_same_arrays(stopped.weights(), whole.weights())
    assert_same_arrays(stopped.optimizer(), whole.optimizer())
    averaged = [read_arrays(run.dir / "latest/ema.pdparams") for run in (whole, stopped)]
    assert_same_arrays(*averaged)


def test_accumulation_changes_nothing(tmp_path, teacher):
    one, four = (Student(tmp_path / name, teacher, temperature=2.0) for name in ("one", "four"))
    still = ("Model.drop_rate=0", "Global.max_train_step=3", "Global.eval_during_train=false")
    assert one.train(*still) == 0
    assert four.train(*still, "Global.accum_steps=4") == 0
    for name, value in one.weights().items():
        np.testing.assert_allclose(four.weights()[name], value, atol=2e-6, err_msg=name)


def test_another_teacher_cannot_continue_the_run(tmp_path, teacher, capsys):
    run = Student(tmp_path, teacher)
    stop = ("Global.max_train_step=2", "Global.eval_during_train=false")
    assert run.train(*stop) == 0
    record = json.loads((run.dir / "latest/state.json").read_text())["teacher"]
    assert record["path"] == str(teacher)
    assert len(record["sha256"]) == 64
    other = save_start(tmp_path / "noise.pdparams", seed=5)
    assert run.train(f"Distillation.teacher.pretrained={other}") != 0
    message = capsys.readouterr().err
    assert "was trained with the teacher VisionTransformer of" in message
    assert record["sha256"][:12] in message


def test_a_teacher_of_other_classes_is_not_given_a_new_head(tmp_path, teacher, capsys):
    run = Student(tmp_path, teacher)
    assert run.train("Distillation.teacher.arguments.class_num=7") != 0
    message = capsys.readouterr().err
    assert "(10 -> 7 classes)" in message
    assert "must have learned the student's classes, here 10" in message
    assert "finetune" not in message


def test_the_teacher_is_not_needed_to_evaluate(tmp_path, teacher, capsys):
    run = Student(tmp_path, teacher)
    assert run.train("Global.epochs=1") == 0
    top1 = run.records("eval")[-1]["top1"]
    gone = "Distillation.teacher.pretrained=nowhere.pdparams"
    assert eval_command.main(["-c", str(run.config_file), "-o", gone]) == 0
    assert f"top1: {top1:.5f}" in capsys.readouterr().out
    assert run.train(gone, "Global.epochs=2") == EXIT_CONFIG
    assert "Distillation.teacher.pretrained: " in capsys.readouterr().err


def test_myrtles_student_is_saved_whole(tmp_path, teacher):
    name = "MyrtleDistilledVisionTransformer"
    run = Student(tmp_path, teacher, name, form="myrtle", alpha=0.25, temperature=3.0)
    assert run.train("Global.epochs=2") == 0
    for record in run.records("train"):
        mean = 0.25 * record["loss_ce"] + 0.75 * record["loss_kd"]
        assert record["loss"] == pytest.approx(mean, rel=1e-5)
    assert {"dist_token", "head_dist.0.weight", "head_dist.1.weight"} <= run.weights().keys()
    assert run.train("Distillation=null", "Global.epochs=3") == EXIT_CONFIG


def test_any_student_learns_and_mixed_targets_are_fine(tmp_path, teacher):
    run = Student(tmp_path, teacher, "VisionTransformer", type="soft", temperature=2.0)
    mixup = "DataLoader.Train.batch_transform=[{Mixup: {alpha: 0.8}}]"
    assert run.train("Global.epochs=2", mixup, "Metric.Train=[]") == 0
    assert "the student's logits learn from it" in run.log()
    losses = [record["loss_kd"] for record in run.records("train")]
    assert all(np.isfinite(losses))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, good_teacher: Path) -> float:
    """What the student comes to without a teacher."""
    return accuracy(tmp_path_factory.mktemp("alone"), good_teacher, WIDER, type="none")


@pytest.mark.slow
def test_a_teacher_without_a_mistake_teaches_what_the_labels_teach(tmp_path, good_teacher, alone):
    # 180 steps make other last bits, as of another processor, a few samples of 359.
    assert abs(accuracy(tmp_path, good_teacher, WIDER, type="hard") - alone) < 0.03


@pytest.mark.slow
def test_a_good_teacher_does_no_harm(tmp_path, good_teacher, alone):
    section = {"type": "soft", "form": "myrtle", "alpha": 0.5, "temperature": 3.0}
    assert accuracy(tmp_path, good_teacher, WIDER, **section) > alone - 0.03


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_a_teacher_of_noise_does_little_harm_with_a_small_weight(tmp_path, teacher, alone, kind):
    assert accuracy(tmp_path / "run", teacher, {}, type=kind, alpha=0.1) > alone - 0.05


@pytest.mark.parametrize("on_device", ["true", "false"])
def test_a_teacher_of_another_normalisation_is_given_it(tmp_path, teacher, on_device):
    """Wherever the student's images are normalised, the loader's transforms tell how."""
    run = build_run(load_config(str(Student(tmp_path, teacher).config_file), [
        "Distillation.teacher.transform={mean: [0.25], std: [0.125]}",
        f"DataLoader.Train.loader.normalize_on_device={on_device}",
    ]))  # fmt: skip
    assert run.trainer is not None
    distillation = run.trainer.parts.distillation
    assert distillation is not None
    step = NormalizeImage(mean=[0.5], std=[0.5], order="")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 1), dtype=np.uint8)
    students = step(pixels, np.random.default_rng(0)).reshape(1, 1, 8, 8)
    seen = distillation.teacher.see(paddle.to_tensor(students)).numpy()
    np.testing.assert_allclose(seen[0, 0], (pixels[..., 0] / 255 - 0.25) / 0.125, atol=1e-5)


def test_a_run_beside_the_teachers_weights_says_what_it_saw(tmp_path, capsys):
    trained = RunFolder(tmp_path / "teacher")
    assert trained.train("Global.max_train_step=1", "Global.eval_during_train=false") == 0
    run = Student(tmp_path, trained.dir / "latest", "VisionTransformer")
    other = (
        "DataLoader.Train.dataset.transform_ops=[{NormalizeImage: {mean: [0.1], std: [0.3], "
        "order: ''}}, {ToCHWImage: null}]"
    )
    stop = ("Global.max_train_step=1", "Global.eval_during_train=false")
    assert run.train(other, *stop) == EXIT_CONFIG
    assert "was trained on pixels with mean [0.5] and std [0.5]" in capsys.readouterr().err
    assert run.train(*stop) == 0


def test_the_teacher_is_frozen_and_stays_in_evaluation_mode(tmp_path, teacher):
    run = build_run(load_config(str(Student(tmp_path, teacher).config_file)))
    assert run.trainer is not None
    distillation = run.trainer.parts.distillation
    assert distillation is not None
    images = paddle.to_tensor(np.random.default_rng(0).random((2, 1, 8, 8), dtype="float32"))
    run.model.train()
    precision = run.trainer.parts.precision
    first = distillation.teacher.logits(images, precision)
    assert first.stop_gradient
    np.testing.assert_array_equal(
        first.numpy(), distillation.teacher.logits(images, precision).numpy()
    )

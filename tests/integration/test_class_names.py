"""A checkpoint knows the names of its classes, and what uses it needs no training folder."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from small_run import digits_config

from passl import load_config, load_model
from passl.checkpoint.average import average_checkpoints
from passl.cli import convert, train, visualize
from passl.cli import eval as eval_command
from passl.config.teaching import TeacherSection
from passl.engine.run_record import learned_classes, record_beside
from passl.engine.teachers.teacher_facts import teacher_facts
from passl.errors import CheckpointError, ConfigError
from passl.export.exporter import export_model

#: One of them is no UTF-8, as a folder's name need not be.
NAMES = ["cat", "dog", os.fsdecode(b"\xffbis")]


def folders(root: Path, names: list[str]) -> Path:
    """Two pictures a class, in folders of these names."""
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(2):
            Image.fromarray(np.full((8, 8, 3), 80 * number, np.uint8)).save(
                root / name / f"{number}.png"
            )
    return root


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of a run that was trained for one step; its pictures are gone."""
    root = tmp_path_factory.mktemp("named")
    pictures = folders(root / "pictures", NAMES)
    content = digits_config(root / "out")
    content["Global"].update(epochs=1, eval_during_train=False)
    content["Model"].update(class_num=3, in_chans=3)
    content["Metric"] = {"Eval": [{"TopkAcc": {"topk": [1]}}]}
    for name in ("Train", "Eval"):
        section = content["DataLoader"][name]
        steps = [{"NormalizeImage": {"mean": [0.5], "std": [0.5], "order": ""}}, {"ToCHWImage": {}}]
        section["dataset"] = {"name": "ImageFolder", "root": str(pictures), "transform_ops": steps}
        section["sampler"]["batch_size"] = 2
    file = root / "config.yaml"
    file.write_text(yaml.safe_dump(content))
    assert train.main(["-c", str(file)]) == 0
    shutil.rmtree(pictures)
    return file


def weights(config_file: Path) -> Path:
    return config_file.parent / "out/VisionTransformer/latest"


def test_a_checkpoint_gives_the_names_back(config_file):
    record = record_beside(str(weights(config_file)))
    assert learned_classes(record, 3) == NAMES
    assert learned_classes(record, 4) is None  # another head
    del record["classes"]  # as earlier versions wrote it
    assert learned_classes(record, 3) is None


def test_guesses_and_exports_are_named_though_the_pictures_are_gone(config_file, tmp_path):
    picture = folders(tmp_path, ["x"]) / "x/0.png"
    (guess,) = load_model(weights(config_file).parent).predict([str(picture)], topk=3)
    assert [each.name for each in guess.top] == [NAMES[each.label] for each in guess.top]
    config = load_config(config_file, ["Export.export_type=paddle"])
    assert export_model(config, tmp_path / "served").card.labels == NAMES


def evaluate(config_file: Path, dataset: str, *options: str) -> tuple[int, str]:
    """Exit status of passl-eval on other data, and what its log says of it."""
    log = weights(config_file).parent / "eval.log"
    log.unlink(missing_ok=True)
    overrides = [f"DataLoader.Eval.dataset.{dataset}", *options]
    status = eval_command.main(["-c", str(config_file), "-o", *overrides])
    return status, log.read_text(errors="surrogateescape")


def test_an_evaluation_in_another_order_is_refused(config_file, tmp_path):
    status, log = evaluate(config_file, f"root={folders(tmp_path, ['cat', 'cow', 'dog'])}")
    assert status == 2
    assert "class 'dog' has label 2 there, and the weights learned it as 1" in log


def test_mistakes_in_another_order_are_not_drawn(config_file, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    other = folders(tmp_path / "other", ["cat", "cow", "dog"])
    run = [str(weights(config_file).parent), "--out", str(tmp_path)]
    assert visualize.main(["confusion", *run, "-o", f"DataLoader.Eval.dataset.root={other}"]) == 2
    assert "class 'dog' has label 2 there, and the weights learned" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_an_evaluation_with_other_names_is_warned_of(config_file, tmp_path):
    status, log = evaluate(config_file, f"root={folders(tmp_path / 'new', ['cat', 'dox', 'z'])}")
    assert status == 0
    assert "has other names for 2 of 3 classes than the weights learned: label 1 is 'dox'" in log
    status, log = evaluate(config_file, f"root={folders(tmp_path / 'same', NAMES)}")
    assert (status, "other names" in log) == (0, False)


def test_a_list_without_names_is_reported_with_those_of_the_weights(config_file, tmp_path):
    folders(tmp_path, ["x", "y"])
    (tmp_path / "list.txt").write_text("x/0.png 0\ny/1.png 1\n")
    data = (
        f"{{name: ImageNetDataset, image_root: {tmp_path}, cls_label_path: {tmp_path}/list.txt, "
        "transform_ops: [{NormalizeImage: {mean: [0.5], std: [0.5], order: ''}}, {ToCHWImage: {}}]}"
    )
    log = weights(config_file).parent / "eval.log"
    log.unlink(missing_ok=True)
    options = [f"DataLoader.Eval.dataset={data}", "Quantization.format=FP16_32"]
    assert eval_command.main(["-c", str(config_file), "-o", *options]) == 0
    assert "dog" in log.read_text(errors="surrogateescape")


def test_a_teacher_that_is_a_checkpoint_says_in_which_order_it_learned(config_file):
    facts = teacher_facts(TeacherSection("VisionTransformer", str(weights(config_file))))
    facts.refuse_other_order(NAMES)
    with pytest.raises(ConfigError, match=r"state.json says that class 'cat' is number 0 of the t"):
        facts.refuse_other_order(["dog", "cat", "owl"])


def test_the_record_is_plain_utf8_where_names_are(config_file):
    text = (weights(config_file) / "state.json").read_bytes().decode("utf-8")
    assert json.loads(text)["classes"] == NAMES


def names_beside(file: Path) -> list[str]:
    return learned_classes(record_beside(str(file)), 3)


def test_averaged_and_converted_weights_keep_the_names(config_file, tmp_path):
    source = weights(config_file).resolve() / "model.pdparams"
    mean, timms, back = (tmp_path / n for n in ("mean.pdparams", "t.safetensors", "b.pdparams"))
    average_checkpoints([source.parent, source.parent], mean)
    model = ["--model", "VisionTransformer", "-o"]
    model += [f"{key}={value}" for key, value in small_arguments(config_file).items()]
    assert convert.main([str(mean), str(timms), *model]) == 0
    assert convert.main([str(timms), str(back), *model]) == 0
    assert [names_beside(file) for file in (mean, timms, back)] == [NAMES] * 3
    for file in (mean, back):
        settings = record_beside(str(file))
        before = record_beside(str(source))
        assert settings == {key: before[key] for key in settings}
        assert "plan" not in settings
    picture = folders(tmp_path, ["x"]) / "x/0.png"
    (guess,) = load_model(back, config=config_file).predict([str(picture)], topk=1)
    assert guess.top[0].name in NAMES
    status, log = evaluate(config_file, f"root={folders(tmp_path / 'seen', NAMES)}",
                           f"Global.pretrained_model={mean}")
    assert status == 0, log
    facts = teacher_facts(TeacherSection(name="VisionTransformer", pretrained=str(mean)))
    assert facts is not None
    assert facts.classes == NAMES


def test_names_are_not_those_of_a_file_that_took_the_place_of_another(config_file, tmp_path):
    mean = tmp_path / "mean.pdparams"
    average_checkpoints([weights(config_file)], mean)
    content = mean.read_bytes()
    assert names_beside(mean) == NAMES
    mean.write_bytes(content[:-1] + b"\0")  # as long, as files of one kind of model are
    assert names_beside(mean) is None


def test_weights_of_another_order_of_classes_are_not_averaged(config_file, tmp_path):
    checkpoint = weights(config_file).resolve()
    one, two = tmp_path / "one.pdparams", tmp_path / "two.pdparams"
    for file in (one, two):
        average_checkpoints([checkpoint], file)
    described = tmp_path / "two.pdparams.provenance.json"
    content = json.loads(described.read_text())
    content["learned"]["classes"].reverse()
    described.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="learned other classes, or the same in another"):
        average_checkpoints([one, two], tmp_path / "mean.pdparams")


def small_arguments(config_file: Path) -> dict[str, object]:
    """Of the model, without its classes, which the file shows."""
    model = yaml.safe_load(config_file.read_text())["Model"]
    return {key: value for key, value in model.items() if key not in ("name", "class_num")}

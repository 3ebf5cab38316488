"""``passl-visualize`` on a run that was really trained: what is written, said and refused."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
from small_run import RunFolder

from passl.checkpoint.files import read_arrays
from passl.cli import visualize
from passl.cli.visualize import main
from passl.models import create_model


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """One epoch; nothing below changes it."""
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    assert folder.train("Global.epochs=1") == 0
    return folder


@pytest.fixture
def digit(tmp_path: Path) -> Path:
    """An image file of the size that the model takes."""
    path = tmp_path / "digit.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, [8, 8], dtype=np.uint8))
    return path


def _picture(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None, path
    assert image.std() > 1, f"{path} is of one colour"
    return image


def test_attention_of_files_and_samples_from_the_folder_alone(run, digit, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["attention", str(run.dir), "--input", str(digit), "--sample", "3", "--raw"]
    assert main([*arguments, "--layer", "all", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.count("wrote") == 8
    assert "digit.png: class" in said
    for name in ("digit", "sample_3"):
        sheet = _picture(out / f"{name}_attention.png")
        assert sheet.shape[1] == 1425
        for layer in (0, 1):
            assert _picture(out / f"{name}_rollout_{layer}.png").shape == (8, 8, 3)
        with np.load(out / f"{name}_attention.npz") as arrays:
            assert arrays["attention"].shape == (2, 2, 5, 5)
            assert arrays["rollout"].shape == (2, 2, 2)
            assert arrays["box"].tolist() == [0, 0, 8, 8]
            assert list(arrays["layers"]) == ["blocks.0.attn", "blocks.1.attn"]
            probabilities, x = arrays["probabilities"], arrays["input"]
    model = create_model("VisionTransformer", **_model_arguments())
    model.set_state_dict({k: paddle.to_tensor(v) for k, v in run.weights().items()})
    model.eval()
    expected = paddle.nn.functional.softmax(model(paddle.to_tensor(x[None]))).numpy()[0]
    np.testing.assert_allclose(probabilities, expected, rtol=1e-5)


def _model_arguments() -> dict:
    return {
        "img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 2, "num_heads": 2,
        "mlp_ratio": 2.0, "class_num": 10,
    }


def test_a_config_and_weights_do_as_well_as_a_folder(run, digit, tmp_path):
    weights = tmp_path / "weights.pdparams"
    shutil.copyfile(run.dir / "latest" / "model.pdparams", weights)
    assert read_arrays(weights)
    chosen = ["-c", str(run.config_file), "-o", f"Global.pretrained_model={weights}"]
    more = ["--input", str(digit), "--style", "heat", "--head-fusion", "max"]
    more += ["--discard-ratio", "0.5", "--out", str(tmp_path / "o")]
    assert main(["attention", *chosen, *more]) == 0
    assert _picture(tmp_path / "o" / "digit_rollout.png").shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("command", "files"),
    [
        ("filters", ["VisionTransformer_filters.png"]),
        ("pos-embed", ["VisionTransformer_pos_embed.png"]),
        ("schedule", ["VisionTransformer_schedule.png", "VisionTransformer_schedule.csv"]),
        (
            "confusion",
            [f"VisionTransformer_{end}" for end in
             ("confusion.png", "confusion.csv", "mistakes.png", "mistakes.csv")],
        ),
        ("compare", ["compare.png"]),
    ],
)
def test_every_other_picture_from_the_folder(run, command, files, tmp_path, capsys):
    assert main([command, str(run.dir), "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    for file in files:
        assert f"wrote {tmp_path / file}" in said
        if file.endswith(".png"):
            _picture(tmp_path / file)
    if command == "confusion":
        top1 = float(said.split("top1 ")[1].split()[0])
        assert top1 == pytest.approx(run.records("eval")[-1]["top1"], abs=1e-5)


def test_augmentation_is_drawn_as_by_passl_data(run, tmp_path, capsys):
    file = tmp_path / "sheet.png"
    arguments = ["augment", "-c", str(run.config_file), "--num", "6", "--out", str(file)]
    assert main(arguments) == 0
    assert "6 images" in capsys.readouterr().out
    _picture(file)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["attention", "RUN"], "say what to look at"),
        (["attention", "RUN", "--sample", "999"], "samples 0 to 358"),
        (["attention", "RUN", "--sample", "0", "--layer", "7"], "number from 0 to 1"),
        (["attention", "RUN", "--sample", "0", "--layer", "\N{SUPERSCRIPT TWO}"], "from 0 to 1"),
        (["confusion", "RUN", "--mistakes", "0"], "--mistakes 0: must be at least 1"),
        (["confusion", "RUN", "--out", "CONFIG"], "is a file; name another folder"),
        (["attention", "RUN", "--sample", "0", "--discard-ratio", "1"], "0 to below 1"),
        (["attention", "RUN", "--sample", "0", "--llama"], "no LLaMA block"),
        (["filters"], "name the folder of a run"),
        (["filters", "RUN", "-c", "CONFIG"], "name the folder of a run"),
        (["filters", "nowhere"], "no config.yaml there"),
        (["filters", "-c", "CONFIG", "-o", "Global.output_dir=nowhere"], "no weights yet"),
        (["filters", "RUN", "-o", "Model.class_num=7"], "never trained shows nothing"),
        (["schedule", "RUN", "--steps-per-epoch", "0"], "at least 1"),
        (["compare", "nowhere"], "no metrics.jsonl"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_a_sentence(run, arguments, sentence, capsys):
    places = {"RUN": str(run.dir), "CONFIG": str(run.config_file)}
    assert main([places.get(word, word) for word in arguments]) in (1, 2)
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said


def test_an_image_of_another_size_is_named(run, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "large.png"), np.zeros([9, 9], np.uint8))
    assert main(["attention", str(run.dir), "--input", str(tmp_path / "large.png")]) == 1
    assert "large.png: the images are 9x9 pixels" in capsys.readouterr().err


def test_without_matplotlib_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["compare", "nowhere"]) == 2
    assert "pip install matplotlib" in capsys.readouterr().err


def test_files_of_many_layers_stand_in_their_order():
    names = [visualize._suffix(layer, 12) for layer in range(12)]
    assert names == sorted(names)
    assert visualize._suffix(1, 10) == "_1"

"""The sheet shows the pixels a model gets, and the targets that go with them."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from passl.cli.data import main
from passl.data.pictures import Part, parts_of_target, visible
from passl.data.transforms.normalize import NormalizeImage, ToCHWImage
from passl.errors import ConfigError
from passl.visualize import augment
from passl.visualize.augment import draw_sheet

DIGITS = "configs/quickstart/ViT_micro_digits.yaml"


def loader(*transforms: Any) -> Any:
    return SimpleNamespace(transforms=list(transforms))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("arguments", [{}, {"scale": 1.0, "mean": [120.0], "std": [60.0]}])
def test_normalisation_is_undone(channels, arguments):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 5, channels), dtype=np.uint8)
    mean = {} if channels == 3 or arguments else {"mean": 0.5, "std": 0.25}
    normalize = NormalizeImage(order="", **arguments, **mean)
    images = np.stack([ToCHWImage()(normalize(image, None), None) for image in pixels])
    shown = visible(images, loader(normalize, ToCHWImage()))
    np.testing.assert_array_equal(shown, np.broadcast_to(pixels, (4, 6, 5, 3)))
    np.testing.assert_array_equal(visible(pixels, loader()), np.broadcast_to(pixels, (4, 6, 5, 3)))


def test_floats_that_were_never_normalised_are_stretched():
    images = np.linspace(-3, 5, 48, dtype=np.float32).reshape(1, 3, 4, 4)
    shown = visible(images, loader())
    assert (shown.min(), shown.max()) == (0, 255)


@pytest.mark.parametrize(
    ("target", "names", "expected"),
    [
        (np.int64(3), None, [("class 3", 1.0)]),
        (np.int64(1), ["cat", "dog"], [("1 dog", 1.0)]),
        (np.int64(1), ["cat", "two\nlines, no utf\udcff"], [("1 two\\nlines, no utf\\xff", 1.0)]),
        (np.array([0.02, 0.32, 0.66]), None, [("class 2", 0.66), ("class 1", 0.32)]),
        (np.array([0.0, 1.0, 0.0, 1.0]), None, [("class 1", 1.0), ("class 3", 1.0)]),
        (np.array([0.86, 0.14]), None, [("class 0", 0.86), ("class 1", 0.14)]),
        (np.array([0.0, 1.0]), None, [("class 1", 1.0)]),
        (np.zeros(3), None, []),
    ],
)
def test_a_target_is_told_by_its_classes(target, names, expected):
    assert parts_of_target(target, names) == [Part(*pair) for pair in expected]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_pictures_are_on_the_sheet(tmp_path, count):
    colours = np.random.default_rng(0).integers(30, 226, (count, 1, 1, 3), dtype=np.uint8)
    images = np.repeat(np.repeat(colours, 200, axis=1), 300, axis=2)
    targets = [[Part("cat", 0.7), Part("dog", 0.3)]] * count
    draw_sheet(images, targets, "title", "transforms " * 30, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).reshape(-1, 3)
    for colour in colours.reshape(-1, 3):  # 1.6 by 1.1 inches at 150 dots
        assert (sheet == colour).all(axis=1).sum() > 0.9 * (1.645 * 150) * (1.097 * 150)
    blue, orange = (
        (sheet == colour).all(axis=1).sum() for colour in ((0, 114, 178), (230, 159, 0))
    )
    assert 2 < blue / orange < 2.7  # the bars, 0.7 to 0.3, and the marks of the names


def test_a_file_that_cannot_be_written_is_told(tmp_path):
    image, target = np.zeros((1, 8, 8, 3), np.uint8), [[Part("x", 1.0)]]
    (tmp_path / "file").touch()
    for path in (tmp_path / "sheet.xyz", tmp_path / "file" / "sheet.png"):
        with pytest.raises(ConfigError, match=f"{path.name} cannot be written: "):
            draw_sheet(image, target, "", "", path)


def test_the_folder_is_made(tmp_path):
    draw_sheet(np.zeros((1, 8, 8, 3), np.uint8), [[]], "", "", tmp_path / "of" / "it" / "a.png")
    assert (tmp_path / "of" / "it" / "a.png").stat().st_size > 100


def test_a_missing_matplotlib_is_told(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match="pip install matplotlib"):
        draw_sheet(np.zeros((1, 8, 8, 3), np.uint8), [[]], "", "", tmp_path / "a.png")


# -- the command ---------------------------------------------------------------------------------


def test_the_command_draws_a_config(repo, tmp_path, capsys):
    out, names = tmp_path / "digits.png", tmp_path / "names.txt"
    names.write_text("\n".join(f"digit {number}" for number in range(10)))
    options = ["-o", "DataLoader.Train.batch_transform=[{MixupCutmix: {mode: elem}}]"]
    command = ["preview", "-c", str(repo / DIGITS), "--out", str(out), "--classes", str(names)]
    assert main([*command, "--num", "6", *options]) == 0
    assert capsys.readouterr().out == f"{out}: 6 images of 8 x 8 pixels\n"
    first = out.read_bytes()
    assert first.startswith(b"\x89PNG")
    assert main([*command, "--num", "6", "--mode", "eval"]) == 0
    assert out.read_bytes() != first


def test_a_data_set_that_knows_its_classes_gives_their_names(repo, tmp_path, monkeypatch):
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / name / "1.png")
    drawn: list[Any] = []
    monkeypatch.setattr("passl.visualize.augment.draw_sheet", lambda *given: drawn.append(given))
    ops = "[DecodeImage: , {NormalizeImage: {order: ''}}, ToCHWImage: ]"
    folder = f"{{name: ImageFolder, root: {tmp_path / 'images'}, transform_ops: {ops}}}"
    options = ["-o", f"DataLoader.Train.dataset={folder}", "Model.class_num=2"]
    assert main(["preview", "-c", str(repo / DIGITS), "--num", "2", *options]) == 0
    assert sorted(parts[0].name for parts in drawn[0][1]) == ["0 cat", "1 dog"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num", "0"], "--num must be from 1 to 400, and --epoch at least 1"),
        (["--epoch", "0"], "--num must be from 1 to 400, and --epoch at least 1"),
        (["--classes", "nowhere.txt"], "classes_path nowhere.txt does not exist"),
    ],
)
def test_mistakes_on_the_command_line_are_told(repo, capsys, tmp_path, options, message):
    out = ["--out", str(tmp_path / "x.png")]
    assert main(["preview", "-c", str(repo / DIGITS), *out, *options]) == 2
    assert message in capsys.readouterr().err


def test_classes_of_folders_are_called_by_their_names(tmp_path, monkeypatch):
    for name in ("heron", "stork"):
        (tmp_path / "birds" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "birds" / name / "1.png")
    seen = []
    monkeypatch.setattr(augment, "draw_sheet", lambda images, targets, *_: seen.extend(targets))
    steps = [{"name": "NormalizeImage", "order": "hwc"}, {"name": "ToCHWImage"}]
    dataset = {"name": "ImageFolder", "root": str(tmp_path / "birds"), "transform_ops": steps}
    options = ["-o", "Model.class_num=2", "Model.in_chans=3", f"DataLoader.Eval.dataset={dataset}"]
    out = ["--out", str(tmp_path / "x.png")]
    config = "quickstart/ViT_micro_digits"
    assert main(["preview", "-c", config, "--mode", "eval", *out, *options]) == 0
    assert [target[0].name for target in seen] == ["0 heron", "1 stork"]


def test_missing_data_is_told_with_its_place(repo, capsys, tmp_path):
    config = repo / "configs/ViT_base_patch16_224.yaml"
    options = ["-o", f"DataLoader.Train.dataset.cls_label_path={tmp_path}/nowhere.txt"]
    assert main(["preview", "-c", str(config), "--out", str(tmp_path / "x.png"), *options]) == 2
    error = capsys.readouterr().err
    assert "DataLoader.Train.dataset: " in error
    assert "nowhere.txt" in error

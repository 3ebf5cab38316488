"""``passl-infer`` and ``passl.load_model``, from a run and from an export, on digits as files."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from exported import NAMES, Trained
from PIL import Image

import passl
from passl.cli import convert, infer
from passl.config import load_config
from passl.errors import CheckpointError, DataError
from passl.export.live import live_model

#: Arguments of the model that its tensors depend on.
SIZES = {"img_size", "patch_size", "in_chans", "class_num", "embed_dim", "depth", "num_heads",
         "mlp_ratio", "qkv_bias"}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    trained = Trained(tmp_path_factory.mktemp("trained") / "run")
    trained.export(trained.run.root / "served", "preprocess=true", f"labels={trained.labels}")
    (trained.pictures / "3_broken.png").write_bytes(
        (trained.pictures / "3.png").read_bytes()[:50]
    )
    return trained


@pytest.fixture(scope="module")
def expected(trained: Trained) -> np.ndarray:
    """Probabilities of the digits that are on disk."""
    import paddle

    model = live_model(load_config(trained.run.config_file)).layer
    pixels = np.stack([trained.pixels(index) for index in range(7)])
    with paddle.no_grad():
        logits = model(paddle.to_tensor(trained.inputs(pixels))).numpy().astype(np.float64)
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def test_weights_named_by_a_folder_have_a_hash_as_those_of_a_file(trained, tmp_path):
    folder = tmp_path / "foreign"  # as another program leaves it
    folder.mkdir()
    file = folder / "model.safetensors"
    config = load_config(trained.run.config_file)
    options = [f"{key}={value}" for key, value in config.Model.items() if key in SIZES]
    ours = trained.run.dir / "best" / "model.pdparams"
    model = ["--model", str(config.Model["name"]), "-o", *options]
    assert convert.main([str(ours), str(file), *model]) == 0
    assert live_model(config, str(folder)).sha256 == live_model(config, str(file)).sha256
    assert live_model(config, str(file)).sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def served(trained: Trained) -> str:
    return str(trained.run.root / "served")


def test_json_lines_keep_the_order_and_tell_of_broken_pictures(trained, expected, capsys):
    arguments = [str(trained.pictures), "--model", served(trained), "--topk", "10"]
    assert infer.main([*arguments, "--format", "json", "--batch-size", "3"]) == 1
    output, errors = capsys.readouterr()
    lines = [json.loads(line) for line in output.splitlines()]
    names = [Path(line["source"]).name for line in lines]
    assert names == [f"{name}.png" for name in (0, 1, 2, 3, "3_broken", 4, 5, 6)]
    assert "truncated or broken" in lines.pop(4)["error"]
    for line, row in zip(lines, expected):
        found = {guess["label"]: guess["probability"] for guess in line["top"]}
        np.testing.assert_allclose([found[label] for label in range(10)], row, atol=1e-5)
        shares = [guess["probability"] for guess in line["top"]]
        assert shares == sorted(shares, reverse=True)
        assert all(guess["name"] == NAMES[guess["label"]] for guess in line["top"])
    assert "skipped " in errors
    assert "1 of 8 pictures could not be used" in errors


def test_csv_of_a_list_on_stdin_goes_to_a_file(trained, expected, monkeypatch, tmp_path):
    paths = [str(trained.pictures / f"{index}.png") for index in (5, 0)]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(paths) + "\n"))
    out = tmp_path / "guesses.csv"
    arguments = ["-", "--model", str(trained.run.dir), "--labels", str(trained.labels)]
    assert infer.main([*arguments, "--topk", "2", "--format", "csv", "--out", str(out)]) == 0
    rows = list(csv.DictReader(out.open()))
    assert [(row["source"], row["rank"]) for row in rows] == [
        (path, rank) for path in paths for rank in "12"
    ]
    for row, index in zip(rows[::2], (5, 0)):
        assert int(row["label"]) == expected[index].argmax()
        assert row["name"] == NAMES[expected[index].argmax()]
        assert float(row["probability"]) == pytest.approx(expected[index].max(), abs=1e-5)


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text elsewhere")
def test_a_name_that_is_no_utf8_passes_through(trained, monkeypatch, tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff \xe6\x95\xb0.png"  # 0xff is never UTF-8
    shutil.copyfile(trained.pictures / "0.png", path)
    for kind in ("table", "csv", "json"):
        listed = io.TextIOWrapper(io.BytesIO(path + b"\r\n\n"), encoding="utf-8")  # strict
        monkeypatch.setattr("sys.stdin", listed)
        out = tmp_path / f"guesses.{kind}"
        arguments = ["-", "--model", served(trained), "--format", kind, "--out", str(out)]
        assert infer.main(arguments) == 0
        if kind == "json":
            assert os.fsencode(json.loads(out.read_text(encoding="utf-8"))["source"]) == path
        else:
            assert path in out.read_bytes()


def test_json_stays_json_where_letters_cannot_be_written():
    from passl.cli.infer import _JsonLines
    from passl.export.predictor import Failure

    file = io.BytesIO()
    stream = io.TextIOWrapper(file, encoding="cp1252", errors="backslashreplace")
    name = "\u00fc \u6570 \udcff"
    _JsonLines(stream)(Failure(name, "no picture"))
    stream.flush()
    assert json.loads(file.getvalue().decode("ascii"))["source"] == name


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_a_sentence(trained, capsys):
    picture = str(trained.pictures / "0.png")
    assert infer.main([picture, "--model", served(trained), "--out", "/dev/full"]) == 1
    errors = capsys.readouterr().err
    assert "--out /dev/full: cannot be written further (No space left" in errors
    with pytest.raises(CheckpointError, match=r"cannot write the sheet .*nowhere/sheet.png"):
        infer._sheet(Path("/nowhere/sheet.png"), [], 0)


def test_a_config_and_weights_with_pictures_behind_the_overrides(trained, expected, capsys):
    """``-o`` takes all that follows it; a picture there is a picture."""
    weights = f"Global.pretrained_model={trained.run.dir / 'best'}"
    picture = str(trained.pictures / "2.png")
    config = str(trained.run.config_file)
    assert infer.main(["--topk", "1", "-c", config, "-o", weights, picture]) == 0
    label = expected[2].argmax()
    assert capsys.readouterr().out == f"{picture}: {label} {100 * expected[2, label]:.1f}%\n"


def test_the_sheet_shows_every_picture_that_could_be_used(trained, tmp_path):
    sheet = tmp_path / "sheet.png"
    arguments = [str(trained.pictures), "--model", served(trained), "--out", str(tmp_path / "t")]
    assert infer.main([*arguments, "--sheet", str(sheet)]) == 1
    drawn = np.asarray(Image.open(sheet).convert("L"))
    # The first cell holds the first digit, enlarged 20 times without smoothing.
    first = drawn[12 : 12 + 160, 12 : 12 + 160]
    np.testing.assert_array_equal(first, np.kron(trained.pixels(0)[:, :, 0], np.ones((20, 20))))
    assert infer.main([*arguments, "--sheet", str(tmp_path / "sheet.txt")]) == 2


def test_a_sheet_keeps_no_more_pictures_than_it_shows(trained, tmp_path, monkeypatch, capsys):
    """A folder of 100,000 pictures would fill 8 GB with thumbnails."""
    drawn = []
    monkeypatch.setattr("passl.export.sheet.MAX_PICTURES", 2)
    monkeypatch.setattr("passl.export.sheet.write_sheet", lambda path, kept: drawn.extend(kept))
    arguments = [str(trained.pictures), "--model", served(trained), "--out", str(tmp_path / "t")]
    assert infer.main([*arguments, "--sheet", str(tmp_path / "sheet.png")]) == 1
    assert [Path(each.source).name for each in drawn] == ["0.png", "1.png"]
    assert "sheet.png shows the first 2 of 7 pictures" in capsys.readouterr().err


def test_an_interrupt_keeps_what_was_done(trained, monkeypatch, capsys):
    from passl.export.sessions import LiveSession

    calls, live = [], LiveSession.run

    def interrupted(self, batch):
        calls.append(len(batch))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return live(self, batch)

    monkeypatch.setattr(LiveSession, "run", interrupted)
    arguments = [str(trained.pictures / "[0-6].png"), "--model", str(trained.run.dir)]
    assert infer.main([*arguments, "--batch-size", "3"]) == 130
    output, errors = capsys.readouterr()
    assert len(output.splitlines()) == 3
    assert errors.endswith("passl-infer: interrupted\n")


@pytest.mark.parametrize(("arguments", "sentence"), [
    ([], "no pictures"),
    (["x.png"], "name the model"),
    (["x.png", "--model", "nowhere"], "nowhere: there is no such checkpoint"),
    (["x.png", "--model", ".", "-o", "Global.seed=1"], "-o goes with -c"),
    (["*.nothing", "--model", "."], "no file matches"),
])  # fmt: skip
def test_mistakes_of_the_command_line_are_told(arguments, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert infer.main(arguments) in (1, 2)
    assert sentence in capsys.readouterr().err


# -- Python ----------------------------------------------------------------------------------------


def test_run_checkpoint_and_export_predict_the_same(trained, expected):
    checkpoint = next((trained.run.dir / "checkpoints").glob("step_*"))
    config = str(trained.run.config_file)
    predictors = [
        passl.load_model(trained.run.dir),
        passl.load_model(checkpoint),
        passl.load_model(checkpoint / "model.pdparams", config=config),
        passl.load_model(served(trained), backend="paddle"),
    ]
    path = trained.pictures / "1.png"
    for predictor in predictors:
        for given in (path, Image.open(path), trained.pixels(1), str(path)):
            (found,) = predictor.predict(given, topk=3)
            order = np.argsort(-expected[1])[:3]
            assert [guess.label for guess in found.top] == list(order)
            shares = [guess.probability for guess in found.top]
            np.testing.assert_allclose(shares, expected[1][order], atol=1e-5)
    assert predictors[3].labels == NAMES
    assert predictors[0].labels is None


def test_a_file_of_an_export_leads_to_its_folder(trained, tmp_path):
    params = Path(served(trained)) / "model.pdiparams"
    with pytest.raises(CheckpointError, match=r"one file of an exported model; .*: .*/served$"):
        passl.load_model(params)
    (tmp_path / "theirs.onnx").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"theirs.onnx: .* without inference.yml beside it"):
        passl.load_model(tmp_path / "theirs.onnx")


def test_what_is_no_model_is_told(trained, tmp_path):
    with pytest.raises(CheckpointError, match="was not exported to onnx; it has paddle"):
        passl.load_model(served(trained), backend="onnx")
    with pytest.raises(CheckpointError, match=r"is no exported model \(it has no inference\.yml\)"):
        passl.load_model(trained.run.dir, backend="paddle")
    (tmp_path / "names.txt").write_text("only one\n")
    with pytest.raises(DataError, match="1 lines, but the model has 10 classes"):
        passl.load_model(served(trained), labels=str(tmp_path / "names.txt"))
    with pytest.raises(DataError, match="the model takes"):
        passl.load_model(served(trained)).predict(np.zeros((9, 9, 3), np.uint8))


def test_a_training_that_rounds_is_told_of_where_nothing_rounds(trained, capsys):
    picture = str(next(iter(sorted(trained.pictures.iterdir()))))
    config = ["-c", str(trained.run.config_file)]
    assert infer.main([picture, *config]) == 0
    assert "nothing is rounded" not in capsys.readouterr().err
    rounds = ["-o", "Quantization={format: FP16_32, mode: qat}"]
    assert infer.main([picture, *config, *rounds]) == 0
    said = capsys.readouterr().err
    assert "passl-infer: the config trains and evaluates in FP16_32; here" in said

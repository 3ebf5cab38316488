"""``inference.yml`` is read as strictly as it was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from passl.errors import CheckpointError
from passl.export.card import ModelCard

CONTENT: dict[str, Any] = {
    "format": 1,
    "model": {"name": "X"},
    "input": {"name": "image", "dtype": "float32", "layout": "NCHW", "shape": [None, 3, 8, 8]},
    "output": {"meaning": "logits", "shape": [None, 2]},
    "preprocess": [{"name": "ToCHWImage"}],
    "inside": [],
    "labels": ["été", "on"],
    "files": {"onnx": {"model": {"name": "model.onnx", "sha256": "0"}}},
}


def written(folder: Path, **changes: Any) -> Path:
    content = {key: value for key, value in {**CONTENT, **changes}.items() if value != "absent"}
    (folder / "inference.yml").write_text(yaml.safe_dump(content))
    return folder


def test_what_is_written_is_read_again(tmp_path):
    card = ModelCard.read(written(tmp_path))
    card.write(tmp_path)
    assert ModelCard.read(tmp_path) == card
    assert (card.channels, card.batch_size, card.labels) == (3, None, ["été", "on"])


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"format": 2}, "format 1"),
    ({"input": "absent"}, "the key 'input' is missing"),
    ({"preproces": []}, "there is no key 'preproces'; did you mean 'preprocess'"),
    ({"input": {"shape": [None, 3, 8, 8]}}, "'layout' is missing or out of place"),
    ({"output": {"meaning": "guesses", "shape": [1]}}, "make no sense"),
    ({"input": {**CONTENT["input"], "shape": [None, 3, 8]}}, "make no sense"),
    ({"input": {**CONTENT["input"], "shape": [-3, 3, 8, 8]}}, "make no sense"),
    ({"input": {**CONTENT["input"], "shape": [10**9, 3, 8, 8]}}, "make no sense"),
    ({"input": {**CONTENT["input"], "shape": [None, 3, "a", 8]}}, "make no sense"),
    ({"files": {"onnx": ["model.onnx"]}}, "make no sense"),
    ({"files": {"paddle": {"model": {"name": "model.json"}}}}, "make no sense"),
    ({"preprocess": "ToCHWImage"}, "make no sense"),
    ({"inside": ["ToCHWImage"]}, "make no sense"),
    ({"labels": ["one"]}, "labels: found 1 names, and the model has 2 classes"),
    ({"labels": "ab"}, "labels: found str"),
    ({"labels": ["yes", False]}, "labels: False is no text; write it in quotes"),
])  # fmt: skip
def test_what_is_no_description_is_refused(changes, sentence, tmp_path):
    with pytest.raises(CheckpointError, match=sentence):
        ModelCard.read(written(tmp_path, **changes))


def test_text_that_is_no_yaml_or_builds_objects_is_refused(tmp_path):
    for text in ("a: [", "!!python/object/apply:os.getcwd []"):
        (tmp_path / "inference.yml").write_text(text)
        with pytest.raises(CheckpointError, match=r"inference\.yml: cannot be read"):
            ModelCard.read(tmp_path)


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "a/b"])
def test_a_file_elsewhere_is_never_opened(name, tmp_path):
    files = {"onnx": {"model": {"name": name, "sha256": "0"}}}
    card = ModelCard.read(written(tmp_path, files=files))
    with pytest.raises(CheckpointError, match="is no name of a file beside it"):
        card.verify(tmp_path, "onnx")


def test_files_are_compared_with_their_digest(tmp_path):
    card = ModelCard.read(written(tmp_path))
    with pytest.raises(CheckpointError, match=r"model\.onnx: is missing"):
        card.verify(tmp_path, "onnx")
    (tmp_path / "model.onnx").write_bytes(b"other")
    with pytest.raises(CheckpointError, match="its SHA-256 differs"):
        card.verify(tmp_path, "onnx")

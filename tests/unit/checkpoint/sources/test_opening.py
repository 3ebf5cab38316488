"""From a path to a source: formats by content, folders, indices, and paths that lead nowhere."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from passl.checkpoint.sources import open_source, write_safetensors
from passl.errors import CheckpointError

FILES = Path(__file__).resolve().parents[3] / "golden" / "torch_files"
ONE, TWO = {"a": np.ones(2, np.float32)}, {"b": np.zeros((2, 2), np.float16)}
NAMES = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_source(path)
    assert str(caught.value).startswith(f"{path}: "), caught.value
    return str(caught.value).removeprefix(f"{path}: ")


def sharded(folder: Path, weight_map: object | None = None) -> Path:
    for name, arrays in zip(NAMES, (ONE, TWO)):
        write_safetensors(folder / name, arrays)
    weight_map = weight_map or {"a": NAMES[0], "b": NAMES[1]}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 16}, "weight_map": weight_map}))
    return index


def assert_union(path: Path) -> None:
    with open_source(path) as source:
        assert source.format == "safetensors"
        assert source.names() == ["a", "b"]
        assert (source.shape("b"), source.dtype("b")) == ((2, 2), "float16")
        np.testing.assert_array_equal(source.read("a"), ONE["a"])
        np.testing.assert_array_equal(source.read("b"), TWO["b"])
        assert len(source.sha256()) == 64


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("odd_zip.pth", "torch"),
        ("odd_legacy.pth", "torch"),
        ("bf16.safetensors", "safetensors"),
        ("odd_expected.npz", "npz"),
    ],
)
def test_the_format_is_told_by_the_content(tmp_path, name, kind):
    shutil.copy(FILES / name, tmp_path / "weights.txt")
    with open_source(tmp_path / "weights.txt") as source:
        assert source.format == kind
        assert source.path == tmp_path / "weights.txt"


def test_an_index_and_its_folder_give_the_union(tmp_path):
    index = sharded(tmp_path)
    assert_union(index)
    assert_union(tmp_path)
    index.unlink()
    assert_union(tmp_path)  # complete by their names


def test_shards_of_pytorch_are_read_by_their_index(tmp_path):
    shutil.copy(FILES / "odd_uint16.pth", tmp_path / "pytorch_model-00001-of-00001.bin")
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "pytorch_model-00001-of-00001.bin"}}))
    with open_source(tmp_path) as source:
        assert (source.format, source.names()) == ("torch", ["w"])


def test_a_tensor_that_the_index_does_not_name_is_listed(tmp_path):
    with open_source(sharded(tmp_path, {"a": NAMES[0]})) as source:
        assert source.names() == ["a"]
    write_safetensors(tmp_path / NAMES[0], {**ONE, "more": np.ones(1)})
    with open_source(tmp_path / "model.safetensors.index.json") as source:
        assert source.ignored == {f"{NAMES[0]}/more": "a tensor that the index does not name"}


@pytest.mark.parametrize(
    ("weight_map", "reason"),
    [
        ({"a": "../secret.safetensors"}, "is no name of a file beside it"),
        ({"a": "/etc/passwd"}, "is no name of a file beside it"),
        ({"a": 3}, "is no name of a file beside it"),
        ([1], "it has no weight_map"),
        ({"a": "absent.safetensors"}, "1 of its 1 files are missing, first absent.safetensors."),
        ({"b": NAMES[0]}, f"it says that 'b' is in {NAMES[0]}, but it is not."),
    ],
)
def test_an_index_that_cannot_be_true_is_refused(tmp_path, weight_map, reason):
    assert reason in refusal(sharded(tmp_path, weight_map))


def test_an_index_that_is_no_json_is_damage(tmp_path):
    (tmp_path / "x.index.json").write_text("{")
    assert "the file is damaged" in refusal(tmp_path / "x.index.json")


def test_shards_that_hold_the_same_tensor_are_refused(tmp_path):
    sharded(tmp_path).unlink()
    write_safetensors(tmp_path / NAMES[1], ONE)
    assert f"'a' is in {NAMES[0]} and in {NAMES[1]}" in refusal(tmp_path)


def test_a_folder_of_one_file_is_that_file(tmp_path):
    write_safetensors(tmp_path / "model.safetensors", ONE)
    (tmp_path / "config.json").write_text("{}")
    with open_source(tmp_path) as source:
        assert source.path == tmp_path / "model.safetensors"


def test_the_usual_name_counts_among_several_files(tmp_path):
    shutil.copy(FILES / "odd_zip.pth", tmp_path / "pytorch_model.bin")
    (tmp_path / "training_args.bin").write_bytes(b"x")
    with open_source(tmp_path) as source:
        assert source.path == tmp_path / "pytorch_model.bin"


def test_a_closed_source_says_so(tmp_path):
    write_safetensors(tmp_path / "x.safetensors", ONE)
    with open_source(tmp_path / "x.safetensors") as source:
        pass
    with pytest.raises(ValueError, match="is closed"):
        source.read("a")


def test_a_folder_without_or_with_several_files_says_so(tmp_path):
    assert refusal(tmp_path).startswith("is a folder without weights (looked for *.index.json")
    for name in ("one.pth", "two.pth"):
        shutil.copy(FILES / "odd_zip.pth", tmp_path / name)
    assert refusal(tmp_path) == (
        "holds several files of weights (one.pth, two.pth). Name the one that is meant."
    )


def test_a_missing_file_gets_near_names(tmp_path):
    shutil.copy(FILES / "odd_zip.pth", tmp_path / "deit_base.pth")
    assert refusal(tmp_path / "deit_bse.pth") == (
        f"there is no such file. Did you mean {tmp_path / 'deit_base.pth'}?"
    )
    assert "does not exist" in refusal(tmp_path / "nowhere" / "x.pth")


def test_what_is_no_file_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    assert refusal(tmp_path / "pipe.pth") == "is neither a file nor a folder."


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "an empty file (was the disk full when it was written?)"),
        (b"\0" * 100, "a file of zeros (a write that was cut off by a crash)"),
        (b"\n<!DOCTYPE html><html>", "a web page, not weights; the download went wrong"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer, not the file itself"),
        (b"hello, these are no weights", "a text file (it begins with 'hello, these are no weigh"),
        (b"\x89HDF\r\n\x1a\n....", "an HDF5 file"),
        (b"\x08\x01\x02\x00" * 9, "of a format that is not known here"),
        (b"x" + b"\0" * 256 + b"ustar\0", "a tar archive (PyTorch before 0.1.10?)"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "file",
)
def test_what_is_no_file_of_weights_is_named(tmp_path, content, kind):
    (tmp_path / "x.pth").write_bytes(content)
    text = refusal(tmp_path / "x.pth")
    assert text.startswith(f"this is {kind}")
    assert text.endswith("safetensors, NumPy (.npz) and Paddle (.pdparams).")


def test_a_wrapper_asked_of_a_format_without_any_is_refused(tmp_path):
    write_safetensors(tmp_path / "x.safetensors", ONE)
    with pytest.raises(CheckpointError, match="has no entry 'model_ema': a safetensors file is"):
        open_source(tmp_path / "x.safetensors", wrapper="model_ema")

"""The mean of several checkpoints' weights."""

from __future__ import annotations

import runpy
import sys

import numpy as np
import pytest

from passl.checkpoint.average import average_checkpoints
from passl.checkpoint.files import read_arrays, write_arrays
from passl.errors import CheckpointError


def write(folder, name: str, **values) -> str:
    path = folder / f"{name}.pdparams"
    write_arrays(path, {key: np.asarray(value) for key, value in values.items()})
    return str(path)


def test_the_mean_is_taken_in_float64(tmp_path):
    rng = np.random.default_rng(0)
    values = [(rng.normal(size=(5, 7)) * 1e3).astype(np.float32) for _ in range(9)]
    paths = [write(tmp_path, f"w{n}", w=value, n=np.int64(4)) for n, value in enumerate(values)]
    files = average_checkpoints(paths, tmp_path / "mean.pdparams")
    assert [str(file) for file in files] == paths
    got = read_arrays(tmp_path / "mean.pdparams")
    wanted = np.mean(np.stack(values).astype(np.float64), axis=0).astype(np.float32)
    np.testing.assert_array_equal(got["w"], wanted)
    assert (got["w"].dtype, got["n"].dtype, int(got["n"])) == (np.float32, np.int64, 4)


def test_half_precision_files_are_widened(tmp_path):
    half = write(tmp_path, "half", w=np.float16([1.5]))
    brain = write(tmp_path, "brain", w=np.uint16([0x3F80]))  # bfloat16 1.0
    average_checkpoints([half, brain], tmp_path / "mean.pdparams")
    np.testing.assert_array_equal(read_arrays(tmp_path / "mean.pdparams")["w"], [1.25])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"w": np.zeros(3, np.float32)}, r"different models: 1 tensors differ.*\(w\)"),
        ({"v": np.zeros(2, np.float32)}, r"different models: 2 tensors differ.*\(v, w\)"),
        ({"w": np.ones(2, np.int64)}, r"tensors differ in name, shape or kind of number \(w\)"),
        ({"w": np.float32([1.0, np.nan])}, "w has values that are not finite"),
    ],
)
def test_what_cannot_be_averaged_is_refused_and_nothing_is_written(tmp_path, other, message):
    paths = [write(tmp_path, "a", w=np.ones(2, np.float32)), write(tmp_path, "b", **other)]
    with pytest.raises(CheckpointError, match=message):
        average_checkpoints(paths, tmp_path / "mean.pdparams")
    assert not (tmp_path / "mean.pdparams").exists()


def test_whole_numbers_that_differ_and_wrong_names_are_refused(tmp_path):
    paths = [write(tmp_path, name, n=np.int64(n)) for n, name in enumerate("ab")]
    with pytest.raises(CheckpointError, match="whole numbers of n differ"):
        average_checkpoints(paths, tmp_path / "mean.pdparams")
    with pytest.raises(CheckpointError, match=r"must end in \.pdparams"):
        average_checkpoints(paths, tmp_path / "mean.bin")
    with pytest.raises(CheckpointError, match="nothing to average"):
        average_checkpoints([], tmp_path / "mean.pdparams")


def test_the_command_says_what_it_did_or_why_not(tmp_path, repo, monkeypatch, capsys):
    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["average_checkpoints.py", *arguments])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(repo / "tools" / "average_checkpoints.py"), run_name="__main__")
        return int(end.value.code)

    one = write(tmp_path, "one", w=np.ones(2, np.float32))
    output = str(tmp_path / "mean.pdparams")
    assert run(one, one, "-o", output) == 0
    said = capsys.readouterr()
    assert "is the mean of 2 checkpoints" in said.out
    assert f"note: {one} counts 2 times" in said.err
    assert run(one, str(tmp_path / "none"), "-o", output) == 1
    assert "there is no such checkpoint" in capsys.readouterr().err


def test_the_weights_of_a_checkpoint_are_never_overwritten(tmp_path):
    folder = tmp_path / "step_00000004"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    own = folder / "model.pdparams"
    own.write_bytes(b"own")
    one = write(tmp_path, "one", w=np.ones(2, np.float32))
    with pytest.raises(CheckpointError, match="is inside a checkpoint, whose own weights must"):
        average_checkpoints([one], own)
    assert own.read_bytes() == b"own"


def test_a_file_that_is_averaged_is_not_overwritten(tmp_path):
    paths = [write(tmp_path, name, w=np.float32([n])) for n, name in enumerate("ab")]
    with pytest.raises(CheckpointError, match="one of the files to average"):
        average_checkpoints(paths, paths[1])
    assert read_arrays(paths[1])["w"].tolist() == [1.0]

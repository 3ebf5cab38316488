"""However a user writes a path to weights: the same files are found, or the error says why not."""

from __future__ import annotations

import os

import numpy as np
import pytest

from passl.checkpoint.files import write_arrays
from passl.checkpoint.resolve import resolve_checkpoint
from passl.checkpoint.store import CheckpointStore
from passl.errors import CheckpointError


@pytest.fixture
def run(tmp_path, monkeypatch):
    """output/X with one checkpoint, seen from the folder above."""
    monkeypatch.chdir(tmp_path)
    arrays = {"w": np.ones(2, np.float32)}
    parts = {"model.pdparams": arrays, "optimizer.pdopt": arrays, "state.json": {}}
    store = CheckpointStore("output/X")
    store.save(7, parts, links=("latest", "best"))
    return tmp_path / "output/X"


def problem(path) -> str:
    with pytest.raises(CheckpointError) as caught:
        resolve_checkpoint(path)
    return str(caught.value)


@pytest.mark.parametrize(
    "typed",
    [
        "output/X/checkpoints/step_00000007",
        "output/X/checkpoints/step_00000007/",
        "output/X/best",
        "output/X/latest/",
        "./output/../output/X/best",
        "output/X/best/model.pdparams",
        "output/X/best/model",
        "output/X/checkpoints/step_00000007/model",
    ],
)
@pytest.mark.parametrize("absolute", [False, True])
def test_every_spelling_leads_to_the_checkpoint(run, typed, absolute):
    found = resolve_checkpoint(os.path.abspath(typed) if absolute else typed)
    folder = run / "checkpoints/step_00000007"
    assert found.folder == folder
    assert found.weights.samefile(folder / "model.pdparams")
    assert found.optimizer is not None
    assert found.optimizer.samefile(folder / "optimizer.pdopt")
    assert found.state is not None
    assert found.state.samefile(folder / "state.json")
    found.verify()


def test_the_home_folder_is_understood(run, monkeypatch):
    monkeypatch.setenv("HOME", str(run.parent.parent))
    assert resolve_checkpoint("~/output/X/best").folder == run / "checkpoints/step_00000007"


def test_verify_names_the_file_that_differs(run):
    (run / "best/optimizer.pdopt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"optimizer.pdopt: is 0 bytes long, but"):
        resolve_checkpoint(run / "best").verify()


@pytest.mark.parametrize("typed", ["epoch_10", "epoch_10.pdparams", "best"])
def test_the_prefix_of_the_former_passl_finds_both_files(tmp_path, monkeypatch, typed):
    monkeypatch.chdir(tmp_path)
    for name in ("epoch_10", "best"):
        write_arrays(f"{name}.pdparams", {})
        write_arrays(f"{name}.pdopt", {})
    found = resolve_checkpoint(typed)
    prefix = typed.removesuffix(".pdparams")
    assert (str(found.weights), str(found.optimizer)) == (f"{prefix}.pdparams", f"{prefix}.pdopt")
    assert found.folder is None
    assert found.state is None
    found.verify()


def test_a_prefix_may_have_dots(tmp_path):
    write_arrays(tmp_path / "vit_0.9.pdparams", {})
    assert resolve_checkpoint(tmp_path / "vit_0.9").weights == tmp_path / "vit_0.9.pdparams"


def test_weights_alone_have_no_optimizer(tmp_path):
    write_arrays(tmp_path / "x.pdparams", {})
    assert resolve_checkpoint(tmp_path / "x").optimizer is None


def test_another_format_is_left_to_the_reader(tmp_path):
    (tmp_path / "vit.npz").touch()
    assert resolve_checkpoint(tmp_path / "vit.npz").weights == tmp_path / "vit.npz"


# -- sentences -------------------------------------------------------------------------------------


def test_a_misspelled_name_is_told_its_neighbours(run):
    assert problem("output/X/bset") == (
        "output/X/bset: there is no such checkpoint (looked for a folder, a link or a file of that "
        "name and for bset.pdparams). Did you mean output/X/best?"
    )


def test_a_missing_folder_is_named(run):
    assert problem("output/Y/best") == (
        "output/Y/best: there is no such checkpoint; output/Y does not exist."
    )
    assert problem("a/b/c/d") == "a/b/c/d: there is no such checkpoint; a does not exist."


def test_a_run_folder_is_answered_with_what_is_in_it(run):
    assert problem("output/X") == (
        "output/X: is a folder without a checkpoint (looked for model.pdparams, manifest.json). "
        "Did you mean one of: output/X/best, output/X/latest, output/X/checkpoints/step_00000007?"
    )


def test_an_empty_folder_is_said_to_be_one(tmp_path):
    assert problem(tmp_path) == (
        f"{tmp_path}: is a folder without a checkpoint (looked for model.pdparams, manifest.json)."
    )


def test_a_link_to_a_deleted_checkpoint_says_so(run):
    os.rename(run / "checkpoints", run / "elsewhere")
    assert problem("output/X/best") == (
        "output/X/best: leads to output/X/checkpoints/step_00000007, which does not exist. "
        "Was it deleted or moved?"
    )


def test_a_circle_of_links_ends(tmp_path):
    os.symlink("b", tmp_path / "a")
    os.symlink("a", tmp_path / "b")
    assert "does not exist" in problem(tmp_path / "a")


def test_a_checkpoint_without_weights_says_so(run):
    (run / "best/model.pdparams").unlink()
    assert problem("output/X/best") == (
        "output/X/best: is a checkpoint without weights: model.pdparams is missing."
    )


@pytest.mark.parametrize("name", ["optimizer.pdopt", "state.json"])
def test_a_file_without_weights_is_refused(run, name):
    assert problem(f"output/X/best/{name}") == (
        f"output/X/best/{name}: holds no weights. Give the .pdparams file beside it or the "
        "checkpoint folder."
    )

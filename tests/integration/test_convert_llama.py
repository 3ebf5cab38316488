"""``passl-convert`` on LLaMA checkpoints: a block cut out, and the start of an iLLaMA selected."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from passl.checkpoint.files import read_arrays
from passl.checkpoint.llama import extract_llama_block, open_llama
from passl.cli.convert import main

LLAMA = Path(__file__).parents[1] / "golden" / "llama_7b_layout"
SMALL = ["embed_dim=24", "depth=2", "num_heads=2", "multiple_of=20"]


def run(capsys, *argv) -> tuple[int, str, str]:
    status = main([str(arg) for arg in argv])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_a_block_is_extracted_as_the_library_does(tmp_path, capsys):
    dst = tmp_path / "block.pdparams"
    status, text, _ = run(capsys, "--extract-llama-layer", 1, LLAMA, dst)
    assert status == 0
    assert "block 1 of 3; width 64, 4 heads, perceptrons of 192" in text
    extract_llama_block(LLAMA, tmp_path / "same.pdparams", layer=1)
    assert dst.read_bytes() == (tmp_path / "same.pdparams").read_bytes()


def test_several_blocks_in_another_type(tmp_path, capsys):
    dst = tmp_path / "blocks.pdparams"
    options = ("--llama-layers", 2, "--dtype", "bfloat16")
    status, text, _ = run(capsys, LLAMA, "--extract-llama-layer", 2, dst, *options)
    assert status == 0
    assert "block 1, 2 of 3" in text
    stored = read_arrays(dst)
    matrices = [array for name, array in stored.items() if array.ndim == 2]
    assert len(matrices) == 14
    assert {array.dtype for array in matrices} == {np.dtype(np.uint16)}
    exact = dict(open_llama(str(LLAMA), 2, 2).tensors())
    for name, array in open_llama(str(dst)).tensors():
        np.testing.assert_allclose(array, exact[name.replace("s.0", "s.1")], rtol=2**-8)


def test_the_start_of_an_illama_is_selected(tmp_path, capsys):
    dst = tmp_path / "start.pdparams"
    status, text, _ = run(
        capsys, "--weight-selection", LLAMA, "--model", "iLLaMA", dst, "--dtype", "float32",
        "-o", *SMALL,
    )
    assert status == 0
    assert "selected 14 of 25 tensors of iLLaMA" in text
    assert r"Global.allow_missing: ['\.bias$', '^cls_token$'," in text
    assert {array.dtype for array in read_arrays(dst).values()} == {np.dtype(np.float32)}
    assert sorted(os.listdir(tmp_path)) == ["start.pdparams", "start.pdparams.provenance.json"]


@pytest.mark.parametrize(("argv", "status", "message"), [
    (["--extract-llama-layer", "3", LLAMA, "x.pdparams"], 1, "number 3 are asked for"),
    (["--extract-llama-layer", "1", "nowhere", "x.pdparams"], 1, "there is no LLaMA checkpoint"),
    (["--extract-llama-layer", "1", LLAMA], 2, "where to?"),
    (["--extract-llama-layer", "1", LLAMA, "x.pth"], 2, "call it"),
    (["--extract-llama-layer", "1", LLAMA, "x.pdparams", "--model", "iLLaMA"], 2, "leave it out"),
    (["--extract-llama-layer", "1", LLAMA, "x.pdparams", "--verify", "--from", "timm"], 2,
     "--from, --verify: not with --extract-llama-layer"),
    (["--weight-selection", LLAMA, "x.pdparams"], 2, "for which model?"),
    (["--weight-selection", LLAMA, "x.pdparams", "--model", "iLLaMA_tiny_patch16_224"], 1,
     "has 12 blocks"),
    (["--weight-selection", LLAMA, "x.pdparams", "--llama-layers", "2"], 2,
     "--llama-layers belongs to"),
    ([LLAMA, "x.pdparams", "--rope-layout", "meta"], 2, "--rope-layout belongs to"),
])
def test_a_mistake_is_a_sentence_and_writes_nothing(
    argv, status, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    found, _, err = run(capsys, *argv)
    assert (found, os.listdir(tmp_path)) == (status, [])
    assert err.startswith("passl-convert: ")
    assert message in err


def test_a_file_that_is_there_is_kept_unless_told_otherwise(tmp_path, capsys):
    dst = tmp_path / "block.pdparams"
    dst.write_bytes(b"mine")
    assert run(capsys, "--extract-llama-layer", 1, LLAMA, dst)[0] == 1
    assert dst.read_bytes() == b"mine"
    assert run(capsys, "--extract-llama-layer", 1, LLAMA, dst, "--overwrite")[0] == 0
    assert read_arrays(dst)

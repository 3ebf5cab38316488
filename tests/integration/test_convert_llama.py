"""``passl-convert`` on LLaMA's files: blocks, the start of an iLLaMA, and released checkpoints."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from passl.checkpoint.files import read_arrays
from passl.checkpoint.llama import LlamaWeights, extract_llama_block, open_llama
from passl.checkpoint.pretrained import load_pretrained
from passl.checkpoint.sources import write_safetensors
from passl.cli.convert import main
from passl.layers.init import no_init
from passl.models import create_model

GOLDEN = Path(__file__).parents[1] / "golden"
LLAMA = GOLDEN / "llama_7b_layout"
SMALL = ["embed_dim=24", "depth=2", "num_heads=2", "multiple_of=20"]
_TINY = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4}
#: Family -> model, its arguments that no file tells, and the logits in the golden file.
RELEASED: dict[str, tuple[str, dict[str, Any], str]] = {
    "illama": ("iLLaMA", _TINY, "logits/0.0"),
    "vit_llama": (
        "ViT_LLaMA",
        {**_TINY, "llama_dim": 64, "llama_num_heads": 4, "llama_hidden_dim": 192},
        "logits",
    ),
}
SIZE = {"img_size": 32, "class_num": 10}


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


@pytest.mark.parametrize("selects", [False, True])
def test_numbers_too_small_for_the_type_are_counted(selects, tmp_path, capsys, monkeypatch):
    read = LlamaWeights.tensors

    def smaller(self: LlamaWeights, **settings: bool) -> Iterator[tuple[str, np.ndarray]]:
        for name, array in read(self, **settings):
            if name.endswith("0.ffn_norm.weight"):
                array = array.astype(np.float32)  # as others store it
                array[[0, -1]] = 2e-8, 1e-8
            yield name, array

    monkeypatch.setattr(LlamaWeights, "tensors", smaller)
    dst = tmp_path / "dst.pdparams"
    mode = ("--weight-selection",) if selects else ("--extract-llama-layer", 0)
    model = ("--model", "iLLaMA", "-o", *SMALL) if selects else ()
    status, text, err = run(capsys, *mode, LLAMA, dst, "--dtype", "float16", *model)
    assert status == 0, err
    assert "note: 2 numbers too small for float16 became 0, the largest 2e-08 in" in text


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
    (["--extract-llama-layer", "3", LLAMA, "x.pdparams"], 1, "asked for: block 3 (llama_layer,"),
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


# -- released checkpoints --------------------------------------------------------------------------


def logits_of(model, x) -> np.ndarray:
    model.eval()
    with paddle.no_grad():
        return model(paddle.to_tensor(x)).numpy()


@pytest.mark.parametrize("name", list(RELEASED))
def test_a_released_checkpoint_computes_its_authors_logits(name, tmp_path, capsys):
    registered, arguments, key = RELEASED[name]
    options = [f"{argument}={value}" for argument, value in arguments.items()]
    dst = tmp_path / "converted.pdparams"
    status, text, _ = run(
        capsys, GOLDEN / f"{name}_released.pth", "--model", registered, dst, "-o", *options
    )
    assert status == 0
    assert f"(torch, from its entry 'model')\nrecognised as {name} " in text
    for entry in ("args", "optimizer"):
        assert f"left out: {entry}" in text
    with np.load(GOLDEN / f"{name}.npz") as file:
        x, expected = file["x"], file[key]
    model = create_model(registered, **{**SIZE, **arguments})
    for path in (dst, GOLDEN / f"{name}_released.pth"):  # the second is converted on the fly
        load_pretrained(model, path)
        np.testing.assert_allclose(logits_of(model, x), expected, rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("name", list(RELEASED))
def test_the_average_of_a_released_checkpoint_is_another_entry(name, tmp_path, capsys):
    registered, arguments, _ = RELEASED[name]
    options = [f"{argument}={value}" for argument, value in arguments.items()]
    found = {}
    for wrapper in ("model", "model_ema"):
        dst = tmp_path / f"{wrapper}.pdparams"
        source = GOLDEN / f"{name}_released.pth"
        command = (source, dst, "--wrapper", wrapper, "--model", registered, "-o", *options)
        assert run(capsys, *command)[0] == 0
        found[wrapper] = read_arrays(dst)
    changed = [
        entry for entry, value in found["model"].items()
        if not np.array_equal(value, found["model_ema"][entry])
    ]
    assert changed == ["norm.weight"]


def test_an_illama_does_not_become_a_vision_transformer(tmp_path, capsys):
    source = GOLDEN / "illama_released.pth"
    command = (source, "--dry-run", "--model", "VisionTransformer", "-o", "patch_size=8")
    status, _, err = run(capsys, *command, "embed_dim=48", "depth=2", "num_heads=4")
    assert status == 1
    assert "the weights are not those of VisionTransformer" in err


@pytest.mark.parametrize("model", ["illama", "vit_llama"])
def test_the_advice_for_a_file_of_other_sizes_names_a_model_of_its_kind(model, tmp_path, capsys):
    source = GOLDEN / f"{model}_released.pth"
    status, _, err = run(capsys, source, tmp_path / "x.pdparams")
    assert status == 1
    (advice,) = re.findall(r"(--model \w*LLaMA -o [^.]*)\.", err)
    assert run(capsys, source, "--dry-run", *advice.split())[0] == 0


@pytest.mark.parametrize("size", [224, 384])
def test_a_file_of_true_size_finds_its_model(size, tmp_path, capsys):
    """As iLLaMA-T is released: torch's layout, names of the authors, all zero here."""
    with paddle.LazyGuard(), no_init():
        model = create_model("illama_tiny", img_size=size)
    arrays = {
        name: np.zeros(list(value.shape)[:: -1 if len(value.shape) == 2 else 1], np.float16)
        for name, value in model.state_dict().items()
    }
    assert len(arrays) == 115  # entries of the released state dict
    source = tmp_path / "illama.safetensors"
    write_safetensors(source, arrays, {"format": "pt"})
    status, text, _ = run(capsys, source, "--dry-run")
    assert status == 0
    assert f"fills iLLaMA_tiny_patch16_{size}: 115 tensors" in text

"""Weight selection: the same places as the authors' code, each part of LLaMA where it belongs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from passl.checkpoint.convert.record import provenance_path
from passl.checkpoint.files import bfloat16_to_float32, read_arrays
from passl.checkpoint.llama import extract_llama_block
from passl.checkpoint.pretrained import load_pretrained
from passl.checkpoint.sources import open_source, write_safetensors
from passl.checkpoint.weight_selection import NOT_SELECTED, select_weights, uniform_indices
from passl.errors import CheckpointError, ConfigError
from passl.models import create_model

GOLDEN = Path(__file__).parents[2] / "golden"
META = GOLDEN / "llama_7b_layout"  # width 64, four heads of 16, perceptrons of 192, three blocks
#: Divides no size of the teacher but the rows of query, key and value.
UNEVEN: dict[str, Any] = {
    "img_size": 8, "patch_size": 4, "class_num": 3, "embed_dim": 24, "depth": 2, "num_heads": 2,
    "multiple_of": 20,
}
EVEN = {**UNEVEN, "embed_dim": 16, "multiple_of": 16, "depth": 3}
HF_NAMES = {
    "attention.wq": "self_attn.q_proj", "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj", "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj", "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj", "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


@pytest.fixture(scope="module")
def teacher() -> dict[str, np.ndarray]:
    """Every tensor of the reference folder by Meta's name, [out, in], fp16."""
    with open_source(META / "consolidated.00.pth") as source:
        return {name: source.read(name) for name in source.names()}


def hf_folder(folder: Path, teacher: dict[str, np.ndarray], **config: Any) -> Path:
    """The same checkpoint as Hugging Face's script writes it, rows of query and key permuted."""
    arrays = {}
    for name, array in teacher.items():
        if not name.startswith("layers.") or "rope" in name:
            continue
        layers, number, rest = name.split(".", 2)
        inner = rest.removesuffix(".weight")
        if inner in ("attention.wq", "attention.wk"):
            array = array.reshape(4, 8, 2, 64).transpose(0, 2, 1, 3).reshape(64, 64)
        arrays[f"model.{layers}.{number}.{HF_NAMES[inner]}.weight"] = np.ascontiguousarray(array)
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", arrays)
    settings = {
        "model_type": "llama", "hidden_size": 64, "num_attention_heads": 4,
        "num_hidden_layers": 3, "intermediate_size": 192, **config,
    }
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def selected(path: Path, dst: Path, arguments: dict[str, Any], **options) -> dict[str, np.ndarray]:
    select_weights(path, dst, model="iLLaMA", arguments=arguments, **options)
    return read_arrays(dst)


# -- which places ----------------------------------------------------------------------------------


def test_what_the_authors_function_selects():
    with np.load(GOLDEN / "weight_selection.npz") as file:
        for case in range(4):
            whole, expected = file[f"teacher/{case}"], file[f"student/{case}"]
            places = [uniform_indices(*sizes) for sizes in zip(whole.shape, expected.shape)]
            assert np.array_equal(whole[np.ix_(*places)], expected), case


def test_the_places_of_real_sizes_are_torchs():
    with np.load(GOLDEN / "weight_selection_indices.npz") as file:
        assert len(file.files) == 16
        for sizes in file.files:
            length, count = map(int, sizes.split("/"))
            assert np.array_equal(uniform_indices(length, count), file[sizes]), sizes


def test_the_largest_model_takes_every_fourth_row():
    assert np.array_equal(uniform_indices(4096, 1024), np.arange(0, 4096, 4))
    assert np.array_equal(uniform_indices(12288, 3072), np.arange(0, 12288, 4))


@pytest.mark.parametrize("width", [192, 384, 768, 1024])
def test_each_of_query_key_and_value_gives_a_third(width):
    counts = np.bincount(uniform_indices(3 * 4096, 3 * width) // 4096)
    assert list(counts) == [width] * 3


# -- which tensors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [UNEVEN, EVEN], ids=["linspace", "divisible"])
def test_each_tensor_is_the_thinned_one_of_its_block(teacher, tmp_path, arguments):
    found = selected(META, tmp_path / "start.pdparams", arguments)
    dim = arguments["embed_dim"]
    hidden = found["blocks.0.mlp.fc1.weight"].shape[1]
    assert len(found) == 7 * arguments["depth"]
    for block in range(arguments["depth"]):
        part = {
            name.split(".", 2)[2]: array
            for name, array in teacher.items()
            if name.startswith(f"layers.{block}.")
        }
        joint = np.concatenate([part[f"attention.w{letter}.weight"] for letter in "qkv"])
        for name, whole, shape in (
            ("attn.qkv", joint, (3 * dim, dim)),
            ("attn.proj", part["attention.wo.weight"], (dim, dim)),
            ("mlp.fc1", part["feed_forward.w1.weight"], (hidden, dim)),
            ("mlp.fc2", part["feed_forward.w2.weight"], (dim, hidden)),
            ("mlp.fc3", part["feed_forward.w3.weight"], (hidden, dim)),
            ("norm1", part["attention_norm.weight"], (dim,)),
            ("norm2", part["ffn_norm.weight"], (dim,)),
        ):
            places = [uniform_indices(*sizes) for sizes in zip(whole.shape, shape)]
            value = found[f"blocks.{block}.{name}.weight"]
            assert value.dtype == np.float16  # as stored
            assert np.array_equal(value, whole[np.ix_(*places)].T), name


def test_a_model_begins_with_it_and_the_rest_anew(tmp_path):
    found = selected(META, tmp_path / "start.pdparams", UNEVEN)
    model = create_model("iLLaMA", **UNEVEN)
    report = load_pretrained(model, tmp_path / "start.pdparams", allow_missing=NOT_SELECTED)
    assert sorted(report.loaded) == sorted(found)
    for name in report.missing:
        assert name.endswith(".bias") or not name.startswith("blocks.")
    state = model.state_dict()
    assert all(np.array_equal(state[name].numpy(), found[name]) for name in found)
    with pytest.raises(CheckpointError, match=r"missing in the file"):
        load_pretrained(model, tmp_path / "start.pdparams")
    origin = json.loads(provenance_path(tmp_path / "start.pdparams").read_text())
    assert (origin["rope_layout"], origin["missing"]) == ("as-is", report.missing)


def test_dtypes(tmp_path):
    stored = selected(META, tmp_path / "a.pdparams", UNEVEN)
    wide = selected(META, tmp_path / "b.pdparams", UNEVEN, dtype="float32")
    half = selected(META, tmp_path / "c.pdparams", UNEVEN, dtype="bfloat16")
    for name, value in stored.items():
        assert wide[name].dtype == np.float32
        assert np.array_equal(wide[name], value)
        np.testing.assert_allclose(bfloat16_to_float32(half[name]), wide[name], rtol=2**-8)


def test_the_rows_of_a_hugging_face_file_can_be_put_into_metas_order(teacher, tmp_path):
    folder = hf_folder(tmp_path / "hf", teacher)
    meta = selected(META, tmp_path / "meta.pdparams", UNEVEN)
    as_is = selected(folder, tmp_path / "hf.pdparams", UNEVEN)
    put_right = selected(folder, tmp_path / "right.pdparams", UNEVEN, rope_layout="meta")
    assert all(np.array_equal(put_right[name], meta[name]) for name in meta)
    changed = [name for name in meta if not np.array_equal(as_is[name], meta[name])]
    assert changed == ["blocks.0.attn.qkv.weight", "blocks.1.attn.qkv.weight"]
    same = selected(META, tmp_path / "same.pdparams", UNEVEN, rope_layout="meta")
    assert all(np.array_equal(same[name], meta[name]) for name in meta)


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(("arguments", "message"), [
    ({"depth": 4}, "has 4 blocks, .* it holds blocks 0 to 2 of 3"),
    ({"embed_dim": 96}, "is 96 wide with perceptrons of 260, .* only 64 and 192"),
])
def test_a_checkpoint_smaller_than_the_model_is_refused(tmp_path, arguments, message):
    with pytest.raises(CheckpointError, match=message):
        selected(META, tmp_path / "start.pdparams", {**UNEVEN, **arguments})
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_whose_heads_share_keys_is_refused(teacher, tmp_path):
    folder = hf_folder(tmp_path / "hf", teacher, num_key_value_heads=2)
    with pytest.raises(CheckpointError, match="its 4 heads share 2 keys and values"):
        selected(folder, tmp_path / "start.pdparams", UNEVEN)


def test_a_vision_transformer_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="selected for an iLLaMA"):
        select_weights(META, tmp_path / "x.pdparams", model="ViT_tiny_patch16_224")


def test_an_extracted_block_does_not_tell_the_order_of_its_rows(tmp_path):
    block = tmp_path / "blocks.pdparams"
    extract_llama_block(META, block, count=3)
    found = selected(block, tmp_path / "start.pdparams", UNEVEN)
    meta = selected(META, tmp_path / "meta.pdparams", UNEVEN)
    assert all(np.array_equal(found[name], meta[name]) for name in meta)
    with pytest.raises(CheckpointError, match="does not say in which order"):
        selected(block, tmp_path / "other.pdparams", UNEVEN, rope_layout="meta")


def test_another_run_replaces_nothing_if_it_fails(tmp_path):
    folder = tmp_path / "7B"
    shutil.copytree(META, folder)
    before = selected(folder, tmp_path / "start.pdparams", UNEVEN)
    data = bytearray((folder / "consolidated.00.pth").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (folder / "consolidated.00.pth").write_bytes(bytes(data))
    with pytest.raises(CheckpointError):
        selected(folder, tmp_path / "start.pdparams", {**UNEVEN, "depth": 3})
    after = read_arrays(tmp_path / "start.pdparams")
    assert all(np.array_equal(after[name], before[name]) for name in before)

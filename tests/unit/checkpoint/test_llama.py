"""Blocks of LLaMA checkpoints: three layouts with the same numbers, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from passl.checkpoint.files import read_arrays, write_arrays
from passl.checkpoint.llama import extract_llama_block, open_llama
from passl.checkpoint.sources import open_source, write_safetensors
from passl.errors import CheckpointError
from passl.layers.llama_block import LlamaSizes

META = Path(__file__).parents[2] / "golden" / "llama_7b_layout"
NAMES = {
    "attention.wq": "self_attn.q_proj", "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj", "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj", "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj", "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
CONFIG = {
    "model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 3,
    "intermediate_size": 192, "rms_norm_eps": 1e-6, "hidden_act": "silu",
}


@pytest.fixture(scope="module")
def meta() -> dict[str, np.ndarray]:
    """Every tensor of the reference folder by Meta's name, [out, in]."""
    with open_source(META / "consolidated.00.pth") as source:
        return {name: source.read(name) for name in source.names()}


@pytest.fixture
def meta_folder(tmp_path) -> Path:
    """A copy that may be changed."""
    folder = tmp_path / "7B"
    shutil.copytree(META, folder)
    return folder


def hf_names(meta: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    renamed = {"model.norm.weight": meta["norm.weight"], "lm_head.weight": np.ones((3, 64))}
    for name, array in meta.items():
        if name.startswith("layers.") and "rope" not in name:
            layers, number, rest = name.split(".", 2)
            inner = NAMES[rest.removesuffix(".weight")]
            renamed[f"model.{layers}.{number}.{inner}.weight"] = array
    return {name: np.ascontiguousarray(array, np.float16) for name, array in renamed.items()}


@pytest.fixture
def hf_folder(tmp_path, meta) -> Path:
    folder = tmp_path / "hf"
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", hf_names(meta))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def tensors(path: Path, *args) -> dict[str, np.ndarray]:
    read = open_llama(str(path), *args).tensors()
    return {name: array.astype(np.float32) for name, array in read}


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for name in found:
        assert np.array_equal(found[name], expected[name]), name


# -- layouts ---------------------------------------------------------------------------------------


def test_metas_folder(meta):
    weights = open_llama(str(META))
    assert weights.sizes == LlamaSizes(64, 4, 4, 192, 1e-6)
    assert (weights.num_layers, weights.layers) == (3, range(2, 3))
    found = dict(weights.tensors())
    assert set(found) == {*(f"layers.0.{name}.weight" for name in NAMES), "norm.weight"}
    assert np.array_equal(
        found["layers.0.feed_forward.w1.weight"], meta["layers.2.feed_forward.w1.weight"].T
    )
    assert "norm.weight" not in dict(weights.tensors(final_norm=False))


def test_hugging_faces_folder_holds_the_same(hf_folder):
    assert open_llama(str(hf_folder)).sizes == open_llama(str(META)).sizes
    assert_equal(tensors(hf_folder), tensors(META))
    assert_equal(tensors(hf_folder, 1, 2), tensors(META, 1, 2))


def test_hugging_faces_folder_of_shards_with_an_index(hf_folder, meta):
    whole = hf_names(meta)
    (hf_folder / "model.safetensors").unlink()
    index = {}
    for number in (1, 2):
        file = f"model-0000{number}-of-00002.safetensors"
        part = {name: array for name, array in whole.items() if (".2." in name) == (number == 2)}
        write_safetensors(hf_folder / file, part)
        index.update(dict.fromkeys(part, file))
    (hf_folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert_equal(tensors(hf_folder), tensors(META))


def test_an_extracted_block_holds_the_same_and_no_more(tmp_path, meta):
    file = tmp_path / "made" / "block.pdparams"
    extract_llama_block(META, file, layer=1)
    assert open_llama(str(file)).layers == range(1, 2)
    assert open_llama(str(file)).sizes == open_llama(str(META)).sizes
    assert_equal(tensors(file), tensors(META, 1))
    assert_equal(tensors(file, 1), tensors(META, 1))
    numbers = sum(array.size for array in tensors(file).values())
    assert file.stat().st_size < 2 * numbers + 4000  # fp16, as it was
    with pytest.raises(CheckpointError, match="held: block 1 of the checkpoint's 3"):
        open_llama(str(file), 2)


def test_several_blocks_are_extracted_together(tmp_path):
    file = tmp_path / "blocks.pdparams"
    extract_llama_block(META, file, count=2)
    assert_equal(tensors(file, None, 2), tensors(META, None, 2))
    assert_equal(tensors(file, 2), tensors(META, 2))
    assert_equal(tensors(file, 1), tensors(META, 1))


def test_bfloat16_stays_bfloat16_when_extracted(tmp_path, hf_folder, meta):
    write_safetensors(hf_folder / "model.safetensors", hf_names(meta), dtype="bfloat16")
    file = tmp_path / "block.pdparams"
    extract_llama_block(hf_folder, file)
    assert read_arrays(file)["layers.0.attention.wq.weight"].dtype == np.uint16
    assert_equal(tensors(file), tensors(hf_folder))


def split_over_files(folder: Path, meta: dict[str, np.ndarray], count: int) -> None:
    """As Meta's larger models are: some matrices by rows, some by columns, the rest whole."""
    for number in range(count):
        part = {}
        for name, array in meta.items():
            if array.ndim == 2 and name.startswith("layers."):
                axis = 1 if name.endswith(("wo.weight", "w2.weight")) else 0
                part[name] = np.ascontiguousarray(np.split(array, count, axis)[number])
            else:
                part[name] = array
        write_safetensors(folder / f"consolidated.{number:02d}.pth", part)


def test_a_checkpoint_in_several_parts_is_put_together(meta_folder, meta):
    split_over_files(meta_folder, meta, 2)
    assert open_llama(str(meta_folder)).sizes == open_llama(str(META)).sizes
    assert_equal(tensors(meta_folder), tensors(META))


def test_keys_and_values_shared_by_heads(meta_folder, meta):
    halved = ("wk.weight", "wv.weight")
    shared = {
        name: np.ascontiguousarray(array[:32] if name.endswith(halved) else array)
        for name, array in meta.items()
    }
    write_safetensors(meta_folder / "consolidated.00.pth", shared)
    params = json.loads((meta_folder / "params.json").read_text())
    (meta_folder / "params.json").write_text(json.dumps({**params, "n_kv_heads": 2}))
    assert open_llama(str(meta_folder)).sizes.num_kv_heads == 2
    assert tensors(meta_folder)["layers.0.attention.wk.weight"].shape == (64, 32)


# -- checksums -------------------------------------------------------------------------------------


def write_checklist(folder: Path) -> None:
    lines = [
        f"{hashlib.md5((folder / name).read_bytes(), usedforsecurity=False).hexdigest()}  {name}"
        for name in ("consolidated.00.pth", "params.json")
    ]
    (folder / "checklist.chk").write_text("\n".join([*lines, "0123  tokenizer.model"]) + "\n")


def test_a_right_checklist_is_passed(meta_folder):
    write_checklist(meta_folder)
    assert open_llama(str(meta_folder)).num_layers == 3


def test_a_changed_file_is_found_by_the_checklist(meta_folder):
    write_checklist(meta_folder)
    weights = meta_folder / "consolidated.00.pth"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"consolidated.00.pth: its MD5 sum is .* and "
                                              r"checklist.chk says .* fetch the file again"):
        open_llama(str(meta_folder))


# -- refused ---------------------------------------------------------------------------------------


def test_a_folder_without_a_checkpoint_says_what_was_looked_for(tmp_path):
    (tmp_path / "block.pdparams").touch()
    with pytest.raises(CheckpointError) as error:
        open_llama(str(tmp_path))
    for part in ("params.json", "config.json", "a block extracted", "block.pdparams?"):
        assert part in str(error.value)


def test_a_missing_params_file_is_named(meta_folder):
    (meta_folder / "params.json").unlink()
    with pytest.raises(CheckpointError, match=r"params.json: there is no such file"):
        open_llama(str(meta_folder))


def test_a_missing_part_is_noticed(meta_folder, meta):
    split_over_files(meta_folder, meta, 2)
    (meta_folder / "consolidated.00.pth").unlink()
    with pytest.raises(CheckpointError, match=r"of its parts consolidated.01.pth one is missing"):
        open_llama(str(meta_folder))


@pytest.mark.parametrize(("layer", "count"), [(3, 1), (0, 2), (2, 4)])
def test_blocks_that_are_not_there(layer: int, count: int):
    with pytest.raises(CheckpointError, match="held: blocks 0 to 2 of the checkpoint's 3"):
        open_llama(str(META), layer, count)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "its model_type is 'gpt2', not 'llama'"),
        ({"hidden_act": "gelu"}, "its activation is 'gelu'"),
        ({"attention_bias": True}, "it has attention_bias"),
        ({"head_dim": 32}, "its heads are 32 wide"),
        ({"hidden_size": None}, "hidden_size must be a whole number"),
        ({"num_hidden_layers": 2}, "hold no blocks called model.layers.0 to model.layers.1"),
    ],
)
def test_other_models_are_refused(hf_folder, change: dict, message: str):
    (hf_folder / "config.json").write_text(json.dumps({**CONFIG, **change}))
    with pytest.raises(CheckpointError, match=message):
        open_llama(str(hf_folder))


def test_sizes_that_are_not_those_of_the_weights(hf_folder):
    (hf_folder / "config.json").write_text(json.dumps({**CONFIG, "intermediate_size": 256}))
    with pytest.raises(CheckpointError, match=r"has the shape \[192, 64\].* must have \[256, 64\]"):
        tensors(hf_folder)


def test_infinite_weights_are_refused(hf_folder, meta):
    arrays = hf_names(meta)
    arrays["model.layers.2.mlp.up_proj.weight"][0, 0] = np.inf
    write_safetensors(hf_folder / "model.safetensors", arrays)
    with pytest.raises(CheckpointError, match=r"w3.weight holds NaN or infinite"):
        tensors(hf_folder)


def test_a_file_of_other_weights_is_no_block(tmp_path):
    write_arrays(tmp_path / "vit.pdparams", {"head.weight": np.ones(3, np.float32)})
    with pytest.raises(CheckpointError, match="this is no extracted LLaMA block"):
        open_llama(str(tmp_path / "vit.pdparams"))
    with pytest.raises(CheckpointError, match=r"must be called \*.pdparams"):
        extract_llama_block(META, tmp_path / "block.safetensors")

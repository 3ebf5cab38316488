"""ViT-LLaMA against numbers of the authors' own code, and what becomes of the frozen block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

import passl
from passl.checkpoint.pretrained import load_arrays
from passl.errors import CheckpointError
from passl.layers.errors import ModelArgumentError
from passl.layers.init import no_init
from passl.models import create_model, list_models, model_spec
from passl.models.summary import macs, num_parameters
from passl.models.vit_llama import ViTLlama

GOLDEN = Path(__file__).parents[2] / "golden"
LLAMA = str(GOLDEN / "llama_7b_layout")
SMALL: dict[str, Any] = {
    "img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4, "class_num": 10,
}
SIZES = {"llama_dim": 64, "llama_num_heads": 4, "llama_hidden_dim": 192}


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "vit_llama.npz") as file:
        return dict(file)


@pytest.fixture
def loaded(golden: dict[str, np.ndarray]) -> ViTLlama:
    """The block from the folder, everything else from the reference."""
    model = ViTLlama(**SMALL, llama_path=LLAMA)
    named = dict(model.named_parameters())
    assert set(named) == {key[6:] for key in golden if key.startswith("param/")}
    for name, parameter in named.items():
        if not name.startswith("llama."):
            parameter.set_value(_paddle_layout(golden[f"param/{name}"]))
    return model


def _paddle_layout(array: np.ndarray) -> np.ndarray:
    """Linear weights are [out, in] in the reference."""
    return array.T if array.ndim == 2 else array


def _arrays(golden: dict[str, np.ndarray], prefix: str = "") -> dict[str, np.ndarray]:
    return {
        key[6:]: np.ascontiguousarray(_paddle_layout(value))
        for key, value in golden.items()
        if key.startswith("param/" + prefix)
    }


def _relative(found: paddle.Tensor, expected: np.ndarray) -> float:
    """Largest deviation over the largest value."""
    assert tuple(found.shape) == expected.shape
    return float(np.abs(found.numpy() - expected).max() / np.abs(expected).max())


# -- the reference ---------------------------------------------------------------------------------


@pytest.mark.parametrize("strided", [True, False], ids=["strided", "copies"])
def test_logits_loss_and_gradients_equal_the_reference(golden, loaded, strided: bool):
    before = paddle.get_flags("FLAGS_use_stride_kernel")
    paddle.set_flags({"FLAGS_use_stride_kernel": strided})
    try:
        logits = loaded(paddle.to_tensor(golden["x"]))
        loss = F.cross_entropy(logits, paddle.to_tensor(golden["y"]))
        loss.backward()
    finally:
        paddle.set_flags(before)
    assert _relative(logits, golden["logits"]) < 1e-5
    assert loss.item() == pytest.approx(float(golden["loss"]), rel=1e-5)
    trained = {name for name, parameter in loaded.named_parameters() if not parameter.stop_gradient}
    assert trained == {key[5:] for key in golden if key.startswith("grad/")}
    for name, parameter in loaded.named_parameters():
        if name in trained:
            expected = _paddle_layout(golden[f"grad/{name}"])
            assert _relative(parameter.grad, expected) < 1e-5, name
        else:
            assert parameter.grad is None, name


def test_the_block_read_from_the_folder_is_that_of_the_reference(golden, loaded):
    for name, parameter in loaded.llama.named_parameters():
        expected = _paddle_layout(golden[f"param/llama.{name}"])
        assert np.array_equal(parameter.numpy(), expected), name
    assert (loaded.llama.norm.weight.numpy() == 1).all()


def test_a_block_stored_in_fp16_gives_the_same_logits(golden, loaded):
    """The folder's numbers are fp16: nothing is lost."""
    narrow = ViTLlama(**SMALL, llama_path=LLAMA, llama_dtype="float16")
    load_arrays(narrow, {k: v.numpy() for k, v in loaded.checkpoint_state_dict().items()}, "here")
    assert narrow.llama.layers[0].feed_forward.w1.weight.dtype == paddle.float16
    x, y = paddle.to_tensor(golden["x"]), paddle.to_tensor(golden["y"])
    logits = narrow(x)
    assert _relative(logits, golden["logits"]) < 1e-5
    F.cross_entropy(logits, y).backward()
    expected = _paddle_layout(golden["grad/llama_dim_mapper1.weight"])
    assert _relative(narrow.llama_dim_mapper1.weight.grad, expected) < 1e-5
    assert narrow.external_weights()["llama_path"]["sha256"] == (
        loaded.external_weights()["llama_path"]["sha256"]
    )


def test_weights_that_contain_the_block_need_no_llama_files(golden):
    model = ViTLlama(**SMALL, **SIZES)
    load_arrays(model, _arrays(golden), "released.pdparams")
    model.eval()
    assert _relative(model(paddle.to_tensor(golden["x"])), golden["logits"]) < 1e-5
    assert set(model.checkpoint_state_dict()) == set(model.state_dict())


# -- names and sizes -------------------------------------------------------------------------------


def test_names_of_the_state_dict(loaded):
    block = "llama.layers.0"
    names = {name for name in loaded.state_dict() if name.startswith("llama")}
    assert names == {
        *(f"{block}.attention.{w}.weight" for w in ("wq", "wk", "wv", "wo")),
        *(f"{block}.feed_forward.{w}.weight" for w in ("w1", "w2", "w3")),
        f"{block}.attention_norm.weight", f"{block}.ffn_norm.weight", "llama.norm.weight",
        "llama_dim_mapper1.weight", "llama_dim_mapper2.weight",
    }


# trained parameters, all of them, billions of MACs
PUBLISHED = [
    ("tiny", 7_290_280, 209_677_736, 41.75),
    ("small", 25_196_392, 227_583_848, 45.40),
    ("base", 92_859_112, 295_246_568, 58.99),
]


@pytest.mark.parametrize(("size", "trained", "total", "giga_macs"), PUBLISHED)
def test_parameters_and_macs_equal_the_originals(size, trained, total, giga_macs):
    name = f"ViT_LLaMA_{size}_patch16_224"
    assert num_parameters(name) == trained
    assert num_parameters(name, llama_trainable=True) == total
    assert macs(name) == pytest.approx(giga_macs * 1e9, abs=5e6)


@pytest.mark.parametrize("name", list_models("vit_llama*"))
@pytest.mark.parametrize("trainable", [False, True])
def test_formula_counts_what_the_constructor_makes(name: str, trainable: bool):
    with paddle.LazyGuard(), no_init():
        model = create_model(name, llama_trainable=trainable, llama_num_kv_heads=8)
    assert len(model.state_dict()) == 164
    made = sum(int(np.prod(p.shape)) for p in model.parameters() if not p.stop_gradient)
    assert made == num_parameters(name, llama_trainable=trainable, llama_num_kv_heads=8)


def test_names_of_the_original_repository_are_aliases():
    for size in ("tiny_patch16", "small_patch16", "base_patch16", "tiny_patch32", "base_patch32"):
        assert model_spec(f"vit_llama_{size}_224").name == f"ViT_LLaMA_{size}_224"


def test_what_others_ask_of_a_model(loaded):
    assert loaded.num_prefix_tokens == 1
    assert loaded.grid_size == (4, 4)
    assert loaded.no_weight_decay() == {"cls_token", "pos_embed"}
    ids = loaded.layer_ids()
    assert set(ids) == {name for name, _ in loaded.named_parameters()}
    assert (ids["pos_embed"], ids["blocks.0.attn.qkv.weight"], ids["head.bias"]) == (0, 1, 3)
    assert {ids[n] for n in ids if n.startswith(("llama", "norm"))} == {2}


# -- the frozen block ------------------------------------------------------------------------------


def test_without_the_block_nothing_is_computed():
    model = ViTLlama(**SMALL, **SIZES)
    with pytest.raises(ModelArgumentError, match="llama_path is null, and no weights were loaded"):
        model(paddle.zeros([1, 3, 32, 32]))


def test_a_path_in_python_is_all_it_takes(golden):
    model = passl.create_model("ViT_LLaMA_tiny_patch16_224", **SMALL, llama_path=LLAMA)
    assert model(paddle.to_tensor(golden["x"])).shape == [4, 10]
    assert model.llama.sizes.dim == 64


def test_a_missing_file_is_said_and_what_was_looked_for(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no LLaMA checkpoint.* looked for "
                                              r"consolidated.00.pth with params.json"):
        ViTLlama(**SMALL, llama_path=str(tmp_path / "llama" / "7B"))


def test_sizes_that_contradict_the_checkpoint_are_refused():
    with pytest.raises(ModelArgumentError, match=r"llama_dim is 4096 and .* has 64"):
        ViTLlama(**SMALL, llama_path=LLAMA, llama_dim=4096)


def test_a_perceptron_without_channels_is_refused():
    with pytest.raises(ModelArgumentError, match="leaves the perceptron no hidden channel"):
        ViTLlama(**{**SMALL, "mlp_ratio": 0.01}, **SIZES)


def test_which_blocks_are_taken():
    """The last by default; several end with the one that is named."""
    last = ViTLlama(**SMALL, llama_path=LLAMA)
    named = ViTLlama(**SMALL, llama_path=LLAMA, llama_layer=2)
    two = ViTLlama(**SMALL, llama_path=LLAMA, llama_layer=2, llama_layers=2)
    other = ViTLlama(**SMALL, llama_path=LLAMA, llama_layer=1)

    def weight(model: ViTLlama, position: int) -> np.ndarray:
        return model.llama.layers[position].attention.wq.weight.numpy()

    assert np.array_equal(weight(last, 0), weight(named, 0))
    assert np.array_equal(weight(two, 1), weight(last, 0))
    assert np.array_equal(weight(two, 0), weight(other, 0))
    assert not np.array_equal(weight(other, 0), weight(last, 0))
    x = paddle.randn([1, 3, 32, 32])
    assert not np.array_equal(two.forward_features(x).numpy(), last.forward_features(x).numpy())


def test_last_norm_is_ones_or_loaded():
    ones = ViTLlama(**SMALL, llama_path=LLAMA)
    read = ViTLlama(**SMALL, llama_path=LLAMA, llama_final_norm="loaded")
    assert (ones.llama.norm.weight.numpy() == 1).all()
    assert not (read.llama.norm.weight.numpy() == 1).all()
    assert read.llama.norm.weight.stop_gradient


def test_a_trainable_block_is_trained_and_saved(golden):
    model = ViTLlama(**SMALL, llama_path=LLAMA, llama_trainable=True)
    F.cross_entropy(model(paddle.to_tensor(golden["x"])), paddle.to_tensor(golden["y"])).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert set(model.checkpoint_state_dict()) == set(model.state_dict())
    with pytest.raises(ModelArgumentError, match="a block that is trained is kept in float32"):
        ViTLlama(**SMALL, llama_path=LLAMA, llama_trainable=True, llama_dtype="float16")


# -- checkpoints -----------------------------------------------------------------------------------


def test_checkpoints_leave_the_block_out_and_say_where_it_is(loaded):
    assert not any(name.startswith("llama.") for name in loaded.checkpoint_state_dict())
    record = loaded.external_weights()["llama_path"]
    assert record["path"] == LLAMA
    assert len(record["sha256"]) == 64
    assert record["arguments"]["llama_num_kv_heads"] == 4
    other = ViTLlama(**SMALL, llama_path=LLAMA, llama_layer=1)
    assert other.external_weights()["llama_path"]["sha256"] != record["sha256"]


def test_a_checkpoint_without_the_block_fits_a_model_that_has_it(golden, loaded):
    saved = {name: value.numpy() for name, value in loaded.checkpoint_state_dict().items()}
    report = load_arrays(ViTLlama(**SMALL, llama_path=LLAMA), saved, "step_1")
    assert "from files of their own: 10 tensors" in str(report)
    with pytest.raises(CheckpointError, match=r"llama\.layers\.0\..*missing in the file"):
        load_arrays(ViTLlama(**SMALL, **SIZES), saved, "step_1")


def test_weights_with_another_block_replace_the_one_of_the_path(golden, loaded):
    """They are what was trained with; from then on checkpoints must hold them."""
    arrays = _arrays(golden)
    arrays["llama.layers.0.attention.wq.weight"] = arrays["llama.layers.0.attention.wq.weight"] * 2
    load_arrays(loaded, arrays, "other")
    assert loaded.external_weights()["llama_path"]["sha256"] is None
    assert set(loaded.checkpoint_state_dict()) == set(loaded.state_dict())

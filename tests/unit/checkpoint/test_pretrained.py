"""Weights into a model: every tensor is accounted for, or nothing is loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn

from passl.checkpoint.files import write_arrays
from passl.checkpoint.pos_embed import resize_pos_embed
from passl.checkpoint.pretrained import load_arrays, load_pretrained
from passl.checkpoint.store import CheckpointStore
from passl.errors import CheckpointError

GOLDEN = Path(__file__).parents[2] / "golden" / "pos_embed_resample.npz"


class Tiny(nn.Layer):
    """The shape of a vision transformer, without its work: 1 + grid tokens of width 4."""

    num_prefix_tokens = 1

    def __init__(self, class_num=3, grid=2, depth=1, representation_size=0) -> None:
        super().__init__()
        self.grid_size = (grid, grid)
        self.pos_embed = self.create_parameter([1, 1 + grid * grid, 4])
        self.blocks = nn.LayerList([nn.Linear(4, 8) for _ in range(depth)])
        self.pre_logits = nn.Linear(4, 4) if representation_size else nn.Identity()
        self.head = nn.Linear(4, class_num)


def state(model) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def assert_equal(found, expected, names):
    for name in names:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def problem(model, arrays, **kwargs) -> str:
    before = state(model)
    with pytest.raises(CheckpointError) as caught:
        load_arrays(model, arrays, "x.pdparams", **kwargs)
    after = state(model)
    assert_equal(after, before, before)  # a refused file changes nothing
    return str(caught.value)


def test_equal_models_are_loaded_completely():
    source, target = Tiny(), Tiny()
    report = load_arrays(target, state(source), "x.pdparams")
    assert_equal(state(target), state(source), state(source))
    assert sorted(report.loaded) == sorted(state(source))
    assert str(report) == "weights from x.pdparams: 5 of 5 tensors loaded"


def test_every_spelling_of_a_checkpoint_is_loaded(tmp_path):
    source = Tiny()
    CheckpointStore(tmp_path).save(1, {"model.pdparams": state(source)}, links=("best",))
    write_arrays(tmp_path / "old.pdparams", state(source))
    for path in ("best", "best/model", "checkpoints/step_00000001", "old", "old.pdparams"):
        target = Tiny()
        load_pretrained(target, tmp_path / path)
        assert_equal(state(target), state(source), state(source))


def test_a_file_that_paddle_saved_is_loaded(tmp_path):
    source, target = Tiny(), Tiny()
    paddle.save(source.state_dict(), str(tmp_path / "x.pdparams"))
    load_pretrained(target, tmp_path / "x")
    assert_equal(state(target), state(source), state(source))


def test_a_bit_that_flipped_since_the_checkpoint_was_written_is_found(tmp_path):
    path = CheckpointStore(tmp_path).save(1, {"model.pdparams": state(Tiny())})
    data = bytearray((path / "model.pdparams").read_bytes())
    data[-8] ^= 1  # inside the numbers: the file still parses
    (path / "model.pdparams").write_bytes(data)
    with pytest.raises(CheckpointError, match="its content has changed since it was written"):
        load_pretrained(Tiny(), tmp_path / "latest")


# -- what does not fit -----------------------------------------------------------------------------


def test_weights_of_a_deeper_model_are_refused():
    """Paddle would load them without a word."""
    text = problem(Tiny(depth=1), state(Tiny(depth=2)))
    assert text == (
        "x.pdparams: these weights are of another model, or of another setting of it: 2 tensors do "
        "not fit, 5 of 5 would.\n"
        "  blocks.1.weight: not in the model\n"
        "  blocks.1.bias: not in the model\n"
        "Compare Model.name and its arguments with those the weights were trained with."
    )


def test_missing_tensors_are_refused_and_counted():
    text = problem(Tiny(depth=9), state(Tiny(depth=1)))
    assert "16 tensors do not fit, 5 of 21 would." in text
    assert "  blocks.1.weight: missing in the file\n" in text
    assert text.count("\n  blocks.") == 10
    assert "\n  ... and 6 more\n" in text


def test_a_name_that_is_nearly_right_is_told():
    arrays = state(Tiny())
    arrays["block.0.weight"] = arrays.pop("blocks.0.weight")
    assert "block.0.weight: not in the model (did you mean blocks.0.weight?)" in problem(
        Tiny(), arrays
    )


def test_a_transposed_weight_is_recognised():
    arrays = state(Tiny())
    arrays["blocks.0.weight"] = arrays["blocks.0.weight"].T
    assert (
        "blocks.0.weight: [8, 4] in the file, [4, 8] in the model (transposed: written by another "
        "framework?)"
    ) in problem(Tiny(), arrays)


def test_another_number_of_classes_is_refused_with_the_setting_that_allows_it():
    text = problem(Tiny(class_num=5), state(Tiny(class_num=3)))
    assert "head.weight: [4, 3] in the file, [4, 5] in the model (3 -> 5 classes)" in text
    assert text.endswith(
        "Only the head or what depends on the image size differs: Global.finetune=true starts a "
        "new head and resizes the embeddings."
    )


def test_integers_are_no_weights():
    arrays = state(Tiny())
    arrays["head.bias"] = np.arange(3)
    assert "head.bias: int64 in the file, float32 in the model" in problem(Tiny(), arrays)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused_by_name(bad):
    arrays = state(Tiny())
    arrays["blocks.0.bias"][3] = bad
    assert problem(Tiny(), arrays) == (
        "x.pdparams: blocks.0.bias has 1 NaN or infinite values of 8; the run that wrote it had "
        "diverged. Use an earlier checkpoint."
    )


def test_allow_missing_lets_chosen_tensors_differ_and_the_report_says_so():
    source, target = state(Tiny()), Tiny(depth=2, class_num=4)
    before = state(target)
    source["extra"] = np.ones(1, np.float32)
    report = load_arrays(target, source, "x", allow_missing=[r"^blocks\.1\.", "^head", "extra"])
    after = state(target)
    assert_equal(after, source, ["pos_embed", "blocks.0.weight", "blocks.0.bias"])
    assert_equal(after, before, ["blocks.1.weight", "blocks.1.bias", "head.weight", "head.bias"])
    assert str(report).splitlines() == [
        "weights from x: 3 of 7 tensors loaded",
        "  kept as initialised blocks.1.weight: not in the file",
        "  kept as initialised blocks.1.bias: not in the file",
        "  kept as initialised head.weight: [4, 3] in the file, [4, 4] in the model "
        "(3 -> 4 classes)",
        "  kept as initialised head.bias: [3] in the file, [4] in the model (3 -> 4 classes)",
        "  not used extra: not in the model",
    ]


def test_a_wrong_pattern_is_a_sentence():
    assert "allow_missing: '(' is no pattern: missing )" in problem(Tiny(), {}, allow_missing=["("])


# -- element types ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
def test_other_floats_are_converted_and_counted(tmp_path, dtype):
    source, target = Tiny(), Tiny()
    tensors = {name: value.astype(dtype) for name, value in source.state_dict().items()}
    paddle.save(tensors, str(tmp_path / "x.pdparams"))
    report = load_pretrained(target, tmp_path / "x")
    for name, value in target.state_dict().items():
        assert value.dtype == paddle.float32
        expected = tensors[name].astype("float32").numpy()
        np.testing.assert_array_equal(value.numpy(), expected)
    assert report.converted == {dtype: 5}


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
def test_a_model_of_other_floats_keeps_its_type(dtype):
    source, target = Tiny(), Tiny().to(dtype=dtype)
    load_arrays(target, state(source), "x")
    for name, value in target.state_dict().items():
        assert str(value.dtype) == f"paddle.{dtype}"
        stored = source.state_dict()[name]
        if dtype == "bfloat16":
            expected = stored.astype(dtype).astype("float32").numpy()
        else:  # Paddle 2.6 truncates to float16 on a CPU; NumPy rounds, and so do we
            expected = stored.numpy().astype(dtype).astype("float32")
        np.testing.assert_array_equal(value.astype("float32").numpy(), expected)


# -- fine-tuning -----------------------------------------------------------------------------------


def test_finetune_keeps_a_head_that_fits():
    source, target = Tiny(), Tiny()
    report = load_arrays(target, state(source), "x", finetune=True)
    assert_equal(state(target), state(source), state(source))
    assert report.reinitialised == {}


def test_finetune_starts_a_head_of_other_classes_anew():
    source, target = state(Tiny(class_num=3)), Tiny(class_num=5)
    before = state(target)
    report = load_arrays(target, source, "x", finetune=True)
    after = state(target)
    assert_equal(after, source, ["pos_embed", "blocks.0.weight", "blocks.0.bias"])
    assert_equal(after, before, ["head.weight", "head.bias"])
    assert report.reinitialised == {
        "head.weight": "[4, 3] in the file, [4, 5] in the model (3 -> 5 classes)",
        "head.bias": "[3] in the file, [5] in the model (3 -> 5 classes)",
    }


def test_finetune_drops_a_representation_layer_with_its_head():
    """A head that was trained behind a representation layer means nothing without it."""
    source, target = state(Tiny(representation_size=4)), Tiny()
    before = state(target)
    report = load_arrays(target, source, "x", finetune=True)
    assert_equal(state(target), before, ["head.weight", "head.bias"])
    assert_equal(state(target), source, ["blocks.0.weight"])
    assert set(report.reinitialised.values()) == {"another part of the head differs"}


def test_finetune_forgives_nothing_else():
    text = problem(Tiny(depth=2), state(Tiny(depth=1, class_num=9)), finetune=True)
    assert "2 tensors do not fit" in text
    assert "finetune" not in text


def test_finetune_resizes_the_position_embedding():
    source, target = state(Tiny(grid=2)), Tiny(grid=4)
    report = load_arrays(target, source, "x", finetune=True)
    expected = resize_pos_embed(source["pos_embed"], (4, 4), 1)
    np.testing.assert_array_equal(target.pos_embed.numpy(), expected)
    assert report.resized == {"pos_embed": "grid 2x2 -> 4x4, bicubic"}
    assert "pos_embed" in report.loaded


def test_tokens_that_are_no_grid_are_refused():
    source = state(Tiny(grid=2))
    source["pos_embed"] = np.zeros((1, 4, 4), np.float32)  # a grid alone?
    assert problem(Tiny(grid=3), source, finetune=True) == (
        "x.pdparams: pos_embed cannot be resized: 4 tokens less the 1 around the model's grid are "
        "no square grid. If they are rows times columns, say so with source_grid=(rows, columns) "
        'in Python, or with "grid_size": [rows, columns] in x.pdparams.provenance.json.'
    )


@pytest.mark.parametrize("side", [2, 3, 6, 9])
def test_resizing_equals_the_reference(side):
    with np.load(GOLDEN) as golden:
        source, expected = golden["pos_embed"], golden[f"bicubic_no_antialias/{side}"]
    found = resize_pos_embed(source, (side, side), 1)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
    np.testing.assert_array_equal(found[:, 0], source[:, 0])


def test_the_same_grid_is_left_bit_identical():
    source = np.random.default_rng(0).normal(size=(1, 17, 8)).astype(np.float32)
    np.testing.assert_array_equal(resize_pos_embed(source, (4, 4), 1), source)


def test_a_grid_that_is_not_square_can_be_the_target():
    source = np.random.default_rng(0).normal(size=(1, 2 + 16, 8)).astype(np.float32)
    assert resize_pos_embed(source, (3, 5), 2).shape == (1, 2 + 15, 8)

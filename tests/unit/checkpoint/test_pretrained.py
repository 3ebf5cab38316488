"""Weights into a model: every tensor is accounted for, or nothing is loaded."""

from __future__ import annotations

import json

import numpy as np
import paddle
import pytest
from paddle import nn

import passl
from passl.checkpoint.files import write_arrays
from passl.checkpoint.pos_embed import resize_pos_embed
from passl.checkpoint.pretrained import load_arrays, load_pretrained
from passl.checkpoint.store import CheckpointStore
from passl.errors import CheckpointError


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


def test_fine_tuning_is_not_advised_where_it_would_not_help():
    source = state(Tiny())
    del source["pos_embed"]
    for finetune in (False, True):
        assert "Global.finetune" not in problem(Tiny(), source, finetune=finetune)


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


def test_a_double_that_float32_has_not_is_refused_by_name():
    arrays = state(Tiny())
    arrays["blocks.0.bias"] = np.full(8, 1e39)
    assert problem(Tiny(), arrays) == (
        "x.pdparams: blocks.0.bias: 1e+39 is too large for float32, in which the model keeps it."
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


@pytest.mark.parametrize("finetune", [True, False])
def test_a_head_that_fits_is_given_up_only_where_a_new_one_is_asked_for(finetune):
    source, target = state(Tiny()), Tiny()
    before = state(target)
    report = load_arrays(target, source, "x", finetune=finetune, keep_head=False)
    assert_equal(state(target), before if finetune else source, ["head.weight", "head.bias"])
    expected = dict.fromkeys(["head.weight", "head.bias"], "a new head was asked for")
    assert report.reinitialised == (expected if finetune else {})


def test_the_report_tells_the_parts_of_the_former_head_that_go_with_it():
    report = load_arrays(Tiny(), state(Tiny(representation_size=4)), "x", finetune=True)
    assert str(report).splitlines() == [
        "weights from x: 3 of 5 tensors loaded",
        "  newly initialised head.weight: another part of the head differs",
        "  newly initialised head.bias: another part of the head differs",
        "  not used pre_logits.weight: a part of the file's head that the model has not",
        "  not used pre_logits.bias: a part of the file's head that the model has not",
    ]


def test_a_second_head_belongs_to_the_head():
    source = state(Tiny())
    source["head_dist.weight"] = np.ones((4, 3), np.float32)
    assert "head_dist.weight: not in the model" in problem(Tiny(), source)
    report = load_arrays(Tiny(), source, "x", finetune=True)
    assert set(report.dropped) == {"head_dist.weight"}


# -- fine-tuning: another image -------------------------------------------------------------------

SMALL = {"embed_dim": 8, "depth": 1, "num_heads": 2, "patch_size": 4, "class_num": 3}


def vit(**arguments):
    return passl.create_model("VisionTransformer", **{**SMALL, "img_size": 16, **arguments})


def images(size, channels=3):
    shape = (2, channels, size, size)
    return paddle.to_tensor(np.random.default_rng(1).normal(size=shape).astype("float32"))


def test_a_model_of_larger_images_begins_with_the_resized_positions():
    source, target = state(vit()), vit(img_size=24)
    report = load_arrays(target, source, "x", finetune=True, pos_embed_method="zoom")
    assert report.resized == {"pos_embed": "grid 4x4 -> 6x6, zoom"}
    expected = resize_pos_embed(source["pos_embed"], (6, 6), 1, method="zoom")
    np.testing.assert_array_equal(target.pos_embed.numpy(), expected)
    assert len(report.loaded) == report.num_tensors


def test_only_fine_tuning_changes_the_size_and_then_everything_that_depends_on_it():
    source, target = state(vit()), vit(img_size=16, patch_size=8, in_chans=1)
    text = problem(target, source)
    assert "pos_embed: [1, 17, 8] in the file, [1, 5, 8] in the model" in text
    assert "patch_embed.proj.weight: [8, 3, 4, 4] in the file, [8, 1, 8, 8] in the model" in text
    assert "Global.finetune=true" in text
    report = load_arrays(target, source, "x", finetune=True)
    assert report.resized == {
        "patch_embed.proj.weight": "channels 3 -> 1, summed; patch 4x4 -> 8x8, pseudo-inverse "
        "resize",
        "pos_embed": "grid 4x4 -> 2x2, bicubic",
    }
    assert len(report.loaded) == report.num_tensors


def test_grey_images_give_the_logits_that_they_gave_repeated():
    source, target = vit(), vit(in_chans=1)
    load_arrays(target, state(source), "x", finetune=True)
    grey = images(16, channels=1)
    expected = source(grey.expand([2, 3, 16, 16])).numpy()
    np.testing.assert_allclose(target(grey).numpy(), expected, atol=1e-5)


def test_another_width_is_not_resized_away():
    assert "patch_embed.proj.weight: [8, 3, 4, 4] in the file, [16, 3, 8, 8] in the model" in (
        problem(vit(embed_dim=16, patch_size=8), state(vit()), finetune=True)
    )


def test_channels_without_a_meaning_are_refused():
    assert problem(vit(in_chans=3), state(vit(in_chans=4)), finetune=True) == (
        "x.pdparams: patch_embed.proj.weight: weights for 4 channels cannot become weights for 3."
    )


# -- fine-tuning: which tokens have a position ----------------------------------------------------


def test_a_file_without_a_position_of_the_class_token_gives_the_same_logits():
    """DeiT-III's layout: the class token is put in front of what already has its positions."""
    source = vit()
    arrays = state(source)
    arrays["cls_token"] += arrays["pos_embed"][:, :1]
    arrays["pos_embed"] = arrays["pos_embed"][:, 1:]
    target = vit()
    report = load_arrays(target, arrays, "x", finetune=True)
    assert report.resized == {"pos_embed": "position of cls_token starts at 0"}
    np.testing.assert_allclose(target(images(16)).numpy(), source(images(16)).numpy(), atol=1e-6)


class NoClassPosition(nn.Layer):
    """Positions for the grid alone, a class token, and registers."""

    def __init__(self, grid=(4, 4), positions=0) -> None:
        super().__init__()
        self.grid_size = grid
        self.cls_token = self.create_parameter([1, 1, 8])
        self.reg_token = self.create_parameter([1, 2, 8])
        self.pos_embed = self.create_parameter([1, positions + grid[0] * grid[1], 8])


def test_positions_that_the_model_has_no_room_for_are_added_to_their_tokens():
    source, target = state(NoClassPosition(positions=3)), NoClassPosition(grid=(2, 2))
    report = load_arrays(target, source, "x", finetune=True)
    pos_embed = source["pos_embed"]
    np.testing.assert_array_equal(
        target.cls_token.numpy(), source["cls_token"] + pos_embed[:, :1]
    )
    np.testing.assert_array_equal(
        target.reg_token.numpy(), source["reg_token"] + pos_embed[:, 1:3]
    )
    expected = resize_pos_embed(pos_embed, (2, 2), 3)[:, 3:]
    np.testing.assert_array_equal(target.pos_embed.numpy(), expected)
    assert report.resized == {
        "pos_embed": "grid 4x4 -> 2x2, bicubic; position of cls_token added to it; position of "
        "reg_token added to it"
    }


def test_a_square_number_of_tokens_is_not_taken_for_grid_and_class_token():
    """196 tokens are 14 x 14, not a class token and 195 others."""
    source, target = state(NoClassPosition((4, 4))), NoClassPosition((3, 3), positions=1)
    load_arrays(target, source, "x", finetune=True)
    np.testing.assert_array_equal(target.pos_embed.numpy()[:, 0], np.zeros((1, 8), np.float32))


class ClassTokenLast(nn.Layer):
    """iLLaMA's layout: the grid first, the class token after it."""

    num_prefix_tokens, num_suffix_tokens = 0, 1

    def __init__(self, side) -> None:
        super().__init__()
        self.grid_size = (side, side)
        self.pos_embed = self.create_parameter([1, side * side + 1, 8])


def test_a_class_token_that_comes_last_stays_last():
    source, target = state(ClassTokenLast(2)), ClassTokenLast(3)
    load_arrays(target, source, "x", finetune=True)
    expected = resize_pos_embed(source["pos_embed"], (3, 3), 0, num_suffix_tokens=1)
    np.testing.assert_array_equal(target.pos_embed.numpy(), expected)
    np.testing.assert_array_equal(target.pos_embed.numpy()[:, -1], source["pos_embed"][:, -1])


# -- what stands beside the file -------------------------------------------------------------------


def write(path, source, **facts):
    write_arrays(path, state(source))
    if facts:
        path.with_name(path.name + ".provenance.json").write_text(json.dumps(facts))
    return path


@pytest.mark.parametrize(
    ("facts", "asked", "method"),
    [
        ({}, None, "bicubic"),
        ({"sha256": "0"}, None, "bicubic"),
        ({"pos_embed_method": "zoom"}, None, "zoom"),
        ({"pos_embed_method": "zoom"}, "bilinear", "bilinear"),
    ],
)
def test_the_method_is_the_one_asked_for_else_that_of_the_files_origin(
    tmp_path, facts, asked, method
):
    path = write(tmp_path / "w.pdparams", vit(), **facts)
    report = load_pretrained(vit(img_size=24), path, finetune=True, pos_embed_method=asked)
    assert report.resized == {"pos_embed": f"grid 4x4 -> 6x6, {method}"}


def test_the_grid_of_a_file_is_what_stands_beside_it(tmp_path):
    source, target = vit(img_size=[8, 32]), vit(img_size=16)
    path = write(tmp_path / "w.pdparams", source, grid_size=[2, 8])
    report = load_pretrained(target, path, finetune=True)  # as many tokens, another grid
    assert report.resized == {"pos_embed": "grid 2x8 -> 4x4, bicubic"}
    expected = resize_pos_embed(state(source)["pos_embed"], (4, 4), 1, source_grid=(2, 8))
    np.testing.assert_array_equal(target.pos_embed.numpy(), expected)


def test_a_grid_that_is_not_square_needs_no_word_if_the_model_has_it_too(tmp_path):
    path = write(tmp_path / "w.pdparams", vit(img_size=[8, 32]))
    report = load_pretrained(vit(img_size=[8, 32], class_num=5), path, finetune=True)
    assert report.resized == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read: "),
        ("[]", "is no JSON object"),
        ('{"pos_embed_method": "cubic"}', "pos_embed_method is 'cubic'; it must be one of bicubic"),
        ('{"grid_size": 14}', r"grid_size is 14; it must be \[rows, columns\]"),
    ],
)
def test_a_damaged_word_beside_the_file_is_refused(tmp_path, text, message):
    path = write(tmp_path / "w.pdparams", vit())
    (tmp_path / "w.pdparams.provenance.json").write_text(text)
    with pytest.raises(CheckpointError, match=f"w.pdparams.provenance.json: {message}"):
        load_pretrained(vit(), path)

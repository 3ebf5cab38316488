"""Which positions of a file are its patches', and how these lie in rows and columns."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import paddle
import pytest

import passl
from passl.checkpoint.pos_embed import resize_pos_embed
from passl.checkpoint.pretrained import load_arrays
from passl.checkpoint.provenance import read_provenance
from passl.layers.init import no_init

SMALL = {"embed_dim": 8, "depth": 1, "num_heads": 2, "class_num": 3}


def state(model) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def small(name, **arguments):
    return passl.create_model(name, **SMALL, **arguments)


def test_class_and_distillation_token_are_not_taken_for_patches():
    """2 + 4 x 4 positions are 6 x 3 as well, which is the grid of this model."""
    arrays = state(small("DistilledVisionTransformer", patch_size=4, img_size=16))
    target = small("VisionTransformer", patch_size=4, img_size=[24, 12], qkv_bias=True)
    report = load_arrays(target, arrays, "x", finetune=True, allow_missing=["dist"])
    expected = resize_pos_embed(arrays["pos_embed"], (6, 3), 2)
    np.testing.assert_array_equal(target.pos_embed.numpy()[:, 1:], expected[:, 2:])
    np.testing.assert_array_equal(target.pos_embed.numpy()[:, 0], expected[:, 0])
    assert report.resized == {
        "pos_embed": "grid 4x4 -> 6x3, bicubic; position of dist_token dropped"
    }


def test_a_class_token_that_comes_last_is_not_taken_for_one_that_comes_first():
    """4 x 4 positions and one more, where 1 + 3 x 5 would fit the model."""
    arrays = state(small("iLLaMA", patch_size=4, img_size=16))
    target = small("iLLaMA", patch_size=4, img_size=[12, 20])
    report = load_arrays(target, arrays, "x", finetune=True)
    assert report.resized == {"pos_embed": "grid 4x4 -> 3x5, bicubic"}


def test_the_report_says_that_a_square_was_not_taken_for_one():
    arrays = state(small("VisionTransformer", patch_size=4, img_size=16))
    target = small("VisionTransformer", patch_size=4, img_size=[8, 32])
    report = load_arrays(target, arrays, "x", finetune=True)
    assert report.resized == {}
    assert "the 16 positions of the patches were taken for 2x8" in str(report)
    told = load_arrays(target, arrays, "x", finetune=True, source_grid=(4, 4))
    assert told.resized == {"pos_embed": "grid 4x4 -> 2x8, bicubic"}
    assert told.notes == []


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("VisionTransformer", {"img_size": 64, "patch_size": 16}),
        ("VisionTransformer", {"img_size": [48, 192], "patch_size": 16}),
        ("HybridVisionTransformer", {"img_size": [64, 256], "backbone_layers": [1, 1, 1]}),
        ("HybridVisionTransformer", {"img_size": [60, 252], "backbone_layers": [1, 1]}),
        ("HybridVisionTransformer",
         {"img_size": [64, 256], "patch_size": 8, "backbone_layers": []}),
    ],
)  # fmt: skip
def test_a_run_knows_the_grid_of_its_model(tmp_path, name, arguments):
    arguments = {"patch_size": 1, **arguments}  # a config has every argument
    with paddle.LazyGuard(), no_init():
        model = small(name, **arguments)
    state_json = tmp_path / "state.json"
    state_json.write_text(json.dumps({"config": {"Model": {"name": name, **arguments}}}))
    resolved = SimpleNamespace(weights=tmp_path / "model.pdparams", state=state_json)
    assert read_provenance(resolved).grid_size == model.grid_size


@pytest.mark.parametrize("layers", [(), (1, 1)])
def test_a_grey_image_meets_the_summed_kernel_of_a_hybrids_stem(layers):
    arguments = {"img_size": 64, "patch_size": 8, "backbone_width": 32, "backbone_layers": layers}
    source = small("HybridVisionTransformer", **arguments)
    target = small("HybridVisionTransformer", **arguments, in_chans=1)
    load_arrays(target, state(source), "x", finetune=True)
    grey = paddle.to_tensor(np.random.default_rng(0).normal(size=(1, 1, 64, 64)).astype("float32"))
    expected = source.embed(grey.expand([1, 3, 64, 64])).numpy()
    np.testing.assert_allclose(target.embed(grey).numpy(), expected, atol=2e-4)

"""Attention rollout against its formula and published numbers, and where the patches are."""

from __future__ import annotations

import numpy as np
import pytest

from passl.errors import ConfigError
from passl.models import create_model
from passl.visualize.rollout import TokenLayout, fuse_heads, rollout, token_layout

SMALL = {"img_size": 16, "patch_size": 8, "embed_dim": 8, "depth": 1, "num_heads": 2}


def _random_attention(layers: int, heads: int, tokens: int) -> list[np.ndarray]:
    draw = np.random.default_rng(3).gamma(0.5, size=[layers, heads, tokens, tokens])
    return list((draw / draw.sum(axis=-1, keepdims=True)).astype(np.float32))


def test_two_layers_of_uniform_attention_give_the_known_row():
    uniform = np.full([3, 5, 5], 0.2, np.float32)
    np.testing.assert_allclose(rollout([uniform, uniform])[-1][0], [0.4] + [0.15] * 4, atol=1e-7)


def test_the_newest_layer_is_multiplied_from_the_left():
    attention = _random_attention(3, 2, 6)
    steps = []
    for layer in attention:  # written out entry by entry
        step = layer.astype(np.float64).sum(axis=0) / 2 + np.identity(6)
        steps.append(np.array([row / sum(row) for row in step]))
    expected = [steps[0], steps[1].dot(steps[0]), steps[2].dot(steps[1].dot(steps[0]))]
    np.testing.assert_allclose(rollout(attention), expected, rtol=1e-12)
    other_way = steps[0].dot(steps[1]).dot(steps[2])
    assert np.abs(rollout(attention)[-1] - other_way).max() > 1e-3


@pytest.mark.parametrize("head_fusion", ["mean", "max", "min"])
@pytest.mark.parametrize("discard_ratio", [0.0, 0.5, 0.9])
def test_rows_sum_to_one_however_the_heads_are_fused(head_fusion, discard_ratio):
    flows = rollout(
        _random_attention(4, 3, 7), head_fusion=head_fusion, discard_ratio=discard_ratio
    )
    assert (flows >= 0).all()
    np.testing.assert_allclose(flows.sum(axis=-1), 1.0, atol=1e-12)


def test_heads_are_fused_entry_by_entry():
    heads = np.array([[[0.1, 0.9], [0.5, 0.5]], [[0.3, 0.7], [1.0, 0.0]]])
    np.testing.assert_allclose(fuse_heads(heads, "mean"), [[0.2, 0.8], [0.75, 0.25]])
    np.testing.assert_array_equal(fuse_heads(heads, "max"), [[0.3, 0.9], [1.0, 0.5]])
    np.testing.assert_array_equal(fuse_heads(heads, "min"), [[0.1, 0.7], [0.5, 0.0]])


def test_the_lowest_entries_are_left_out_before_the_identity_is_added():
    attention = np.array([[[0.1, 0.2, 0.7], [0.3, 0.3, 0.4], [0.6, 0.25, 0.15]]])
    kept = np.array([[0, 0, 0.7], [0, 0.3, 0.4], [0.6, 0, 0]]) + np.eye(3)
    # 5 of 9: 0.1, 0.15, 0.2, 0.25, and the first of the two 0.3
    found = rollout([attention], discard_ratio=0.6)[0]
    np.testing.assert_allclose(found, kept / kept.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("ratio", [1.0, -0.1])
def test_a_ratio_out_of_range_is_refused(ratio):
    with pytest.raises(ValueError, match="discard_ratio"):
        rollout(_random_attention(1, 1, 3), discard_ratio=ratio)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("VisionTransformer", {}, TokenLayout((2, 2), 1, 0, 0)),
        ("VisionTransformer", {"img_size": [16, 32]}, TokenLayout((2, 4), 1, 0, 0)),
        ("VisionTransformer", {"reg_tokens": 4}, TokenLayout((2, 2), 5, 0, 0)),
        ("VisionTransformer", {"global_pool": "avg"}, TokenLayout((2, 2), 1, 0, None)),
        ("DeiT_tiny_distilled_patch16_224", {}, TokenLayout((2, 2), 2, 0, 0)),
        ("iLLaMA_tiny_patch16_224", {}, TokenLayout((2, 2), 0, 1, 4)),
        (
            "VisionTransformer",
            {"img_size": 18, "ignore_border": True},
            TokenLayout((2, 2), 1, 0, 0, (16 / 18, 16 / 18)),
        ),
    ],
)
def test_the_layout_of_each_family(name, arguments, expected):
    assert token_layout(create_model(name, **{**SMALL, **arguments})) == expected


def test_maps_are_the_row_of_the_classified_token_over_the_patches():
    tokens = np.arange(2 * 8 * 8).reshape(2, 8, 8)
    first = TokenLayout((2, 3), 2, 0, 0)
    np.testing.assert_array_equal(first.maps(tokens)[1], [[66, 67, 68], [69, 70, 71]])
    last = TokenLayout((1, 7), 0, 1, 7)
    np.testing.assert_array_equal(last.maps(tokens)[0], [[56, 57, 58, 59, 60, 61, 62]])
    average = TokenLayout((2, 3), 1, 1, None)
    expected = tokens[0, 1:7, 1:7].mean(axis=0).reshape(2, 3)
    np.testing.assert_array_equal(average.maps(tokens)[0], expected)
    with pytest.raises(ValueError, match="2 x 2"):
        TokenLayout((2, 2), 1, 0, 0).maps(tokens)


def test_a_model_that_does_not_say_its_grid_is_refused():
    with pytest.raises(ConfigError, match="has no grid_size"):
        token_layout(object())

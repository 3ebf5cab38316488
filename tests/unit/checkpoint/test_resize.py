"""Position embeddings and first convolutions of another size, against torch, timm and SciPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from passl.checkpoint.patch_embed_resize import adapt_channels, resize_patch_embed
from passl.checkpoint.pos_embed import (
    RESIZE_METHODS,
    resize_grid,
    resize_pos_embed,
    resize_weights,
)

GOLDEN = Path(__file__).parents[2] / "golden"
WHOLE = np.load(GOLDEN / "pos_embed_resample.npz")
PARTS = np.load(GOLDEN / "finetune.npz")
SHAPES = [(3, 5), (4, 4), (7, 6), (11, 13), (1, 1)]
REFERENCE = {
    "bicubic": "bicubic_no_antialias",
    "bicubic_antialias": "timm_bicubic_antialias",
    "zoom": "google_zoom_order1",
}


def size_of(key: str) -> tuple[int, int]:
    rows, columns = key.rpartition("/")[2].split("x")
    return int(rows), int(columns)


@pytest.mark.parametrize("side", [2, 3, 6, 9])
@pytest.mark.parametrize("method", REFERENCE)
def test_a_square_embedding_is_resized_as_the_reference_does(method, side):
    source, expected = WHOLE["pos_embed"], WHOLE[f"{REFERENCE[method]}/{side}"]
    found = resize_pos_embed(source, (side, side), 1, method=method)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)  # torch computed in float32
    np.testing.assert_array_equal(found[:, 0], source[:, 0])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("method", RESIZE_METHODS)
def test_a_grid_of_7_by_5_becomes_any_other_as_torch_and_scipy_make_it(method, shape):
    expected = PARTS[f"grid/{method}/{shape[0]}x{shape[1]}"]
    found = resize_grid(PARTS["grid"], shape, method)
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("method", "row"),
    [
        ("bicubic", [-0.260417, 0.326389, 0.913194]),
        ("bicubic_antialias", [-0.197368, 0.368421, 0.934211]),
        ("bilinear", [0.0, 0.5, 1.0]),
        ("zoom", [0.0, 0.5, 1.0]),
    ],
)
def test_the_methods_differ_as_published(method, row):
    """Measured with torch and SciPy on [[0, 1], [2, 3]], first of three rows."""
    grid = np.array([[0.0, 1.0], [2.0, 3.0]], np.float32)[..., None]
    np.testing.assert_allclose(resize_grid(grid, (3, 3), method)[0, :, 0], row, atol=1e-6)


@pytest.mark.parametrize("method", RESIZE_METHODS)
def test_a_constant_stays_constant(method):
    for old, new in [(14, 24), (24, 14), (7, 3), (1, 4), (4, 1)]:
        np.testing.assert_allclose(resize_weights(old, new, method).sum(axis=1), 1.0, atol=1e-12)


@pytest.mark.parametrize("method", RESIZE_METHODS)
def test_the_same_grid_is_left_bit_identical(method):
    source = np.random.default_rng(0).normal(size=(1, 17, 8)).astype(np.float32)
    np.testing.assert_array_equal(resize_pos_embed(source, (4, 4), 1, method=method), source)


def test_grids_that_are_not_square_and_tokens_after_the_grid():
    source = np.random.default_rng(0).normal(size=(1, 2 + 35 + 1, 4)).astype(np.float32)
    source[0, 2:-1] = PARTS["grid"].reshape(35, 4)
    found = resize_pos_embed(
        source, (3, 5), 2, method="zoom", source_grid=(7, 5), num_suffix_tokens=1
    )
    np.testing.assert_array_equal(found[:, :2], source[:, :2])
    np.testing.assert_array_equal(found[:, -1], source[:, -1])
    np.testing.assert_allclose(found[0, 2:-1], PARTS["grid/zoom/3x5"].reshape(15, 4), atol=1e-6)


def test_half_precision_is_resized_in_single():
    source = np.random.default_rng(0).normal(size=(1, 17, 8)).astype(np.float16)
    found = resize_pos_embed(source, (6, 6), 1)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, resize_pos_embed(source.astype(np.float32), (6, 6), 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "35 tokens are no square grid"),
        ({"source_grid": (6, 5)}, "35 tokens are no grid of 6 x 5"),
        ({"source_grid": (7, 5), "method": "cubic"}, "no method 'cubic'; there are bicubic, "),
    ],
)
def test_what_is_no_grid_or_no_method_is_said(arguments, message):
    with pytest.raises(ValueError, match=message):
        resize_pos_embed(np.zeros((1, 36, 4), np.float32), (3, 3), 1, **arguments)


# -- first convolution -----------------------------------------------------------------------------


@pytest.mark.parametrize("key", [key for key in PARTS.files if key.startswith("kernel/")])
def test_a_kernel_is_resized_as_timm_does_it(key):
    expected = PARTS[key]
    found = resize_patch_embed(PARTS["kernel"], size_of(key))
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_a_larger_patch_of_a_resized_image_keeps_its_token():
    """What the pseudo-inverse is for: exact when patches grow."""
    rng = np.random.default_rng(0)
    patch = rng.normal(size=(8, 8, 1))
    grown = resize_grid(patch, (16, 16), "bicubic_antialias")
    kernel = rng.normal(size=(4, 1, 8, 8))
    larger = resize_patch_embed(kernel, (16, 16))
    np.testing.assert_allclose(
        np.einsum("dchw,hwc->d", larger, grown), np.einsum("dchw,hwc->d", kernel, patch), atol=1e-4
    )


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_channels_are_summed_or_repeated_as_timm_does_it(channels):
    found = adapt_channels(PARTS["kernel"], channels)
    np.testing.assert_allclose(found, PARTS[f"channels/{channels}"], atol=1e-6, rtol=0)


def test_a_grey_image_gives_the_tokens_that_it_gave_repeated():
    rng = np.random.default_rng(0)
    grey = rng.normal(size=(8, 8))
    rgb = np.stack([grey] * 3)
    kernel = PARTS["kernel"]
    tokens = np.einsum("dchw,chw->d", kernel, rgb)
    one = adapt_channels(kernel, 1)
    np.testing.assert_allclose(np.einsum("dchw,chw->d", one, grey[None]), tokens, atol=1e-4)
    three = adapt_channels(one, 3)
    np.testing.assert_allclose(np.einsum("dchw,chw->d", three, rgb), tokens, atol=1e-4)


def test_the_same_size_and_channels_are_left_bit_identical():
    kernel = PARTS["kernel"]
    np.testing.assert_array_equal(resize_patch_embed(kernel, (8, 8)), kernel)
    np.testing.assert_array_equal(adapt_channels(kernel, 3), kernel)


def test_channels_that_nobody_knows_are_not_guessed():
    with pytest.raises(ValueError, match="weights for 4 channels cannot become weights for 3"):
        adapt_channels(np.zeros((2, 4, 3, 3), np.float32), 3)

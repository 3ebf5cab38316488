"""Filters and positions: the arrays behind the pictures, and the pictures themselves."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from passl.errors import ConfigError
from passl.models import create_model
from passl.visualize import weights
from passl.visualize.weights import (
    draw_filters,
    draw_positions,
    first_filters,
    position_similarity,
    principal_components,
)

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}


def test_principal_components_are_those_of_the_covariance():
    filters = np.random.default_rng(0).normal(size=[40, 3, 2, 2])
    filters *= np.arange(1, 13).reshape(3, 2, 2)
    components, share = principal_components(filters, 5)
    values, vectors = np.linalg.eigh(np.cov(filters.reshape(40, -1).T))
    np.testing.assert_allclose(share, values[::-1][:5] / values.sum(), rtol=1e-9)
    dots = np.abs(components.reshape(5, -1) @ vectors[:, ::-1][:, :5])
    np.testing.assert_allclose(dots, np.eye(5), atol=1e-7)
    flat = components.reshape(5, -1)
    assert (flat[np.arange(5), np.abs(flat).argmax(axis=1)] > 0).all()


@pytest.mark.parametrize(
    ("name", "arguments", "weight", "shape"),
    [
        ("VisionTransformer", SMALL, "patch_embed.proj.weight", (24, 3, 8, 8)),
        (
            "R_ViT_tiny_patch16_224",
            {"img_size": 32, "embed_dim": 24, "depth": 1, "num_heads": 2},
            "patch_embed.backbone.conv.weight",
            (64, 3, 7, 7),
        ),
    ],
)
def test_filters_are_those_of_the_first_layer_over_the_image(name, arguments, weight, shape):
    found, filters = first_filters(create_model(name, **arguments))
    assert (found, filters.shape) == (weight, shape)


def test_filters_over_many_channels_are_refused():
    with pytest.raises(ConfigError, match="5 channels"):
        first_filters(create_model("VisionTransformer", **SMALL, in_chans=5))


@pytest.mark.parametrize(
    ("name", "arguments", "first"),
    [
        ("VisionTransformer", {}, 1),
        ("VisionTransformer", {"no_embed_class": True, "reg_tokens": 2}, 0),
        ("DeiT_tiny_distilled_patch16_224", {}, 2),
        ("iLLaMA_tiny_patch16_224", {}, 0),
    ],
)
def test_similarity_is_of_the_patches_and_not_of_other_tokens(name, arguments, first):
    model = create_model(name, **{**SMALL, "img_size": [16, 32], **arguments})
    positions = np.random.default_rng(1).normal(size=model.pos_embed.shape).astype(np.float32)
    model.pos_embed.set_value(positions)
    found = position_similarity(model)
    assert found.shape == (2, 4, 2, 4)
    a, b = positions[0, first + 1], positions[0, first + 6]
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert found[0, 1, 1, 2] == pytest.approx(cosine, abs=1e-6)
    np.testing.assert_allclose(found.reshape(8, 8).diagonal(), 1.0)


def test_tiles_of_a_wide_grid_fill_their_axes_beside_a_scale_as_tall(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(weights, "save_figure", lambda figure, path: seen.append(figure) or path)
    grid = np.random.default_rng(0).uniform(-1, 1, [4, 8, 4, 8])
    draw_positions(grid, tmp_path / "p.png", title="model")
    (figure,) = seen
    given = [axes.get_position(original=True).bounds for axes in figure.axes]
    for before, axes in zip(given, figure.axes):
        np.testing.assert_allclose(axes.get_position().bounds, before, atol=1e-3)


def test_pictures_of_weights_are_drawn(tmp_path):
    model = create_model("VisionTransformer", **SMALL)
    filters = draw_filters(*first_filters(model), tmp_path / "new" / "f.png", title="model\nfile")
    grid = np.random.default_rng(0).uniform(-1, 1, [20, 3, 20, 3])  # more rows than are drawn
    positions = draw_positions(grid, tmp_path / "p.png", title="model")
    for path in (filters, positions):
        image = cv2.imread(str(path))
        assert min(image.shape[:2]) > 300
        assert image.std() > 10


def test_that_all_filters_are_drawn_is_said(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(weights, "save_figure", lambda figure, path: seen.append(figure) or path)
    for count in (8, 80):
        filters = np.random.default_rng(0).normal(size=(count, 1, 2, 2))
        weights.draw_filters("proj", filters, tmp_path / "f.png", title="x")
    words = [[text.get_text() for text in figure.texts][-1] for figure in seen]
    assert words[0] == "All 8 filters, that of the largest norm first"
    assert words[1] == "The 56 filters of the largest norm, of 80"

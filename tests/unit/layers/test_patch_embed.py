"""Patches: their order, and what is said of images that do not fit."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from passl.layers.errors import InputShapeError, ModelArgumentError
from passl.layers.patch_embed import PatchEmbed


def test_tokens_are_patches_row_by_row_times_the_weight():
    layer = PatchEmbed((8, 12), 4, 3, 5)
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((5, 3, 4, 4)).astype("float32")
    bias = rng.standard_normal(5).astype("float32")
    layer.proj.weight.set_value(weight)
    layer.proj.bias.set_value(bias)
    x = rng.standard_normal((2, 3, 8, 12)).astype("float32")
    found = layer(paddle.to_tensor(x)).numpy()
    assert layer.grid_size == (2, 3)
    assert found.shape == (2, 6, 5)
    for index, (row, column) in enumerate(np.ndindex(2, 3)):
        patch = x[:, :, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4].reshape(2, -1)
        expected = patch @ weight.reshape(5, -1).T + bias
        np.testing.assert_allclose(found[:, index], expected, rtol=1e-4, atol=1e-5)


def test_border_that_fills_no_patch_goes_unseen_if_allowed():
    layer = PatchEmbed((10, 14), 4, 3, 5, ignore_border=True)
    layer.proj.weight.set_value(paddle.randn([5, 3, 4, 4]))
    x = paddle.randn([2, 3, 10, 14])
    assert layer.grid_size == (2, 3)
    inner = PatchEmbed((8, 12), 4, 3, 5)
    inner.set_state_dict(layer.state_dict())
    np.testing.assert_allclose(layer(x).numpy(), inner(x[:, :, :8, :12]).numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            [2, 3, 48, 48],
            "the images are 48x48 pixels and the model was built for 32x32; build it with "
            "img_size=48 (Model.img_size in a config), or resize the images",
        ),
        (
            [2, 3, 32, 48],
            "the images are 32x48 pixels and the model was built for 32x32; build it with "
            "img_size=[32, 48] (Model.img_size in a config), or resize the images",
        ),
        (
            [2, 1, 32, 32],
            "the images have 1 channels (shape [2, 1, 32, 32], read as [batch, channels, height, "
            "width]) and the model takes 3; build it with in_chans=1 (Model.in_chans in a config), "
            "or change the images",
        ),
        (
            [3, 32, 32],
            "the model takes a batch of images [batch, 3, 32, 32], and was given an array of shape "
            "[3, 32, 32]",
        ),
    ],
)
def test_images_of_another_shape_are_refused_with_what_to_type(shape: list[int], message: str):
    with pytest.raises(InputShapeError) as error:
        PatchEmbed((32, 32), 8, 3, 4)(paddle.zeros(shape))
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((100, 100), "img_size 100x100 is not a whole number of patches of 16 pixels; the nearest "
                     "size that is: img_size=96"),
        ((4, 30), "img_size 4x30 is not a whole number of patches of 16 pixels; the nearest size "
                  "that is: img_size=[16, 32]"),
    ],
)
def test_size_that_is_no_whole_number_of_patches_is_refused(size: tuple[int, int], message: str):
    with pytest.raises(ModelArgumentError) as error:
        PatchEmbed(size, 16, 3, 4)
    assert str(error.value) == message


def test_image_smaller_than_a_patch_is_refused_even_if_borders_are_ignored():
    with pytest.raises(ModelArgumentError, match="img_size 3x8 is not a whole number of patches"):
        PatchEmbed((3, 8), 4, 3, 5, ignore_border=True)

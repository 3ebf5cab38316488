"""Erased rectangles have the documented areas, shapes, places and contents."""

from __future__ import annotations

import math

import numpy as np
import pytest

from passl.data.transforms.erasing import RandomErasing
from passl.errors import ConfigError, DataError

TIMM = {"prob": 1.0, "max_area": 1 / 3, "attempts": 10, "use_log_aspect": True}


def test_a_rectangle_is_erased_and_the_rest_and_the_input_stay():
    image = np.random.default_rng(1).standard_normal((40, 50, 3)).astype(np.float32)
    before = image.copy()
    for seed in range(30):
        erased = RandomErasing(**TIMM, mode="pixel")(image, np.random.default_rng(seed))
        changed = (erased != before).all(axis=2)
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        assert changed.sum() == len(rows) * len(columns) > 0
        np.testing.assert_array_equal(erased[~changed], before[~changed])
        assert erased.dtype == np.float32
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("log", [False, True])
def test_areas_shapes_and_places_are_distributed_as_documented(log):
    op = RandomErasing(prob=1.0, max_area=0.1, attempts=10, use_log_aspect=log)
    rng, draws = np.random.default_rng(0), 4000
    boxes = [op.draw(1000, 1000, 1, rng) for _ in range(draws)]
    top, left, height, width = (np.array(numbers) for numbers in zip(*boxes))
    share = height * width / 1e6
    assert abs(share.mean() - 0.06) < 5 * 0.08 / math.sqrt(12 * draws)
    assert 0.0199 < share.min() < 0.021
    assert 0.099 < share.max() < 0.101
    aspect = np.log(height / width) if log else height / width
    low, high = (math.log(0.3), -math.log(0.3)) if log else (0.3, 1 / 0.3)
    assert abs(aspect.mean() - (low + high) / 2) < 5 * (high - low) / math.sqrt(12 * draws)
    assert low - 0.02 < aspect.min()
    assert aspect.max() < high + 0.02
    for place in (top / (1000 - height), left / (1000 - width)):
        assert abs(place.mean() - 0.5) < 5 / math.sqrt(12 * draws)


def test_the_probability_is_that_of_the_config():
    op, rng, image = RandomErasing(prob=0.25), np.random.default_rng(0), np.zeros((8, 8, 3))
    count = sum(op(image, rng) is not image for _ in range(4000))
    assert abs(count - 1000) < 5 * math.sqrt(4000 * 0.25 * 0.75)


def test_noise_is_standard_normal_by_pixel_or_by_channel():
    image = np.full((3, 200, 200), 9, np.float32)
    pixel = RandomErasing(**TIMM, mode="pixel")(image, np.random.default_rng(0))
    noise = pixel[pixel != 9]
    assert abs(noise.mean()) < 5 / math.sqrt(noise.size)
    assert abs(noise.std() - 1) < 5 / math.sqrt(2 * noise.size)
    rand, rng = RandomErasing(**TIMM, mode="rand"), np.random.default_rng(0)
    colours = []
    for _ in range(500):
        erased = rand(image, rng)
        new = [np.unique(channel[channel != 9]) for channel in erased]
        assert [len(values) for values in new] == [1, 1, 1]
        colours += [float(values[0]) for values in new]
    assert abs(np.mean(colours)) < 5 / math.sqrt(1500)
    assert abs(np.std(colours) - 1) < 5 / math.sqrt(2 * 1500)


@pytest.mark.parametrize("shape", [(20, 30, 3), (3, 20, 30)])
def test_channels_may_come_first_or_last(shape):
    image = np.ones(shape, np.float32)
    erased = RandomErasing(**TIMM)(image, np.random.default_rng(0))
    assert erased.shape == shape
    box = (erased == 0).all(axis=2 if shape[-1] == 3 else 0)
    assert box.sum() * 3 == (erased == 0).sum() > 0


def test_bytes_are_erased_with_a_colour_only():
    image = np.zeros((20, 20, 3), np.uint8)
    op = RandomErasing(**TIMM, mode="const", mean=[0.485, 0.456, 0.406])
    erased = op(image, np.random.default_rng(0))
    assert erased.dtype == np.uint8
    assert np.unique(erased.reshape(-1, 3), axis=0).tolist() == [[0, 0, 0], [124, 116, 104]]
    with pytest.raises(
        DataError, match="mode pixel fills with normalised noise, but the image is "
    ):
        RandomErasing(**TIMM, mode="pixel")(image, np.random.default_rng(0))


def test_several_rectangles_share_the_area():
    op = RandomErasing(prob=1.0, min_area=0.2, max_area=0.2, max_count=4, use_log_aspect=True)
    rng, image = np.random.default_rng(0), np.ones((100, 100, 3), np.float32)
    areas = [float((op(image, rng)[..., 0] == 0).mean()) for _ in range(200)]
    assert max(areas) < 0.21  # overlaps and misfits make it less, nothing makes it more
    assert min(areas) < 0.19 < max(areas)


def test_what_cannot_be_erased_is_refused():
    with pytest.raises(ConfigError, match=r"min_area is 0\.5 but max_area 0\.4"):
        RandomErasing(min_area=0.5)
    with pytest.raises(DataError, match=r"not on shape \[8, 8, 8\]"):
        RandomErasing(prob=1.0)(np.zeros((8, 8, 8)), np.random.default_rng(0))
    with pytest.raises(DataError, match="mean has 2 values but the image has 3 channels"):
        RandomErasing(prob=1.0, mean=[0.0, 1.0])(np.zeros((8, 8, 3)), np.random.default_rng(0))


def test_nothing_happens_if_nothing_fits():
    image = np.ones((8, 8, 3), np.float32)
    op = RandomErasing(prob=1.0, min_area=1.0, max_area=1.0, attempts=3)
    np.testing.assert_array_equal(op(image, np.random.default_rng(0)), image)

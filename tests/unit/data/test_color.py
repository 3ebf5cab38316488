"""Colour changes have Pillow's pixels and the distributions that are documented."""

from __future__ import annotations

import colorsys
import math
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from passl.data.transforms.color import (
    ColorJitter,
    GaussianBlur,
    RandomGrayscale,
    ThreeAugment,
    shift_hue,
)
from passl.errors import ConfigError


@pytest.fixture
def small(photo: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(photo[100:132, 200:240])


ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
}


@pytest.mark.parametrize("name", ENHANCERS)
@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
def test_a_fixed_factor_is_pillows(small, name, factor):
    jitter = ColorJitter(**{name: (factor, factor)})
    expected = np.asarray(ENHANCERS[name](Image.fromarray(small)).enhance(factor))
    np.testing.assert_array_equal(jitter(small, np.random.default_rng(0)), expected)


def test_turning_the_hue_is_a_turn_of_the_colour_circle():
    colours = [[(200, 50, 50), (50, 200, 50), (50, 50, 200), (90, 90, 90)]]
    turned = np.asarray(shift_hue(Image.fromarray(np.uint8(colours)), 1 / 3))
    for before, after in zip(colours[0], turned[0]):
        hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in before))
        expected = np.array(colorsys.hsv_to_rgb(hue + 1 / 3, saturation, value)) * 255
        np.testing.assert_allclose(after, expected, atol=4)  # Pillow's hue has 256 steps


def test_the_hue_wraps_around_to_both_sides(small):
    picture = Image.fromarray(small)
    hue = np.asarray(picture.convert("HSV"))[..., 0]
    for turn, steps in ((0.3, 76), (-0.3, -76), (0.5, 127), (-0.5, -127)):
        bands = list(picture.convert("HSV").split())
        bands[0] = Image.fromarray(((hue.astype(int) + steps) % 256).astype(np.uint8))
        expected = np.asarray(Image.merge("HSV", bands).convert("RGB"))
        np.testing.assert_array_equal(np.asarray(shift_hue(picture, turn)), expected)


def test_factors_are_uniform_and_the_order_is_random(monkeypatch):
    from passl.data.transforms import color

    seen: list[tuple[str, float]] = []

    def note(name: str):
        return lambda picture, factor: (seen.append((name, factor)), picture)[1]

    for name in color._CHANGES:
        monkeypatch.setitem(color._CHANGES, name, note(name))
    jitter = ColorJitter(brightness=0.4, contrast=1.5, saturation=(0.5, 0.6), hue=0.1)
    rng, image, draws = np.random.default_rng(0), np.zeros((2, 2, 3), np.uint8), 3000
    for _ in range(draws):
        jitter(image, rng)
    assert len(seen) == 4 * draws
    orders = Counter(tuple(name for name, _ in seen[i : i + 4]) for i in range(0, len(seen), 4))
    assert len(orders) == 24
    spread = math.sqrt(draws * (1 / 24) * (23 / 24))
    assert all(abs(count - draws / 24) < 5 * spread for count in orders.values())
    bounds = {"brightness": (0.6, 1.4), "contrast": (0, 2.5), "saturation": (0.5, 0.6)}
    for name, (low, high) in {**bounds, "hue": (-0.1, 0.1)}.items():
        factors = np.array([factor for other, factor in seen if other == name])
        assert low <= factors.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < factors.max() <= high
        error = (high - low) / math.sqrt(12 * draws)
        assert abs(factors.mean() - (low + high) / 2) < 5 * error


def test_what_is_not_asked_for_is_not_changed(small):
    np.testing.assert_array_equal(ColorJitter()(small, np.random.default_rng(0)), small)
    jitter, rng = ColorJitter(brightness=0.9, p=0.2), np.random.default_rng(0)
    changed = sum(jitter(small, rng) is not small for _ in range(2000))
    assert abs(changed - 400) < 5 * math.sqrt(2000 * 0.2 * 0.8)


def test_grey_is_pillows_with_its_probability(small):
    expected = np.asarray(Image.fromarray(small).convert("L"))
    grey = RandomGrayscale(p=1.0)(small, np.random.default_rng(0))
    np.testing.assert_array_equal(grey, np.repeat(expected[..., None], 3, axis=2))
    rng, some = np.random.default_rng(0), RandomGrayscale(p=0.3)
    count = sum(some(small, rng) is not small for _ in range(2000))
    assert abs(count - 600) < 5 * math.sqrt(2000 * 0.3 * 0.7)


def test_blur_is_pillows(small):
    blurred = GaussianBlur(sigma=(1.3, 1.3))(small, np.random.default_rng(0))
    expected = np.asarray(Image.fromarray(small).filter(ImageFilter.GaussianBlur(1.3)))
    np.testing.assert_array_equal(blurred, expected)


def test_three_augment_takes_one_of_three_and_jitters(small):
    rng, kinds = np.random.default_rng(0), Counter()
    grey = np.asarray(Image.fromarray(small).convert("L").convert("RGB"))
    solar = np.asarray(ImageOps.solarize(Image.fromarray(small)))
    plain = ThreeAugment(color_jitter=0.0)
    for _ in range(1200):
        image = plain(small, rng)
        kinds["grey" if (image == grey).all() else "solar" if (image == solar).all() else "b"] += 1
    assert len(kinds) == 3
    assert all(abs(count - 400) < 5 * math.sqrt(1200 * 2 / 9) for count in kinds.values())
    jittered = {ThreeAugment()(small, rng).tobytes() for _ in range(30)}
    assert len(jittered) == 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"brightness": (1.2, 0.8)}, "brightness is .*; its bounds must be in order and not neg"),
        ({"contrast": (-0.1, 1.0)}, "contrast is .*; its bounds must be in order and not negative"),
        ({"hue": (-0.6, 0.1)}, r"hue is .*; its bounds must be in order and inside \[-0.5, 0.5\]"),
    ],
)
def test_bounds_out_of_order_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=f"ColorJitter: {message}"):
        ColorJitter(**arguments)
    with pytest.raises(ConfigError, match="GaussianBlur: sigma is"):
        GaussianBlur(sigma=(2.0, 1.0))

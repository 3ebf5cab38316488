"""Transforms equal Pillow's pixels, follow their distributions, and refuse what they cannot do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from passl.data.resize import PIL_FILTERS, frame, resize
from passl.data.transforms.flip import RandFlipImage, RandomHorizontalFlip
from passl.data.transforms.normalize import NormalizeImage, ToCHWImage
from passl.data.transforms.random_crop import RandCropImage, RandomCrop, RandomResizedCrop
from passl.data.transforms.resizing import CenterCrop, CenterCropImage, Resize, ResizeImage
from passl.errors import ConfigError, DataError


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def pillow(image: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image))


# -- resizing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PIL_FILTERS)
@pytest.mark.parametrize("size", [(224, 224), (100, 300), (600, 900), (1, 7)])
def test_resizing_equals_pillow(photo, name, size):
    expected = np.asarray(pillow(photo).resize(size[::-1], PIL_FILTERS[name]))
    np.testing.assert_array_equal(resize(photo, *size, name, "pil"), expected)


def test_resizing_one_channel_keeps_its_axis(photo):
    grey = photo[:, :, :1]
    for backend in ("pil", "cv2"):
        assert resize(grey, 10, 20, "bilinear", backend).shape == (10, 20, 1)
    expected = np.asarray(pillow(photo[:, :, 0]).resize((20, 10), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(resize(grey, 10, 20, "bicubic", "pil")[..., 0], expected)


def test_opencv_backend_is_opencv(photo):
    import cv2

    expected = cv2.resize(photo, (200, 100), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(resize(photo, 100, 200, "bicubic", "cv2"), expected)


def test_resize_image_by_the_short_side(photo, rng):
    # 427 x 640 -> 256 x round(640 * 256 / 427) = 384
    image = ResizeImage(resize_short=256, interpolation="bicubic")(photo, rng)
    expected = pillow(photo).resize((384, 256), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(image, np.asarray(expected))
    upright = ResizeImage(resize_short=256)(photo.transpose(1, 0, 2), rng)
    assert upright.shape == (384, 256, 3)


def test_resize_image_to_a_size_is_bilinear_unless_told(photo, rng):
    expected = np.asarray(pillow(photo).resize((384, 384), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(ResizeImage(size=384)(photo, rng), expected)
    assert ResizeImage(size=[100, 200])(photo, rng).shape == (100, 200, 3)


@pytest.mark.parametrize("arguments", [{}, {"size": 8, "resize_short": 8}])
def test_resize_image_wants_one_of_size_and_resize_short(arguments):
    with pytest.raises(ConfigError, match="give either size or resize_short, and not both"):
        ResizeImage(**arguments)


def test_a_filter_the_backend_lacks_is_refused():
    with pytest.raises(ConfigError) as error:
        ResizeImage(size=8, interpolation="area")
    assert str(error.value) == (
        "ResizeImage: backend 'pil' has no interpolation 'area'; it has nearest, lanczos, "
        "bilinear, bicubic, box, hamming"
    )
    with pytest.raises(ConfigError, match="backend 'cv2' has no interpolation 'box'"):
        RandCropImage(size=8, interpolation="box", backend="cv2")


@pytest.mark.parametrize(
    ("size", "max_size", "shape"),
    [
        (256, None, (256, 383)),
        (256, 300, (200, 300)),
        ([100, 50], None, (100, 50)),
        ([64], None, (64, 95)),
    ],
)
def test_resize_rounds_the_long_side_down(photo, rng, size, max_size, shape):
    # 640 * 256 / 427 = 383.7; limited to 300: 256 * 300 / 383 = 200.5
    image = Resize(size=size, max_size=max_size)(photo, rng)
    assert image.shape[:2] == shape
    expected = np.asarray(pillow(photo).resize(shape[::-1], Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(image, expected)


def test_resizing_floats_is_refused(photo, rng):
    with pytest.raises(DataError, match="resize before NormalizeImage"):
        ResizeImage(size=8)(photo.astype(np.float32), rng)


@pytest.mark.parametrize("resizer", [ResizeImage(resize_short=256), Resize(size=256)])
def test_a_line_of_pixels_is_not_blown_up_to_gigabytes(rng, resizer):
    with pytest.raises(DataError, match="would become 256 x 15360000"):
        resizer(np.zeros((1, 60000, 3), np.uint8), rng)


# -- crops ---------------------------------------------------------------------------------------


def test_centre_crop_image_starts_at_the_rounded_down_half(photo, rng):
    image = CenterCropImage(size=[100, 201])(photo, rng)
    np.testing.assert_array_equal(image, photo[163:263, 219:420])  # 327 // 2, 439 // 2


def test_centre_crop_image_refuses_a_smaller_image(photo, rng):
    with pytest.raises(DataError) as error:
        CenterCropImage(size=224)(photo[:200], rng)
    assert str(error.value) == (
        "the image is 200 x 640 (height x width), smaller than the 224 x 224 of CenterCropImage; "
        "resize it before"
    )


def test_centre_crop_frames_a_smaller_image_in_black(rng):
    image = np.full((3, 10, 1), 7, np.uint8)
    cropped = CenterCrop(size=[6, 4])(image, rng)
    assert cropped.shape == (6, 4, 1)
    np.testing.assert_array_equal(cropped[:, 0, 0], [0, 7, 7, 7, 0, 0])


@pytest.mark.parametrize("shape", [(427, 640), (640, 427), (50, 400), (400, 50), (7, 7), (1, 1)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.5, 0.5), (1.0, 1.0)])
def test_random_crops_lie_inside_and_keep_to_scale_and_ratio(shape, scale):
    op, rng = RandCropImage(size=8, scale=scale), np.random.default_rng(1)
    height, width = shape
    for _ in range(300):
        top, left, h, w = op.draw(height, width, rng)
        assert 0 <= top <= top + h <= height
        assert 0 <= left <= left + w <= width
        assert h >= 1
        assert w >= 1
        fallback = (top, left) == ((height - h) // 2, (width - w) // 2)
        tolerance = 1.5 / min(h, w)  # both sides are rounded to pixels
        assert 0.75 * (1 - tolerance) <= w / h <= 4 / 3 * (1 + tolerance)
        if not fallback:
            assert scale[0] * (1 - 2 * tolerance) <= h * w / (height * width)
            assert h * w / (height * width) <= scale[1] * (1 + 2 * tolerance)


def test_the_ratio_is_log_uniform_and_the_area_uniform():
    op, rng = RandCropImage(size=8, scale=(0.08, 0.5)), np.random.default_rng(2)
    draws = np.array([op.draw(2000, 2000, rng) for _ in range(4000)], dtype=float)
    height, width = draws[:, 2], draws[:, 3]
    ratio = np.log(width / height) / math.log(4 / 3)
    area = (height * width / 4e6 - 0.08) / 0.42
    # Kolmogorov-Smirnov distance; 1.95 / sqrt(n) is the 0.1 % point.
    for values, low, high in ((ratio, -1, 1), (area, 0, 1)):
        uniform = (np.sort(values) - low) / (high - low)
        steps = np.arange(1, len(values) + 1) / len(values)
        assert np.abs(uniform - steps).max() < 1.95 / math.sqrt(len(values))
    # Position: uniform over what is free, both ends included.
    free = 2000 - draws[:, 2]
    assert abs((draws[:, 0] / free).mean() - 0.5) < 0.02


def test_both_ends_of_the_room_are_reached():
    op, rng = RandCropImage(size=8, scale=(0.25, 0.25), ratio=(1.0, 1.0)), np.random.default_rng(3)
    tops = {op.draw(4, 4, rng)[0] for _ in range(200)}
    assert tops == {0, 1, 2}


def test_random_crop_pixels_equal_pillows(photo, rng):
    op = RandCropImage(size=224, interpolation="bicubic")
    image = op(photo, np.random.default_rng(5))
    top, left, h, w = op.draw(427, 640, np.random.default_rng(5))
    expected = pillow(photo).crop((left, top, left + w, top + h)).resize((224, 224), 3)
    np.testing.assert_array_equal(image, np.asarray(expected))


def test_sizes_are_height_and_width(photo, rng):
    for op in (RandCropImage, RandomResizedCrop, RandomCrop, CenterCrop, CenterCropImage):
        assert op(size=[32, 64])(photo, rng).shape == (32, 64, 3)


def test_random_resized_crop_is_the_same_crop(photo):
    images = [
        op(size=32)(photo, np.random.default_rng(9)) for op in (RandCropImage, RandomResizedCrop)
    ]
    np.testing.assert_array_equal(*images)


def test_bounds_in_the_wrong_order_are_refused():
    with pytest.raises(ConfigError, match=r"RandCropImage: scale is \[1.0, 0.5\]; the lower bound"):
        RandCropImage(size=8, scale=(1.0, 0.5))


def test_padded_crop_reaches_every_place():
    image = np.arange(1, 5, dtype=np.uint8).reshape(2, 2, 1)
    op, rng = RandomCrop(size=2, padding=1, fill=9), np.random.default_rng(0)
    framed = np.pad(image, ((1, 1), (1, 1), (0, 0)), constant_values=9)
    wanted = {framed[y : y + 2, x : x + 2].tobytes() for y in range(3) for x in range(3)}
    assert {op(image, rng).tobytes() for _ in range(300)} == wanted


def test_padded_crop_refuses_a_smaller_image(rng):
    with pytest.raises(DataError, match="smaller than the 9 x 9 of RandomCrop"):
        RandomCrop(size=9, padding=1)(np.zeros((6, 20, 3), np.uint8), rng)


def test_frame_equals_numpy_pad(photo):
    part = photo[:5, :7]
    np.testing.assert_array_equal(
        frame(part, (1, 2), (3, 0), 5), np.pad(part, ((1, 2), (3, 0), (0, 0)), constant_values=5)
    )


# -- flip ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "axes"), [(1, 1), (0, 0), (-1, (0, 1))])
@pytest.mark.parametrize("channels", [1, 3])
def test_flip_mirrors_along_the_axis_of_its_code(photo, rng, code, axes, channels):
    image = photo[3:50, 5:40, :channels]  # not contiguous
    flipped = RandFlipImage(flip_code=code, prob=1.0)(image, rng)
    np.testing.assert_array_equal(flipped, np.flip(image, axes))


def test_flip_happens_as_often_as_asked():
    image = np.array([[[0], [1]]], dtype=np.uint8)
    for op, prob in (
        (RandFlipImage(), 0.5),
        (RandomHorizontalFlip(p=0.2), 0.2),
        (RandFlipImage(prob=0.0), 0),
    ):
        rng = np.random.default_rng(4)
        share = np.mean([op(image, rng)[0, 0, 0] for _ in range(4000)])
        assert abs(share - prob) <= 4 * math.sqrt(prob * (1 - prob) / 4000)


# -- normalize -----------------------------------------------------------------------------------


def by_formula(image: np.ndarray, scale: float, mean: list[float], std: list[float]) -> np.ndarray:
    return (image.astype(np.float64) * scale - np.array(mean)) / np.array(std)


@pytest.mark.parametrize("order", ["hwc", ""])
def test_normalize_follows_its_formula_with_imagenets_numbers(photo, rng, order):
    image = NormalizeImage(order=order)(photo, rng)
    assert image.dtype == np.float32
    expected = by_formula(photo, 1 / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    np.testing.assert_allclose(image, expected, atol=1e-6)


def test_the_table_gives_the_bits_of_the_arithmetic(photo, rng):
    op = NormalizeImage(mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6], order="hwc")
    by_table = op(photo, rng)
    mean, std = op.mean, op.std
    np.testing.assert_array_equal(by_table, (photo.astype(np.float32) * op.scale - mean) / std)


def test_normalize_with_channels_first_and_last_agree(photo, rng):
    last = NormalizeImage(mean=[0.5] * 3, std=[0.5] * 3, order="")(photo, rng)
    first = NormalizeImage(mean=0.5, std=0.5)(photo.transpose(2, 0, 1), rng)
    np.testing.assert_array_equal(last.transpose(2, 0, 1), first)


def test_normalize_one_channel_half_precision_and_a_fourth_channel(photo, rng):
    grey = NormalizeImage(mean=[0.5], std=[0.5], order="hwc", channel_num=1)(photo[..., :1], rng)
    np.testing.assert_allclose(grey, photo[..., :1] / 127.5 - 1.0, atol=1e-6)
    assert NormalizeImage(order="hwc", output_fp16=True)(photo, rng).dtype == np.float16
    four = NormalizeImage(order="hwc", channel_num=4)(photo, rng)
    assert four.shape == (427, 640, 4)
    assert (four[..., 3] == 0).all()


def test_normalize_refuses_another_number_of_channels(photo, rng):
    with pytest.raises(DataError) as error:
        NormalizeImage(order="hwc")(photo[..., :1], rng)
    assert str(error.value) == (
        "NormalizeImage: mean has 3 values but the image has 1 channels (order hwc); give one "
        "value or one a channel"
    )
    with pytest.raises(ConfigError, match="std must be above 0"):
        NormalizeImage(std=[0.0, 1.0, 1.0])


def test_to_chw_moves_the_channels(photo, rng):
    np.testing.assert_array_equal(ToCHWImage()(photo, rng)[1], photo[:, :, 1])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_mirrored_frame_is_numpys_reflection(channels):
    # torchvision's padding_mode "reflect" is numpy's: the border itself is not repeated.
    image = np.random.default_rng(0).integers(0, 256, (9, 11, channels), dtype=np.uint8)
    whole = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="reflect")
    op = RandomCrop(size=[17, 19], padding=4, padding_mode="reflect")
    np.testing.assert_array_equal(op(image, np.random.default_rng(0)), whole)
    parts = RandomCrop(size=5, padding=4, padding_mode="reflect")
    for seed in range(20):
        part = parts(image, np.random.default_rng(seed))
        windows = np.lib.stride_tricks.sliding_window_view(whole, (5, 5, channels))
        assert (windows == part).reshape(-1, part.size).all(1).any()


def test_an_image_too_small_to_be_mirrored_is_refused_in_words():
    op = RandomCrop(size=4, padding=4, padding_mode="reflect")
    with pytest.raises(DataError, match="too small to be mirrored 4 pixels wide"):
        op(np.zeros((4, 9, 3), np.uint8), np.random.default_rng(0))

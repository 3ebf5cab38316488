"""Which part of a picture a model sees, and maps laid over exactly that part."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from passl.errors import ConfigError, DataError
from passl.registry import TRANSFORMS
from passl.visualize.inputs import (
    Picture,
    Seen,
    blend,
    multiply,
    prepare,
    read_pictures,
    scale,
    spread,
)

_END = [{"name": "NormalizeImage", "order": "hwc"}, {"name": "ToCHWImage"}]


def _picture(height: int, width: int) -> Picture:
    pixels = np.random.default_rng(0).integers(0, 256, [height, width, 3], dtype=np.uint8)
    return Picture("x", "x.png", pixels)


def _transforms(*steps: dict) -> list:
    return [TRANSFORMS.build(step) for step in [*steps, *_END]]


@pytest.mark.parametrize(
    ("size", "steps", "box"),
    [
        # 224 of 256 pixels of the shorter side, in the middle
        (
            (300, 451),
            [
                {"name": "ResizeImage", "resize_short": 256},
                {"name": "CenterCropImage", "size": 224},
            ],
            (94, 19, 357, 281),
        ),
        ((120, 80), [{"name": "ResizeImage", "size": [64, 64]}], (0, 0, 80, 120)),
        ((8, 8), [], (0, 0, 8, 8)),
    ],
)
def test_the_part_that_is_seen_is_found_from_the_transforms(size, steps, box):
    picture = _picture(*size)
    seen = prepare(picture, _transforms(*steps))
    assert np.abs(np.subtract(seen.box, box)).max() <= 1
    np.testing.assert_array_equal(seen.image, picture.pixels)
    assert seen.input_chw.dtype == np.float32
    assert seen.input_chw.shape[0] == 3


def test_where_a_transform_turns_the_picture_the_map_is_drawn_on_what_is_seen():
    def quarter_turn(image, rng):
        return np.ascontiguousarray(np.rot90(image))

    picture = _picture(40, 60)
    seen = prepare(picture, [quarter_turn, *_transforms()])
    assert seen.box == (0, 0, 40, 60)
    np.testing.assert_array_equal(seen.image, np.rot90(picture.pixels))


def test_a_map_is_bilinear_over_its_largest_value_inside_the_box_only():
    grid = np.array([[1.0, 3.0], [2.0, 4.0], [0.0, 0.0]])
    seen = Seen(np.zeros([3, 6, 4], np.float32), np.zeros([12, 10, 3], np.uint8), (2, 3, 8, 12))
    heat = spread(grid, seen)
    np.testing.assert_allclose(heat[3:12, 2:8], cv2.resize((grid / 4).astype(np.float32), (6, 9)))
    outside = np.ones([12, 10], bool)
    outside[3:12, 2:8] = False
    assert np.isnan(heat[outside]).all()
    assert not np.isnan(heat[~outside]).any()


def test_pixels_that_fill_no_patch_are_not_covered_by_the_map():
    seen = Seen(np.zeros([3, 20, 20], np.float32), np.zeros([20, 20, 3], np.uint8), (0, 0, 20, 20))
    heat = spread(np.ones([2, 2]), seen, (0.8, 0.8))
    assert np.isnan(heat[16:]).all()
    assert np.isnan(heat[:, 16:]).all()
    assert (heat[:16, :16] == 1).all()


def test_one_outstanding_patch_does_not_hide_the_others_of_a_cut_map():
    grid = np.append(np.ones(99), 50.0)
    assert scale(grid)[0] == pytest.approx(0.02)
    assert scale(grid, 98)[0] == 1
    assert scale(np.zeros(4)).max() == 0


def test_times_the_picture_is_the_papers_overlay_and_unseen_parts_are_faded():
    image = np.full([2, 2, 3], 200, np.uint8)
    heat = np.array([[1.0, 0.5], [0.0, np.nan]], np.float32)
    np.testing.assert_array_equal(multiply(image, heat)[..., 0], [[200, 100], [0, 241]])
    coloured = blend(image, heat)
    assert coloured.dtype == np.uint8
    assert coloured[0, 0].astype(int).sum() > coloured[1, 0].astype(int).sum()
    np.testing.assert_array_equal(coloured[1, 1], [241] * 3)


def test_files_are_read_and_files_of_one_name_kept_apart(tmp_path):
    for folder, level in (("a", 10), ("b", 200)):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "cat.png"), np.full([4, 6, 3], level, np.uint8))
    files = [str(tmp_path / folder / "cat.png") for folder in "ab"]
    pictures = read_pictures(files, [], None, 3)
    assert [(p.name, p.pixels.shape, p.pixels[0, 0, 0]) for p in pictures] == [
        ("cat", (4, 6, 3), 10), ("cat_2", (4, 6, 3), 200),
    ]
    assert read_pictures(files[:1], [], None, 1)[0].pixels.shape == (4, 6, 1)


def test_what_is_no_picture_or_no_sample_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(DataError, match=r"notes\.txt: not an image"):
        read_pictures([str(tmp_path / "notes.txt")], [], None, 3)
    with pytest.raises(DataError, match=r"gone\.png: cannot be read"):
        read_pictures([str(tmp_path / "gone.png")], [], None, 3)
    with pytest.raises(ConfigError, match="samples 0 to 2"):
        read_pictures([], [3], [1, 2, 3], 3)

"""Sheets of pictures drawn with Pillow: which pixels are where."""

from __future__ import annotations

import numpy as np
import pytest

from passl.logs import sheet
from passl.logs.sheet import Caption, draw_pictures

CELL, GAP = sheet._CELL, sheet._GAP


def plain(colour, height=4, width=4):
    return np.full((height, width, 3), colour, np.uint8)


def test_pictures_stand_in_rows_wider_than_high():
    colours = [(10 * n + 10, 0, 0) for n in range(8)]
    drawn = draw_pictures([plain(colour) for colour in colours], [[Caption("x")]] * 8)
    assert drawn.dtype == np.uint8
    assert drawn.shape[1] > 1.4 * drawn.shape[0]
    seen = [tuple(pixel) for pixel in drawn[GAP + CELL // 2]]
    assert [colour for colour in colours if colour in seen] == colours[:4]


def test_small_pictures_keep_their_pixels():
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 1] = (255, 0, 0)
    drawn = draw_pictures([pixels], [[Caption("x")]])
    assert tuple(drawn[GAP + CELL // 4, GAP + CELL // 2 + 1]) == (255, 0, 0)
    assert tuple(drawn[GAP + CELL // 4, GAP + CELL // 2 - 1]) == (0, 0, 0)


def test_a_picture_keeps_its_shape():
    drawn = draw_pictures([plain((9, 9, 9), height=10, width=40)], [[Caption("x")]])
    rows = np.flatnonzero((drawn[:CELL, GAP + CELL // 2] == 9).all(axis=-1))
    assert len(rows) == CELL // 4


def test_captions_are_drawn_in_their_colour_and_never_over_the_next_picture():
    red, long = (250, 0, 0), "a name of a class that is much longer than the picture is wide " * 3
    captions = [[Caption(long, "98%", red)], [Caption("b", "1%")]]
    drawn = draw_pictures([plain((0, 0, 255))] * 2, captions).astype(int)
    is_red = (drawn[..., 0] > 200) & (drawn[..., 1] < 120)
    assert is_red.any()
    assert np.flatnonzero(is_red.any(axis=0)).max() < GAP + CELL
    first = draw_pictures([plain((0, 0, 255))] * 2, [[Caption("")], [Caption("b", "1%")]])
    np.testing.assert_array_equal(first[:, GAP + CELL + GAP :], drawn[:, GAP + CELL + GAP :])


@pytest.mark.parametrize("name", ["größe", "犬", "", "two\nlines", "no utf\udcff"])
def test_names_of_any_script_are_no_error(name, monkeypatch):
    draw_pictures([plain((1, 2, 3))], [[Caption(name)]])
    from PIL import ImageFont

    monkeypatch.setattr(sheet, "pillows_font", lambda _px: ImageFont.load_default_imagefont())
    draw_pictures([plain((1, 2, 3))], [[Caption(name)]])

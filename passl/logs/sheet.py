"""A sheet of small pictures with a line or two below each, drawn with Pillow alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from passl.logs.fonts import Pen, pillows_font

__all__ = ["Caption", "draw_pictures"]

_CELL, _GAP, _LINE = 120, 8, 17  # pixels
_FONT = 14
_SHAPE = 1.8  # width by height, as of the place that VisualDL has for a picture
_PAPER, _INK = (255, 255, 255), (20, 20, 20)


class Caption(NamedTuple):
    """A line below a picture.

    Attributes:
        text: is cut to the picture's width.
        value: to its right, such as ``98 %``.
        colour: red, green, blue, each 0..255.
    """

    text: str
    value: str = ""
    colour: tuple[int, int, int] = _INK


def draw_pictures(
    pictures: Sequence[np.ndarray], captions: Sequence[Sequence[Caption]]
) -> np.ndarray:
    """The sheet, wider than high.

    Args:
        pictures: uint8 [h, w, 3] of any size, at least one; small ones keep their pixels visible.
        captions: the lines of each.

    Returns:
        uint8 [H, W, 3].
    """
    tall = _CELL + _LINE * max(len(lines) for lines in captions) + 4
    columns = min(len(pictures), round(math.sqrt(_SHAPE * len(pictures) * tall / _CELL)))
    rows = math.ceil(len(pictures) / columns)
    size = (_GAP + columns * (_CELL + _GAP), _GAP + rows * (tall + _GAP))
    sheet = Image.new("RGB", size, _PAPER)
    pen = Pen(ImageDraw.Draw(sheet), _FONT, "a picture of the curves", pillows_font(_FONT))
    for number, (pixels, lines) in enumerate(zip(pictures, captions)):
        row, column = divmod(number, columns)
        left, top = _GAP + column * (_CELL + _GAP), _GAP + row * (tall + _GAP)
        picture = _fitted(pixels)
        place = (left + (_CELL - picture.width) // 2, top + (_CELL - picture.height) // 2)
        sheet.paste(picture, place)
        for line, caption in enumerate(lines):
            y = top + _CELL + 3 + line * _LINE
            width = pen.length(caption.value)
            text = pen.cut(caption.text, _CELL - (width + 6 if caption.value else 0))
            pen.write((left, y), text, caption.colour)
            pen.write((left + _CELL - width, y), caption.value, _INK)
    return np.asarray(sheet, dtype=np.uint8)


def _fitted(pixels: np.ndarray) -> Image.Image:
    height, width = pixels.shape[:2]
    scale = _CELL / max(height, width)
    method = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.BICUBIC
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return Image.fromarray(np.ascontiguousarray(pixels)).resize(size, method)

"""A sheet of small pictures with a line or two below each, drawn with Pillow alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["Caption", "draw_pictures"]

_CELL, _GAP, _LINE = 120, 8, 17  # pixels
_FONT = 14
_SHAPE = 1.8  # width by height, as of the place that VisualDL has for a picture
_ELLIPSIS = "..."
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
    pen, font = ImageDraw.Draw(sheet), _font()
    for number, (pixels, lines) in enumerate(zip(pictures, captions)):
        row, column = divmod(number, columns)
        left, top = _GAP + column * (_CELL + _GAP), _GAP + row * (tall + _GAP)
        picture = _fitted(pixels)
        place = (left + (_CELL - picture.width) // 2, top + (_CELL - picture.height) // 2)
        sheet.paste(picture, place)
        for line, caption in enumerate(lines):
            y = top + _CELL + 3 + line * _LINE
            value = _drawable(caption.value, font)
            room = _CELL - (pen.textlength(value, font=font) + 6 if value else 0)
            text = _cut(_drawable(caption.text, font), room, pen, font)
            pen.text((left, y), text, fill=caption.colour, font=font)
            if value:
                x = left + _CELL - pen.textlength(value, font=font)
                pen.text((x, y), value, fill=_INK, font=font)
    return np.asarray(sheet, dtype=np.uint8)


def _fitted(pixels: np.ndarray) -> Image.Image:
    height, width = pixels.shape[:2]
    scale = _CELL / max(height, width)
    method = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.BICUBIC
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return Image.fromarray(np.ascontiguousarray(pixels)).resize(size, method)


def _font() -> Any:
    """Pillow's own font; before Pillow 10.1, or without FreeType, that is one of a fixed size."""
    try:
        return ImageFont.load_default(_FONT)
    except (TypeError, ImportError, OSError):
        return ImageFont.load_default()


def _drawable(text: str, font: Any) -> str:
    """A line that can be drawn: no line ends; the font of a fixed size has Latin letters only."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    if isinstance(font, ImageFont.ImageFont):
        return text.encode("latin-1", "replace").decode("latin-1")
    return text


def _cut(text: str, room: float, pen: ImageDraw.ImageDraw, font: Any) -> str:
    if pen.textlength(text, font=font) <= room:
        return text
    while text and pen.textlength(text + _ELLIPSIS, font=font) > room:
        text = text[:-1]
    return text + _ELLIPSIS

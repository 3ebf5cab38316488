"""A contact sheet: pictures in rows, each with what it is taken for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from passl.checkpoint.disk import atomic_file
from passl.errors import ConfigError
from passl.export.predictor import Prediction

__all__ = ["MAX_PICTURES", "THUMBNAIL_PX", "check_sheet", "write_sheet"]

#: Side of the square a picture is fitted into, in pixels.
THUMBNAIL_PX = 160
#: More are left out: the sheet would be larger than viewers open.
MAX_PICTURES = 400
_GAP, _LINE_PX, _FONT_PX, _LINES = 12, 18, 13, 3
_INK, _FAINT, _BAR, _PAPER = (30, 30, 30), (120, 120, 120), (70, 130, 180), (255, 255, 255)
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def check_sheet(path: Path) -> None:
    """Refuse a name that cannot be written, before the work.

    Raises:
        ConfigError: no folder, or an ending of no picture format.
    """
    if path.suffix.lower() not in _FORMATS:
        raise ConfigError(f"--sheet {path}: its name must end in {', '.join(_FORMATS)}")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"--sheet {path}: the folder does not exist")


def write_sheet(path: Path, predictions: Sequence[Prediction]) -> None:
    """Draw the predictions that carry a thumbnail, in their order.

    Args:
        path: a .png, .jpg or .webp file.
        predictions: at least one; from the :data:`MAX_PICTURES`-th on they are left out.
    """
    from PIL import Image, ImageDraw

    shown = [item for item in predictions if item.thumbnail is not None][:MAX_PICTURES]
    columns = max(1, min(8, math.ceil(math.sqrt(len(shown) * 1.5))))
    rows = math.ceil(len(shown) / columns)
    cell = (THUMBNAIL_PX + _GAP, THUMBNAIL_PX + _LINES * _LINE_PX + 2 * _GAP)
    sheet = Image.new("RGB", (columns * cell[0] + _GAP, rows * cell[1] + _GAP), _PAPER)
    draw, font = ImageDraw.Draw(sheet), _font()
    for position, prediction in enumerate(shown):
        left = _GAP + position % columns * cell[0]
        top = _GAP + position // columns * cell[1]
        picture = Image.fromarray(prediction.thumbnail)
        room = (THUMBNAIL_PX - picture.width) // 2, (THUMBNAIL_PX - picture.height) // 2
        sheet.paste(picture, (left + room[0], top + room[1]))
        _caption(draw, font, prediction, left, top + THUMBNAIL_PX + 4)
    with atomic_file(path) as file:
        sheet.save(_Binary(file), format=_FORMATS[path.suffix.lower()])


def _caption(draw: Any, font: Any, prediction: Prediction, left: int, top: int) -> None:
    """Its name, and the two likeliest classes over bars as long as they are likely."""
    draw.text((left, top), _fitted(draw, font, Path(prediction.source).name), _FAINT, font=font)
    for row, guess in enumerate(prediction.top[: _LINES - 1], start=1):
        y = top + row * _LINE_PX
        share = f"{100 * guess.probability:.1f}%"
        room = THUMBNAIL_PX - draw.textlength(share, font=font) - 6
        draw.text((left, y), _fitted(draw, font, guess.name, room), _INK, font=font)
        draw.text(
            (left + THUMBNAIL_PX - draw.textlength(share, font=font), y), share, _INK, font=font
        )
        width = round(THUMBNAIL_PX * guess.probability)
        draw.line([(left, y + _LINE_PX - 2), (left + width, y + _LINE_PX - 2)], _BAR, width=2)


def _fitted(draw: Any, font: Any, text: str, room: float = THUMBNAIL_PX) -> str:
    """``text``, cut with an ellipsis if it is wider than ``room`` pixels."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    if draw.textlength(text, font=font) <= room:
        return text
    while text and draw.textlength(text + "...", font=font) > room:
        text = text[:-1]
    return text + "..."


def _font() -> Any:
    """A font that draws most letters: matplotlib's if it is there, else Pillow's own."""
    from PIL import ImageFont

    try:
        import matplotlib

        file = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
        return ImageFont.truetype(str(file), _FONT_PX)
    except (ImportError, OSError):
        return ImageFont.load_default()


class _Binary:
    """What Pillow asks of a file, over one that hashes what passes."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        self._file.write(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

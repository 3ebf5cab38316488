"""A contact sheet: pictures in rows, each with what it is taken for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from passl.checkpoint.disk import atomic_file
from passl.errors import ConfigError
from passl.export.predictor import Prediction
from passl.logs.fonts import Pen, drawable

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
    pen = Pen(ImageDraw.Draw(sheet), _FONT_PX, str(path))
    for position, prediction in enumerate(shown):
        left = _GAP + position % columns * cell[0]
        top = _GAP + position // columns * cell[1]
        picture = Image.fromarray(prediction.thumbnail)
        room = (THUMBNAIL_PX - picture.width) // 2, (THUMBNAIL_PX - picture.height) // 2
        sheet.paste(picture, (left + room[0], top + room[1]))
        _caption(pen, prediction, left, top + THUMBNAIL_PX + 4)
    with atomic_file(path) as file:
        sheet.save(_Binary(file), format=_FORMATS[path.suffix.lower()])


def _caption(pen: Pen, prediction: Prediction, left: int, top: int) -> None:
    """Its name, and the two likeliest classes over bars as long as they are likely."""
    pen.write((left, top), pen.cut(Path(prediction.source).name, THUMBNAIL_PX), _FAINT)
    for row, guess in enumerate(prediction.top[: _LINES - 1], start=1):
        y = top + row * _LINE_PX
        share = f"{100 * guess.probability:.1f}%"
        width = pen.length(share)
        name = drawable(guess.name, f"class {guess.label}", pen.where)
        pen.write((left, y), pen.cut(name, THUMBNAIL_PX - width - 6), _INK)
        pen.write((left + THUMBNAIL_PX - width, y), share, _INK)
        pen.bar((left, y + _LINE_PX - 2), round(THUMBNAIL_PX * guess.probability), _BAR)


class _Binary:
    """What Pillow asks of a file, over one that hashes what passes."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        self._file.write(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

"""Real photographs and small image files for the tests of the data path."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A real photograph: uint8 [427, 640, 3]."""
    from sklearn.datasets import load_sample_image

    return np.array(load_sample_image("china.jpg"))


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """Array -> bytes of an image file, by Pillow."""

    def to_bytes(image: np.ndarray, kind: str = "JPEG", mode: str = "", **options: object) -> bytes:
        buffer = io.BytesIO()
        picture = Image.fromarray(image)
        (picture.convert(mode) if mode else picture).save(buffer, kind, **options)
        return buffer.getvalue()

    return to_bytes


@pytest.fixture
def image_tree(tmp_path: Path, photo: np.ndarray, encode: Callable[..., bytes]) -> Path:
    """Twelve 48 x 40 JPEG files in three classes, with a list: ``images/`` and ``list.txt``."""
    lines = []
    for label, name in enumerate(("cat", "dog", "emu")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(4):
            top, left = 80 * label, 100 * number
            file = f"{name}/img {number}.jpg"
            part = np.ascontiguousarray(photo[top : top + 40, left : left + 48])
            (tmp_path / "images" / file).write_bytes(encode(part, quality=90))
            lines.append(f"{file} {label}")
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n")
    return tmp_path

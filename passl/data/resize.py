"""Cropping and resizing of uint8 images, by Pillow (exact) or OpenCV (quick)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

import numpy as np

from passl.data.images import opencv
from passl.errors import ConfigError, DataError

__all__ = [
    "PIL_FILTERS",
    "check_resampling",
    "crop",
    "frame",
    "height_and_width",
    "resize",
    "resize_padded",
]

#: Names of Pillow's filters, all of them antialiased when shrinking except ``nearest``.
PIL_FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
_OPENCV_FILTERS = {
    "nearest": "INTER_NEAREST",
    "bilinear": "INTER_LINEAR",
    "bicubic": "INTER_CUBIC",
    "lanczos": "INTER_LANCZOS4",
    "area": "INTER_AREA",
}
_PIL_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
#: Pixels of the largest result: as many as Pillow decodes.
_MOST_PIXELS = 178_956_970


def height_and_width(size: Union[int, Sequence[int]]) -> tuple[int, int]:
    """``size`` as (height, width): an int is a square, a pair is taken in this order."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return int(height), int(width)


def check_resampling(owner: str, interpolation: str, backend: str) -> None:
    """Raise ConfigError unless ``backend`` has the filter ``interpolation``."""
    known = PIL_FILTERS if backend == "pil" else _OPENCV_FILTERS
    if interpolation not in known:
        raise ConfigError(
            f"{owner}: backend {backend!r} has no interpolation {interpolation!r}; it has "
            f"{', '.join(known)}"
        )


def crop(image: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """A view of uint8 [height, width, C] within ``image`` [H, W, C]."""
    return image[top : top + height, left : left + width]


def frame(
    image: np.ndarray, vertical: tuple[int, int], horizontal: tuple[int, int], fill: int = 0
) -> np.ndarray:
    """A copy of [H, W, C] with a frame: (above, below) and (left, right) pixels wide.

    numpy.pad does the same, but takes ten times as long on small images.
    """
    (above, below), (left, right) = vertical, horizontal
    height, width, channels = image.shape
    shape = (height + above + below, width + left + right, channels)
    framed = np.full(shape, fill, dtype=image.dtype)
    framed[above : above + height, left : left + width] = image
    return framed


def resize(
    image: np.ndarray, height: int, width: int, interpolation: str, backend: str
) -> np.ndarray:
    """Resize uint8 [H, W, C], C 1, 3 or 4, to [height, width, C].

    Args:
        image: the image or a view of a part; it is treated as if nothing were around it.
        height, width: size wanted, in pixels.
        interpolation: a filter that ``backend`` has.
        backend: ``pil``, or ``cv2`` (whose filters are not antialiased, ``area`` excepted).

    Raises:
        DataError: not a uint8 image, or the result would be huge, as of a line that is one pixel
            wide when its short side is to become 256.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in _PIL_MODES:
        raise DataError(
            f"an image of type {image.dtype} and shape {image.shape} cannot be resized; resize "
            "before NormalizeImage and ToCHWImage, on uint8 [H, W, C]"
        )
    if image.shape[:2] == (height, width):
        return image
    if height * width > _MOST_PIXELS:
        raise DataError(
            f"the image is {image.shape[0]} x {image.shape[1]} (height x width) and would become "
            f"{height} x {width}, which takes too much memory; leave it out, or resize to a fixed "
            "size"
        )
    channels = image.shape[2]
    if backend == "cv2":
        cv2 = opencv()
        flag = getattr(cv2, _OPENCV_FILTERS[interpolation])
        resized = cv2.resize(image, (width, height), interpolation=flag)
    else:
        from PIL import Image

        plain = image[:, :, 0] if channels == 1 else image
        picture = Image.fromarray(np.ascontiguousarray(plain))
        resized = np.asarray(picture.resize((width, height), PIL_FILTERS[interpolation]))
    return resized.reshape(height, width, channels)


def resize_padded(part: np.ndarray, height: int, width: int, interpolation: str) -> np.ndarray:
    """Pillow's resize of an RGB image that lies in memory as Pillow keeps it.

    Args:
        part: uint8 [H, W, 4], whose last channel has no meaning; rows may lie apart, and behind the
            last one is room for another.
        height, width: size wanted, in pixels.
        interpolation: one of :data:`PIL_FILTERS`.

    Returns:
        uint8 [height, width, 3], the same as :func:`resize` gives for the first three channels.
    """
    from PIL import Image

    rows, columns, _ = part.shape
    pitch = part.strides[0]
    # Rows and what lies between them; copied once, by rows, where three channels are spread out.
    data = np.lib.stride_tricks.as_strided(part, (rows * pitch,), (1,), writeable=False)
    picture = Image.frombytes("RGB", (columns, rows), data, "raw", "RGBX", pitch, 1)
    return np.asarray(picture.resize((width, height), PIL_FILTERS[interpolation]))

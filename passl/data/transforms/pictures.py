"""Between arrays and Pillow's pictures, for the transforms whose pixels are Pillow's."""

from __future__ import annotations

import numpy as np
from PIL import Image

from passl.errors import DataError

__all__ = ["to_array", "to_picture"]


def to_picture(image: np.ndarray, owner: str) -> Image.Image:
    """uint8 [H, W, 3] -> an RGB picture.

    Args:
        image: the pixels.
        owner: the transform that asks, for the message.

    Raises:
        DataError: the image is of another type or has other channels.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(
            f"{owner} works on uint8 RGB images [H, W, 3], not on {image.dtype} of shape "
            f"{list(image.shape)}; put it after DecodeImage and before NormalizeImage and "
            "ToCHWImage"
        )
    return Image.fromarray(np.ascontiguousarray(image))


def to_array(picture: Image.Image) -> np.ndarray:
    """An RGB picture -> uint8 [H, W, 3], read-only."""
    return np.asarray(picture)

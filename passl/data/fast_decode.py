"""The quick way from a JPEG file to a random crop: decode no more than the crop needs.

Where a chain of transforms begins with ``DecodeImage`` and ``RandCropImage`` (or
``RandomResizedCrop``), the box is drawn before the pixels are there, from the size in the file's
header and by the same draws, so it is the same box.  Then only the box is decoded, where
:mod:`passl.data.turbojpeg` can: the same pixels, so that is done with ``loader.exact`` too.
Without ``loader.exact``, in training,

- libjpeg decodes at a half, quarter or eighth of the size if the crop is still at least as large
  as the result (:func:`reduction`);
- OpenCV resizes, in the way that comes close to Pillow's antialiased filters at that scale
  (:func:`fast_resize`).

``benchmarks/data_loading.py`` measures how far that is from the exact chain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Union

import numpy as np

from passl.data import turbojpeg
from passl.data.images import decode, decode_reduced, jpeg_size
from passl.data.resize import crop, resize, resize_padded
from passl.data.transforms.decode import DecodeImage
from passl.data.transforms.random_crop import RandCropImage, RandomResizedCrop

__all__ = ["FastDecodeAndCrop", "fast_resize", "reduction", "with_fast_decoding"]

_FILTERS = ("bilinear", "bicubic")
_FACTORS = (8, 4, 2)
# Scales (source side / result side) up to which a way of resizing is taken; see fast_resize.
_STILL_ITSELF, _SMOOTHER, _BY_DOUBLE = 1.1, 1.5, 2.4


def with_fast_decoding(transforms: Sequence[Any], exact: bool = False) -> list[Any]:
    """The chain with its first two transforms made one, or as it is where that cannot be done.

    Args:
        transforms: a chain.
        exact: leave every pixel as it is.
    """
    chain = list(transforms)
    if len(chain) < 2 or type(chain[0]) is not DecodeImage or chain[0].channel_first:
        return chain
    if type(chain[1]) not in (RandCropImage, RandomResizedCrop):
        return chain
    exact = exact or chain[1].interpolation not in _FILTERS
    return [FastDecodeAndCrop(chain[0], chain[1], exact), *chain[2:]]


def reduction(box: tuple[int, int], target: tuple[int, int]) -> int:
    """The greatest of 8, 4, 2, 1 by which ``box`` still covers ``target``; (height, width) each."""
    for factor in _FACTORS:
        if box[0] // factor >= target[0] and box[1] // factor >= target[1]:
            return factor
    return 1


class FastDecodeAndCrop:
    """``DecodeImage`` and ``RandCropImage`` in one: the same box, all or nearly the same pixels.

    Anything that is not a plain JPEG goes through the two as they are.

    Args:
        decoder: the first transform of the chain.
        cropper: the second.
        exact: decode at full size, and resize as ``cropper`` does.
    """

    #: Tells the data set to hand over the bytes as they are.
    decodes = True

    def __init__(self, decoder: DecodeImage, cropper: RandCropImage, exact: bool = False) -> None:
        self.decoder, self.cropper, self.exact = decoder, cropper, exact

    def __call__(self, image: Union[bytes, np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """Bytes -> uint8 [h, w, 3]."""
        size = jpeg_size(image) if isinstance(image, bytes) else None
        if size is None or not isinstance(image, bytes) or 0 in size:
            return self.cropper(self.decoder(image, rng), rng)
        box, cropper = self.cropper.draw(*size, rng), self.cropper
        height, width = cropper.size
        if self.exact and cropper.backend == "pil" and box[2:] != cropper.size:
            padded = turbojpeg.decode_region(image, box, channels=4)
            if padded is not None:
                part = resize_padded(padded, height, width, cropper.interpolation)
                return part if self.decoder.to_rgb else part[:, :, ::-1]
        part = _decode_part(image, box, 1 if self.exact else reduction(box[2:], cropper.size))
        if part.shape[:2] == (height, width):
            part = part.copy()  # its memory is written to again
        elif self.exact or cropper.backend == "cv2":
            part = resize(part, height, width, cropper.interpolation, cropper.backend)
        else:
            part = fast_resize(part, height, width, cropper.interpolation)
        return part if self.decoder.to_rgb else part[:, :, ::-1]


def fast_resize(part: np.ndarray, height: int, width: int, interpolation: str) -> np.ndarray:
    """Resize uint8 [H, W, 3] by OpenCV, close to Pillow's ``bilinear`` or ``bicubic``.

    OpenCV's filters look at as many pixels when they shrink as when they grow, so they alone alias.
    Which of its ways is closest to Pillow's, and still quick, was measured at each scale.
    """
    shrink = math.sqrt(part.shape[0] * part.shape[1] / (height * width))
    if shrink <= _STILL_ITSELF:
        return resize(part, height, width, interpolation, "cv2")
    if interpolation == "bicubic" and shrink <= _SMOOTHER:
        return resize(part, height, width, "bilinear", "cv2")
    if shrink <= _BY_DOUBLE:
        # Interpolated at twice the size, then the mean of each 2 x 2, for which OpenCV is quick;
        # its mean over fractional areas takes two to three times as long.
        double = resize(part, 2 * height, 2 * width, "bilinear", "cv2")
        return resize(double, height, width, "area", "cv2")
    return resize(part, height, width, "area", "cv2")


def _decode_part(data: bytes, box: tuple[int, int, int, int], factor: int) -> np.ndarray:
    """The box of the full image, decoded ``factor`` times smaller; it may not outlive the call."""
    reduced = _reduced(box, factor)
    part = turbojpeg.decode_region(data, reduced, factor)
    if part is not None:
        return part
    pixels = decode_reduced(data, factor)
    return crop(decode(data), *box) if pixels is None else crop(pixels, *reduced)


def _reduced(box: tuple[int, int, int, int], factor: int) -> tuple[int, int, int, int]:
    """The box within an image that is ``factor`` times smaller."""
    if factor == 1:
        return box
    top, left, height, width = box
    ends = round((top + height) / factor), round((left + width) / factor)
    top, left = round(top / factor), round(left / factor)
    return top, left, ends[0] - top, ends[1] - left

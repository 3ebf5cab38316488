"""Resizing to a size or by the short side, and the crop from the centre that follows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Optional, Union

import numpy as np

from passl.data.resize import check_resampling, crop, frame, height_and_width, resize
from passl.errors import ConfigError, DataError
from passl.registry import TRANSFORMS, Range


@TRANSFORMS.register()
class ResizeImage:
    """Resize to ``size``, or so that the short side is ``resize_short``.

    ``size`` may change the aspect ratio. With ``resize_short`` both sides become
    ``round(side * resize_short / short side)``.

    Args:
        size: side of a square, or [height, width], in pixels.
        resize_short: length of the short side, in pixels. Give one of the two.
        interpolation: filter; none given means bilinear.
        backend: ``pil`` (antialiased; the default here, PASSL's is cv2) or ``cv2``.

    Source: PASSL's ``ResizeImage``.
    """

    def __init__(
        self,
        *,
        size: Optional[
            Union[Annotated[int, Range(min=1)], list[Annotated[int, Range(min=1)]]]
        ] = None,
        resize_short: Optional[Annotated[int, Range(min=1)]] = None,
        interpolation: Optional[
            Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming", "area"]
        ] = None,
        backend: Literal["pil", "cv2"] = "pil",
    ) -> None:
        if (size is None) == (resize_short is None):
            raise ConfigError("ResizeImage: give either size or resize_short, and not both")
        self.size = None if size is None else _pair("ResizeImage", size)
        self.resize_short = resize_short
        self.interpolation, self.backend = interpolation or "bilinear", backend
        check_resampling("ResizeImage", self.interpolation, backend)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # noqa: ARG002
        """uint8 [H, W, C] -> uint8 [h, w, C]."""
        height, width = image.shape[:2]
        if self.size is not None:
            height, width = self.size
        elif self.resize_short is not None:
            scale = self.resize_short / min(height, width)
            height, width = round(height * scale), round(width * scale)
        return resize(image, height, width, self.interpolation, self.backend)


@TRANSFORMS.register()
class Resize:
    """Resize the short side to an int ``size`` (the long side rounded down), or to [height, width].

    Args:
        size: length of the short side, or [height, width], in pixels.
        interpolation: filter.
        max_size: longest side allowed; needs an int ``size``.
        backend: ``pil`` (antialiased) or ``cv2``.

    Source: torchvision.transforms.Resize.
    """

    def __init__(
        self,
        *,
        size: Union[Annotated[int, Range(min=1)], list[Annotated[int, Range(min=1)]]],
        interpolation: Literal[
            "nearest", "bilinear", "bicubic", "lanczos", "box", "hamming", "area"
        ] = "bilinear",
        max_size: Optional[Annotated[int, Range(min=1)]] = None,
        backend: Literal["pil", "cv2"] = "pil",
    ) -> None:
        if not isinstance(size, int) and len(size) == 1:
            size = size[0]
        self.size = size if isinstance(size, int) else _pair("Resize", size)
        if max_size is not None and not (isinstance(size, int) and max_size > size):
            raise ConfigError(
                f"Resize: max_size ({max_size}) needs a single number as size, and a smaller one; "
                f"size is {size}"
            )
        self.max_size, self.interpolation, self.backend = max_size, interpolation, backend
        check_resampling("Resize", interpolation, backend)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # noqa: ARG002
        """uint8 [H, W, C] -> uint8 [h, w, C]."""
        if isinstance(self.size, tuple):
            height, width = self.size
        else:
            height, width = self._by_short_side(self.size, *image.shape[:2])
        return resize(image, height, width, self.interpolation, self.backend)

    def _by_short_side(self, short: int, height: int, width: int) -> tuple[int, int]:
        long = int(short * max(height, width) / min(height, width))
        if self.max_size is not None and long > self.max_size:
            short, long = int(self.max_size * short / long), self.max_size
        return (short, long) if height <= width else (long, short)


@TRANSFORMS.register()
class CenterCropImage:
    """Cut ``size`` from the centre; the start is rounded down, as in PASSL.

    An image smaller than ``size`` is an error: a batch could not be made of it.

    Args:
        size: side of a square, or [height, width], in pixels.
    """

    def __init__(
        self, *, size: Union[Annotated[int, Range(min=1)], list[Annotated[int, Range(min=1)]]]
    ) -> None:
        self.size = _pair("CenterCropImage", size)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # noqa: ARG002
        """uint8 [H, W, C] -> a view [h, w, C]."""
        (height, width), (full_height, full_width) = self.size, image.shape[:2]
        if full_height < height or full_width < width:
            raise DataError(
                f"the image is {full_height} x {full_width} (height x width), smaller than the "
                f"{height} x {width} of CenterCropImage; resize it before"
            )
        return crop(image, (full_height - height) // 2, (full_width - width) // 2, height, width)


@TRANSFORMS.register()
class CenterCrop:
    """Cut ``size`` from the centre; a smaller image is first framed in black.

    Args:
        size: side of a square, or [height, width], in pixels.

    Source: torchvision.transforms.CenterCrop (start rounded to even halves).
    """

    def __init__(
        self, *, size: Union[Annotated[int, Range(min=1)], list[Annotated[int, Range(min=1)]]]
    ) -> None:
        self.size = _pair("CenterCrop", size)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # noqa: ARG002
        """uint8 [H, W, C] -> [h, w, C]."""
        height, width = self.size
        short_of = [max(want - have, 0) for want, have in zip(self.size, image.shape[:2])]
        if any(short_of):
            vertical, horizontal = ((gap // 2, (gap + 1) // 2) for gap in short_of)
            image = frame(image, vertical, horizontal)
        top = round((image.shape[0] - height) / 2.0)
        left = round((image.shape[1] - width) / 2.0)
        return crop(image, top, left, height, width)


def _pair(owner: str, size: Union[int, Sequence[int]]) -> tuple[int, int]:
    if not isinstance(size, int) and len(size) != 2:
        raise ConfigError(f"{owner}: size must be one number or [height, width], not {list(size)}")
    return height_and_width(size)

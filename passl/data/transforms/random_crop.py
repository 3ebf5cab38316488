"""Random crops: the resized one of ImageNet recipes and the padded one of small images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Union

import numpy as np

from passl.data.images import opencv
from passl.data.resize import check_resampling, crop, frame, height_and_width, resize
from passl.errors import ConfigError, DataError
from passl.registry import TRANSFORMS, Range

_ATTEMPTS = 10


@TRANSFORMS.register()
class RandCropImage:
    """Crop a random part of the area, at a random aspect ratio, and resize it to ``size``.

    The share of the area is uniform in ``scale``; the aspect ratio (width / height) is log-uniform
    in ``ratio``, so that 3/4 is as likely as 4/3. A crop that does not fit is drawn again, up to
    ten times; then the largest central crop with a ratio inside ``ratio`` is taken.

    PASSL draws the square root of the ratio uniformly, which favours wide crops, and limits the
    area so that the first draw always fits, which makes the crops of elongated images smaller.

    Args:
        size: side of a square, or [height, width], of the result in pixels.
        scale: least and greatest share of the area, inside (0, 1].
        ratio: least and greatest width / height.
        interpolation: filter.
        backend: ``pil`` (antialiased; the default here, PASSL's is cv2) or ``cv2``.

    Source: C. Szegedy et al., "Going Deeper with Convolutions", arXiv:1409.4842, section 6;
    the algorithm of torchvision.transforms.RandomResizedCrop.
    """

    def __init__(
        self,
        *,
        size: Union[Annotated[int, Range(min=1)], list[Annotated[int, Range(min=1)]]],
        scale: tuple[
            Annotated[float, Range(0, 1, min_open=True)],
            Annotated[float, Range(0, 1, min_open=True)],
        ] = (0.08, 1.0),
        ratio: tuple[
            Annotated[float, Range(min=0, min_open=True)],
            Annotated[float, Range(min=0, min_open=True)],
        ] = (0.75, 1.3333333333333333),
        interpolation: Literal[
            "nearest", "bilinear", "bicubic", "lanczos", "box", "hamming", "area"
        ] = "bilinear",
        backend: Literal["pil", "cv2"] = "pil",
    ) -> None:
        name = type(self).__name__
        _check_order(name, "scale", scale)
        _check_order(name, "ratio", ratio)
        check_resampling(name, interpolation, backend)
        self.size, self.scale, self.ratio = height_and_width(size), scale, ratio
        self.interpolation, self.backend = interpolation, backend

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, C] -> uint8 [h, w, C]."""
        part = crop(image, *self.draw(image.shape[0], image.shape[1], rng))
        return resize(part, self.size[0], self.size[1], self.interpolation, self.backend)

    def draw(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Top, left, height and width of a random crop of an image of ``height`` x ``width``."""
        area = height * width
        log_low, log_high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(_ATTEMPTS):
            target = area * rng.uniform(self.scale[0], self.scale[1])
            ratio = math.exp(rng.uniform(log_low, log_high))
            w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
            if 0 < w <= width and 0 < h <= height:
                top = int(rng.integers(0, height - h, endpoint=True))
                left = int(rng.integers(0, width - w, endpoint=True))
                return top, left, h, w
        return self._central(height, width)

    def _central(self, height: int, width: int) -> tuple[int, int, int, int]:
        low, high = self.ratio
        h, w = height, width
        if width / height < low:
            h = max(1, min(height, round(width / low)))
        elif width / height > high:
            w = max(1, min(width, round(height * high)))
        return (height - h) // 2, (width - w) // 2, h, w


@TRANSFORMS.register()
class RandomResizedCrop(RandCropImage):
    """The same crop as ``RandCropImage``, under torchvision's name.

    Args:
        size: side of a square, or [height, width], of the result in pixels.
        scale: least and greatest share of the area, inside (0, 1].
        ratio: least and greatest width / height.
        interpolation: filter.
        backend: ``pil`` (antialiased) or ``cv2``.

    Source: torchvision.transforms.RandomResizedCrop.
    """


@TRANSFORMS.register()
class RandomCrop:
    """Cut ``size`` at a random place, after adding ``padding`` on all sides.

    Args:
        size: side of a square, or [height, width], in pixels.
        padding: width of the frame added first, in pixels.
        fill: grey value of the frame, 0..255.
        padding_mode: ``constant``, a frame of ``fill``; or ``reflect``, the image mirrored at its
            border without the border itself (as DeiT III's "simple random crop" has it).

    Source: torchvision.transforms.RandomCrop; the augmentation of K. He et al., "Deep Residual
    Learning", arXiv:1512.03385, section 4.2.
    """

    def __init__(
        self,
        *,
        size: Union[Annotated[int, Range(min=1)], list[Annotated[int, Range(min=1)]]],
        padding: Annotated[int, Range(min=0)] = 0,
        fill: Annotated[int, Range(0, 255)] = 0,
        padding_mode: Literal["constant", "reflect"] = "constant",
    ) -> None:
        self.size, self.padding, self.fill = height_and_width(size), padding, fill
        self.padding_mode = padding_mode

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, C] -> uint8 [h, w, C]."""
        height, width = self.size
        if self.padding:
            image = self._framed(image)
        room_down, room_right = image.shape[0] - height, image.shape[1] - width
        if room_down < 0 or room_right < 0:
            raise DataError(
                f"the image with its padding is {image.shape[0]} x {image.shape[1]} (height x "
                f"width), smaller than the {height} x {width} of RandomCrop; resize it before"
            )
        top = int(rng.integers(0, room_down, endpoint=True))
        left = int(rng.integers(0, room_right, endpoint=True))
        return crop(image, top, left, height, width)

    def _framed(self, image: np.ndarray) -> np.ndarray:
        side = self.padding
        if self.padding_mode == "constant":
            return frame(image, (side, side), (side, side), self.fill)
        if side >= min(image.shape[:2]):
            raise DataError(
                f"the image is {image.shape[0]} x {image.shape[1]} (height x width), too small to "
                f"be mirrored {side} pixels wide (RandomCrop.padding); resize it before"
            )
        cv2 = opencv()
        mirrored = cv2.copyMakeBorder(image, side, side, side, side, cv2.BORDER_REFLECT_101)
        return mirrored.reshape(*mirrored.shape[:2], -1)


def _check_order(owner: str, name: str, bounds: Sequence[float]) -> None:
    if bounds[0] > bounds[1]:
        raise ConfigError(f"{owner}: {name} is {list(bounds)}; the lower bound must come first")

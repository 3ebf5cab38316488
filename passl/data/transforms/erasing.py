"""Random erasing: a rectangle of the image is replaced by noise or by one colour."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Union

import numpy as np

from passl.errors import ConfigError, DataError
from passl.registry import TRANSFORMS, Range

__all__ = ["RandomErasing"]

_MAX_CHANNELS = 4


@TRANSFORMS.register()
class RandomErasing:
    """Erase a random rectangle, with probability ``prob``.

    Its share of the area is uniform in [``min_area``, ``max_area``], its aspect ratio in
    [``min_aspect``, 1 / ``min_aspect``].  A rectangle that does not fit is drawn again.

    It belongs behind ``NormalizeImage``, on float images (channels first or last), where noise of
    mean 0 and standard deviation 1 looks like an image; the loader then normalises on the host.
    With ``mode: const`` it may also stand before it, on uint8 images: ``mean`` is then a colour,
    ``round(255 * mean)``, and images still travel to the device as uint8.

    timm's ``--reprob P`` is ``{prob: P, max_area: 1/3, attempts: 10, use_log_aspect: true, mode:
    pixel}``.

    Args:
        prob: probability, 0..1.
        min_area: least share of the area.
        max_area: greatest share of the area.
        min_aspect: least height / width, above 0 up to 1; the greatest is its inverse.
        use_log_aspect: draw the ratio log-uniformly, so that upright and lying ones are as likely.
        mode: ``const`` fills with ``mean``, ``rand`` with one normal number a channel, ``pixel``
            with one a pixel and channel.
        mean: what ``const`` fills with, one value or one a channel.
        attempts: how often a rectangle is drawn until one fits.
        max_count: rectangles, one to this many; each gets its share of the area.

    Source: Z. Zhong et al., "Random Erasing", arXiv:1708.04896; PASSL's ``RandomErasing``
    (defaults); timm.data.random_erasing (log-uniform ratio, several rectangles).
    """

    def __init__(
        self,
        *,
        prob: Annotated[float, Range(0, 1)] = 0.5,
        min_area: Annotated[float, Range(0, 1)] = 0.02,
        max_area: Annotated[float, Range(0, 1)] = 0.4,
        min_aspect: Annotated[float, Range(0, 1, min_open=True)] = 0.3,
        use_log_aspect: bool = False,
        mode: Literal["const", "rand", "pixel"] = "const",
        mean: Union[float, list[float]] = 0.0,
        attempts: Annotated[int, Range(min=1)] = 100,
        max_count: Annotated[int, Range(min=1)] = 1,
    ) -> None:
        if min_area > max_area:
            raise ConfigError(
                f"RandomErasing: min_area is {min_area} but max_area {max_area}; the lower bound "
                "must not be above the other"
            )
        self.prob, self.area, self.min_aspect = prob, (min_area, max_area), min_aspect
        self.use_log_aspect, self.mode = use_log_aspect, mode
        self.mean = np.atleast_1d(np.asarray(mean, dtype=np.float32))
        self.attempts, self.max_count = attempts, max_count

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """[H, W, C] or [C, H, W], float (uint8 for ``const``), C at most 4 -> the same, a copy."""
        if rng.random() >= self.prob:
            return image
        erased = np.array(image)
        rows = self._channels_last(erased)  # a view, [H, W, C]
        height, width, channels = rows.shape
        count = int(rng.integers(1, self.max_count, endpoint=True)) if self.max_count > 1 else 1
        for _ in range(count):
            box = self.draw(height, width, count, rng)
            if box is not None:
                top, left, h, w = box
                pixels = self._pixels(h, w, channels, erased.dtype, rng)
                rows[top : top + h, left : left + w] = pixels
        return erased

    def draw(
        self, height: int, width: int, count: int, rng: np.random.Generator
    ) -> Union[tuple[int, int, int, int], None]:
        """Top, left, height and width of a rectangle; None if none fitted.

        Args:
            height, width: of the image.
            count: rectangles that share the area.
            rng: where the numbers come from.
        """
        low, high = self.min_aspect, 1.0 / self.min_aspect
        for _ in range(self.attempts):
            area = rng.uniform(*self.area) * height * width / count
            if self.use_log_aspect:
                aspect = math.exp(rng.uniform(math.log(low), math.log(high)))
            else:
                aspect = rng.uniform(low, high)
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if h < height and w < width:
                top = int(rng.integers(0, height - h, endpoint=True))
                left = int(rng.integers(0, width - w, endpoint=True))
                return top, left, h, w
        return None

    def _channels_last(self, image: np.ndarray) -> np.ndarray:
        if image.ndim == 3 and image.shape[2] <= _MAX_CHANNELS:
            return image
        if image.ndim == 3 and image.shape[0] <= _MAX_CHANNELS:
            return image.transpose(1, 2, 0)
        raise DataError(
            f"RandomErasing works on [H, W, C] or [C, H, W] with at most {_MAX_CHANNELS} channels, "
            f"not on shape {list(image.shape)}"
        )

    def _pixels(
        self, height: int, width: int, channels: int, dtype: np.dtype, rng: np.random.Generator
    ) -> np.ndarray:
        if self.mode == "const":
            if len(self.mean) not in (1, channels):
                raise DataError(
                    f"RandomErasing: mean has {len(self.mean)} values but the image has {channels} "
                    "channels; give one value or one a channel"
                )
            return self.mean if dtype != np.uint8 else np.clip(np.rint(self.mean * 255), 0, 255)
        if dtype == np.uint8:
            raise DataError(
                f"RandomErasing with mode {self.mode} fills with normalised noise, but the image "
                "is still uint8; put it after NormalizeImage, or use mode const"
            )
        shape = (height, width, channels) if self.mode == "pixel" else (channels,)
        return rng.standard_normal(shape, dtype=np.float32)

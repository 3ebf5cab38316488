"""From pixels to what a model takes: normalised floats with the channels first.

Where a chain of transforms ends with these two, the loader leaves them out, ships the uint8 pixels
(a quarter of the bytes) and has :mod:`passl.data.device` do the same arithmetic on the device.
"""

from __future__ import annotations

from typing import Annotated, Literal, Optional, Union

import numpy as np

from passl.data.images import opencv
from passl.errors import ConfigError, DataError
from passl.registry import TRANSFORMS, Range

# Mean and standard deviation of ImageNet's training images, RGB, as PASSL, timm and torchvision.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@TRANSFORMS.register()
class NormalizeImage:
    """``(image * scale - mean) / std``, in float32.

    Args:
        scale: factor applied first; none given means 1/255.
        mean: per channel, or one value for all; none given means ImageNet's.
        std: per channel, or one value for all; none given means ImageNet's.
        order: where the channels are: ``chw``, or ``hwc`` (also written as empty text).
        output_fp16: give float16.
        channel_num: 4 adds a channel of zeros behind three.

    Source: PASSL's ``NormalizeImage``.
    """

    def __init__(
        self,
        *,
        scale: Optional[float] = None,
        mean: Optional[Union[float, list[float]]] = None,
        std: Optional[Union[float, list[Annotated[float, Range(min=0, min_open=True)]]]] = None,
        order: Literal["chw", "hwc", ""] = "chw",
        output_fp16: bool = False,
        channel_num: Literal[1, 3, 4] = 3,
    ) -> None:
        self.scale = np.float32(1.0 / 255.0 if scale is None else scale)
        self.mean = np.atleast_1d(np.asarray(_MEAN if mean is None else mean, dtype=np.float32))
        self.std = np.atleast_1d(np.asarray(_STD if std is None else std, dtype=np.float32))
        if not (self.std > 0).all():
            raise ConfigError(f"NormalizeImage: std must be above 0, not {std}")
        self.channel_axis = 0 if order == "chw" else -1
        self.output_fp16, self.channel_num = output_fp16, channel_num
        self._tables: dict[int, np.ndarray] = {}

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # noqa: ARG002
        """uint8 or float, [C, H, W] or [H, W, C] by ``order`` -> float32 of the same layout."""
        mean, std = self.per_channel(image.shape[self.channel_axis])
        if image.dtype == np.uint8 and self.channel_axis == -1:
            normalised = self._look_up(image, mean, std)
        else:
            shape = (-1, 1, 1) if self.channel_axis == 0 else (-1,)
            pixels = image.astype(np.float32) * self.scale
            normalised = (pixels - mean.reshape(shape)) / std.reshape(shape)
        if self.channel_num == 4 and normalised.shape[self.channel_axis] == 3:
            widths = [(0, 0)] * 3
            widths[self.channel_axis] = (0, 1)
            normalised = np.pad(normalised, widths)
        return normalised.astype(np.float16) if self.output_fp16 else normalised

    def per_channel(self, channels: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, float32 [channels] each.

        Raises:
            DataError: the image has another number of channels.
        """
        for values, name in ((self.mean, "mean"), (self.std, "std")):
            if len(values) not in (1, channels):
                raise DataError(
                    f"NormalizeImage: {name} has {len(values)} values but the image has {channels} "
                    f"channels (order {'chw' if self.channel_axis == 0 else 'hwc'}); give one "
                    "value or one a channel"
                )
        return np.broadcast_to(self.mean, channels), np.broadcast_to(self.std, channels)

    def _look_up(self, image: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
        """The same by a table of the 256 possible values: equal to the last bit, and quicker."""
        channels = image.shape[-1]
        table = self._tables.get(channels)
        if table is None:
            values = np.arange(256, dtype=np.float32)[:, None] * self.scale
            table = np.ascontiguousarray(((values - mean) / std).reshape(256, 1, channels))
            self._tables[channels] = table
        return opencv().LUT(np.ascontiguousarray(image), table).reshape(image.shape)


@TRANSFORMS.register()
class ToCHWImage:
    """[H, W, C] -> [C, H, W], as a view."""

    def __init__(self) -> None: ...

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # noqa: ARG002
        """[H, W, C] -> [C, H, W]."""
        return image.transpose(2, 0, 1)

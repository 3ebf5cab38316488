"""The end of a transform chain, moved to the device.

Pixels travel as uint8 [B, H, W, C], a quarter of the bytes, and ``NormalizeImage`` and
``ToCHWImage`` happen where the model is.  The arithmetic is the transform's own, operation by
operation in float32, so on a CPU the result is equal to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from passl.data.transforms.normalize import NormalizeImage, ToCHWImage

__all__ = ["DeviceNormalize", "split_normalize"]


def split_normalize(transforms: Sequence[Any]) -> tuple[list[Any], Optional[DeviceNormalize]]:
    """Cut the final ``NormalizeImage`` and ``ToCHWImage`` (in either order) off a chain.

    Returns:
        The transforms that stay, and what replaces the rest; the whole chain and None where it ends
        differently, or asks for float16 or a fourth channel.
    """
    chain = list(transforms)
    if len(chain) < 2:
        return chain, None
    first, last = chain[-2:]
    if type(first) is NormalizeImage and type(last) is ToCHWImage:
        normalize, fits = first, first.channel_axis == -1
    elif type(first) is ToCHWImage and type(last) is NormalizeImage:
        normalize, fits = last, last.channel_axis == 0
    else:
        return chain, None
    if not fits or normalize.output_fp16 or normalize.channel_num == 4:
        return chain, None
    return chain[:-2], DeviceNormalize(normalize)


class DeviceNormalize:
    """uint8 [B, H, W, C] -> float32 [B, C, H, W], ``(image * scale - mean) / std``; Paddle tensors.

    Args:
        normalize: the transform it stands for.
    """

    def __init__(self, normalize: NormalizeImage) -> None:
        self._normalize = normalize
        self._constants: dict[tuple[str, int], tuple[Any, Any]] = {}

    def __call__(self, images: Any) -> Any:
        """Normalise a batch on the device it is on."""
        mean, std = self._on_device(images)
        pixels = images.transpose([0, 3, 1, 2]).astype("float32")  # bytes are cheaper to move
        return (pixels * float(self._normalize.scale) - mean) / std

    def check(self, image: np.ndarray) -> None:
        """Raise DataError unless ``image`` [H, W, C] has the channels that mean and std have."""
        self._normalize.per_channel(image.shape[-1])

    def _on_device(self, images: Any) -> tuple[Any, Any]:
        import paddle

        channels = images.shape[-1]
        key = (str(images.place), channels)
        if key not in self._constants:
            mean, std = (
                paddle.to_tensor(values.reshape(1, -1, 1, 1).copy(), place=images.place)
                for values in self._normalize.per_channel(channels)
            )
            self._constants[key] = (mean, std)
        return self._constants[key]

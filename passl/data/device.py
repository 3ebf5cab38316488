"""The end of a transform chain, moved to the device, or into the batch.

Pixels travel as uint8 [B, H, W, C], a quarter of the bytes, and ``NormalizeImage`` and
``ToCHWImage`` happen where the model is.  The arithmetic is the transform's own, operation by
operation in float32, so on a CPU the result is equal to the last bit.

Where images must be normalised on the host (before they are mixed), :class:`HostNormalize` writes
each to its place in the batch at once, without two copies of four times the bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from passl.data.images import opencv
from passl.data.transforms.normalize import NormalizeImage, ToCHWImage

__all__ = ["DeviceNormalize", "HostNormalize", "split_normalize"]


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
        self.normalize = normalize
        self._constants: dict[tuple[str, int], tuple[Any, Any]] = {}

    def __call__(self, images: Any) -> Any:
        """Normalise a batch on the device it is on."""
        mean, std = self._on_device(images)
        pixels = images.transpose([0, 3, 1, 2]).astype("float32")  # bytes are cheaper to move
        return (pixels * float(self.normalize.scale) - mean) / std

    def check(self, image: np.ndarray) -> None:
        """Raise DataError unless ``image`` [H, W, C] has the channels that mean and std have."""
        self.normalize.per_channel(image.shape[-1])

    def _on_device(self, images: Any) -> tuple[Any, Any]:
        import paddle

        channels = images.shape[-1]
        key = (str(images.place), channels)
        if key not in self._constants:
            mean, std = (
                paddle.to_tensor(values.reshape(1, -1, 1, 1).copy(), place=images.place)
                for values in self.normalize.per_channel(channels)
            )
            self._constants[key] = (mean, std)
        return self._constants[key]


class HostNormalize:
    """uint8 [H, W, C] -> float32 [C, H, W], as ``NormalizeImage`` and ``ToCHWImage`` do it.

    Args:
        normalize: the transform it stands for.
    """

    def __init__(self, normalize: NormalizeImage) -> None:
        self._normalize = normalize
        self._tables: dict[int, np.ndarray] = {}

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """An image of its own."""
        out = np.empty((image.shape[-1], *image.shape[:-1]), np.float32)
        self.put(image, out)
        return out

    def put(self, image: np.ndarray, out: np.ndarray) -> None:
        """Write the normalised image to ``out``, contiguous float32 [C, H, W].

        Raises:
            DataError: the image has other channels than mean and std.
        """
        tables = self._of_values(image.shape[-1])
        if image.dtype != np.uint8:
            mean, std = (v.reshape(-1, 1, 1) for v in self._normalize.per_channel(len(tables)))
            pixels = image.transpose(2, 0, 1).astype(np.float32) * self._normalize.scale
            out[...] = (pixels - mean) / std
            return
        cv2 = opencv()
        for channel, table, target in zip(cv2.split(np.ascontiguousarray(image)), tables, out):
            cv2.LUT(channel, table, target)

    def _of_values(self, channels: int) -> np.ndarray:
        """The 256 values that each channel can take: float32 [C, 256]."""
        table = self._tables.get(channels)
        if table is None:
            mean, std = self._normalize.per_channel(channels)
            values = np.arange(256, dtype=np.float32)[:, None] * self._normalize.scale
            table = np.ascontiguousarray(((values - mean) / std).T)
            self._tables[channels] = table
        return table

"""From the bytes of a file to pixels."""

from __future__ import annotations

from typing import Union

import numpy as np

from passl.data.images import decode
from passl.registry import TRANSFORMS


@TRANSFORMS.register()
class DecodeImage:
    """Decode an image file into uint8 [H, W, 3].

    Grey, palette, transparent, CMYK and 16-bit images all become three channels; a truncated or
    broken file is an error. :mod:`passl.data.images` says how each is treated. An image that is
    already decoded (of a data set without files) passes through.

    Args:
        to_rgb: channel order RGB; false gives BGR.
        channel_first: [3, H, W] instead; what PASSL offers, though no other transform takes it.
    """

    #: Tells the data set to hand over the bytes as they are.
    decodes = True

    def __init__(self, *, to_rgb: bool = True, channel_first: bool = False) -> None:
        self.to_rgb, self.channel_first = to_rgb, channel_first

    def __call__(
        self,
        image: Union[bytes, np.ndarray],
        rng: np.random.Generator,  # noqa: ARG002
    ) -> np.ndarray:
        """Bytes -> uint8 [H, W, 3]."""
        pixels = decode(image) if isinstance(image, bytes) else image
        if not self.to_rgb:
            pixels = pixels[:, :, ::-1]
        return pixels.transpose(2, 0, 1) if self.channel_first else pixels

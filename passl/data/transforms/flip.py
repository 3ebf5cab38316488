"""Random mirroring."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np

from passl.data.images import opencv
from passl.registry import TRANSFORMS, Range


@TRANSFORMS.register()
class RandFlipImage:
    """Mirror the image with probability ``prob``.

    Args:
        flip_code: 1 left and right, 0 top and bottom, -1 both (OpenCV's codes).
        prob: probability, 0..1; PASSL's is fixed at one half.
    """

    def __init__(
        self, *, flip_code: Literal[-1, 0, 1] = 1, prob: Annotated[float, Range(0, 1)] = 0.5
    ) -> None:
        self.flip_code, self.prob = flip_code, prob

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """[H, W, C] of any type -> the same."""
        if rng.random() >= self.prob:
            return image
        # OpenCV mirrors several times as fast as a numpy view with negative strides is copied.
        flipped = opencv().flip(np.ascontiguousarray(image), self.flip_code)
        return flipped.reshape(image.shape)  # one channel loses its axis in OpenCV


@TRANSFORMS.register()
class RandomHorizontalFlip:
    """Mirror left and right with probability ``p``.

    Args:
        p: probability, 0..1.
    """

    def __init__(self, *, p: Annotated[float, Range(0, 1)] = 0.5) -> None:
        self._flip = RandFlipImage(flip_code=1, prob=p)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """[H, W, C] of any type -> the same."""
        return self._flip(image, rng)

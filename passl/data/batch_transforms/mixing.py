"""Mixup and CutMix: each image is blended with, or patched from, another one of its batch.

Images are float32 [B, C, H, W], already normalised.  Targets become soft, float32 [B, classes],
also where nothing is mixed, so that a run sees targets of one form.  The partner of image ``i`` is
image ``B - 1 - i`` of the same rank, as in PASSL and timm; one blend serves the whole batch, and
being drawn from (seed, epoch, batch number) it is the same on every rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Optional

import numpy as np

from passl.errors import ConfigError, DataError
from passl.registry import BATCH_TRANSFORMS, Component, Range, Runtime

__all__ = [
    "Box",
    "Cutmix",
    "Mixing",
    "Mixup",
    "TransformOpSampler",
    "add_partners",
    "draw_box",
    "paste_partners",
    "share_outside",
]

#: Top, bottom, left and right of a rectangle.
Box = tuple[int, int, int, int]
_Mixed = tuple[np.ndarray, np.ndarray]


class Mixing:
    """What Mixup and Cutmix share: the draw of the share, the soft targets."""

    def __init__(
        self,
        alpha: float,
        epsilon: float,
        prob: float,
        class_num: Optional[int],
        model_class_num: Optional[int],
    ) -> None:
        name = type(self).__name__
        if class_num is not None and model_class_num is not None and class_num != model_class_num:
            raise ConfigError(
                f"{name}: class_num is {class_num} but Model.class_num is {model_class_num}; leave "
                f"{name}'s out"
            )
        classes = class_num if class_num is not None else model_class_num
        if classes is None:
            raise ConfigError(f"{name}: class_num is not known; give it")
        self.alpha, self.epsilon, self.prob, self.class_num = alpha, epsilon, prob, classes

    def __call__(self, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> _Mixed:
        """Mix a batch with probability ``prob``; ``images`` may be changed in place."""
        if rng.random() < self.prob:
            return self.mix(images, labels, rng)
        return images, self.soft(labels)

    def mix(self, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> _Mixed:
        """Mix a batch: float32 [B, C, H, W] and labels -> the same images and [B, classes]."""
        raise NotImplementedError

    def soft(self, labels: np.ndarray) -> np.ndarray:
        """Smoothed targets ``y (1 - epsilon) + epsilon / classes``: float32 [B, classes]."""
        if labels.ndim == 1:
            if len(labels) and int(labels.max()) >= self.class_num:
                raise DataError(
                    f"{type(self).__name__}: label {int(labels.max())} is out of range for "
                    f"{self.class_num} classes"
                )
            target = np.zeros((len(labels), self.class_num), dtype=np.float32)
            target[np.arange(len(labels)), labels] = 1.0
        else:
            target = labels.astype(np.float32)
        return target * np.float32(1.0 - self.epsilon) + np.float32(self.epsilon / self.class_num)

    def blend(self, labels: np.ndarray, share: float) -> np.ndarray:
        """Targets of which ``share`` is the image's own and the rest its partner's."""
        own = self.soft(labels)
        return own * np.float32(share) + own[::-1] * np.float32(1.0 - share)

    def blend_each(self, labels: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """The same with a share for each image, float32 [B]."""
        own, shares = self.soft(labels), shares.astype(np.float32)[:, None]
        return own * shares + own[::-1] * (1.0 - shares)


@BATCH_TRANSFORMS.register()
class Mixup(Mixing):
    """Blend pairs of images: ``share * image + (1 - share) * partner``, and their targets alike.

    Args:
        alpha: the share is drawn from Beta(alpha, alpha), once a batch.
        epsilon: label smoothing.
        prob: probability that a batch is mixed.
        class_num: number of classes; the model's if not given.
        model_class_num: given by the engine.

    Source: H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", arXiv:1710.09412;
    PASSL's ``Mixup`` (pairs, smoothing).
    """

    def __init__(
        self,
        *,
        alpha: Annotated[float, Range(min=0, min_open=True)] = 1.0,
        epsilon: Annotated[float, Range(0, 1)] = 0.0,
        prob: Annotated[float, Range(0, 1)] = 1.0,
        class_num: Optional[Annotated[int, Range(min=1)]] = None,
        model_class_num: Annotated[Optional[int], Runtime()] = None,
    ) -> None:
        super().__init__(alpha, epsilon, prob, class_num, model_class_num)

    def mix(self, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> _Mixed:
        """Blend a batch."""
        share = float(rng.beta(self.alpha, self.alpha))
        return add_partners(images, share), self.blend(labels, share)


@BATCH_TRANSFORMS.register()
class Cutmix(Mixing):
    """Paste a rectangle of the partner into each image; targets follow the areas.

    A share is drawn from Beta(alpha, alpha); the rectangle has sides ``sqrt(1 - share)`` of the
    image's, a uniform centre, and is cut off at the border; the share is then what is left.

    Args:
        alpha: of the Beta distribution, drawn once a batch.
        epsilon: label smoothing.
        prob: probability that a batch is mixed.
        class_num: number of classes; the model's if not given.
        model_class_num: given by the engine.

    Source: S. Yun et al., "CutMix", arXiv:1905.04899, algorithm A1; PASSL's ``Cutmix`` (defaults).
    """

    def __init__(
        self,
        *,
        alpha: Annotated[float, Range(min=0, min_open=True)] = 0.2,
        epsilon: Annotated[float, Range(0, 1)] = 0.0,
        prob: Annotated[float, Range(0, 1)] = 1.0,
        class_num: Optional[Annotated[int, Range(min=1)]] = None,
        model_class_num: Annotated[Optional[int], Runtime()] = None,
    ) -> None:
        super().__init__(alpha, epsilon, prob, class_num, model_class_num)

    def mix(self, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> _Mixed:
        """Patch a batch."""
        height, width = images.shape[2:]
        box = self.draw(height, width, rng)
        return paste_partners(images, box), self.blend(labels, share_outside(box, height, width))

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Box:
        """Top, bottom, left and right of a random rectangle."""
        return draw_box(float(rng.beta(self.alpha, self.alpha)), height, width, rng)


@BATCH_TRANSFORMS.register()
class TransformOpSampler:
    """Apply one of several transforms to each batch, chosen by their ``prob``.

    What the probabilities leave of 1 is the chance that a batch is not mixed.

    Args:
        ops: Mixup, Cutmix or others with a ``prob``; the probabilities sum to 1 at most.

    Source: PASSL's ``TransformOpSampler``, which leaves the targets of an unmixed batch hard.
    """

    def __init__(self, *, ops: Annotated[Sequence[Any], Component("batch_transforms")]) -> None:
        lacking = [type(op).__name__ for op in ops if not isinstance(op, (Mixup, Cutmix))]
        if lacking or not ops:
            raise ConfigError(
                "TransformOpSampler: ops must be one or more of Mixup and Cutmix"
                + (f"; {', '.join(lacking)} cannot be chosen by probability" if lacking else "")
            )
        self.ops: list[Mixing] = list(ops)
        self.bounds = np.cumsum([op.prob for op in ops])
        if self.bounds[-1] > 1.0 + 1e-9:
            raise ConfigError(
                f"TransformOpSampler: the prob of its ops sum to {self.bounds[-1]:g}; at most 1"
            )

    def __call__(self, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> _Mixed:
        """Mix a batch by one of the ops, or by none."""
        chosen = int(np.searchsorted(self.bounds, rng.random(), side="right"))
        if chosen < len(self.ops):
            return self.ops[chosen].mix(images, labels, rng)
        return images, self.ops[0].soft(labels)


def add_partners(images: np.ndarray, share: float) -> np.ndarray:
    """``share`` of each image and the rest of its partner, in place: float32 [B, C, H, W]."""
    partners = images[::-1] * np.float32(1.0 - share)
    images *= np.float32(share)
    images += partners
    return images


def paste_partners(images: np.ndarray, box: Box) -> np.ndarray:
    """The partner's pixels in ``box`` of each image, in place: float32 [B, C, H, W]."""
    top, bottom, left, right = box
    partners = images[::-1, :, top:bottom, left:right].copy()
    images[:, :, top:bottom, left:right] = partners
    return images


def draw_box(share: float, height: int, width: int, rng: np.random.Generator) -> Box:
    """A rectangle of ``1 - share`` of the area, with a uniform centre, cut off at the border.

    Its sides are even, as with CutMix, PASSL and timm 1.0.19; with timm 1.0.31 they may be odd.
    """
    side = math.sqrt(1.0 - share)
    cut_height, cut_width = int(height * side), int(width * side)
    y, x = int(rng.integers(height)), int(rng.integers(width))
    top, left = max(y - cut_height // 2, 0), max(x - cut_width // 2, 0)
    bottom, right = min(y + cut_height // 2, height), min(x + cut_width // 2, width)
    return top, bottom, left, right


def share_outside(box: Box, height: int, width: int) -> float:
    """The share of the area that is not in ``box``."""
    top, bottom, left, right = box
    return 1.0 - (bottom - top) * (right - left) / (height * width)

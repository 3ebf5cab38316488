"""Mixup and CutMix in turns, by batch, by pair or by image, as timm and DeiT switch them."""

from __future__ import annotations

from typing import Annotated, Callable, Literal, NamedTuple, Optional

import numpy as np

from passl.data.batch_transforms.mixing import (
    Box,
    Mixing,
    add_partners,
    draw_box,
    paste_partners,
    share_outside,
)
from passl.errors import ConfigError
from passl.registry import BATCH_TRANSFORMS, Range, Runtime

__all__ = ["Mix", "MixupCutmix"]

_Mixed = tuple[np.ndarray, np.ndarray]


class Mix(NamedTuple):
    """How an image is mixed: its own share, and the rectangle of CutMix or None for Mixup."""

    share: float
    box: Optional[Box] = None


@BATCH_TRANSFORMS.register()
class MixupCutmix(Mixing):
    """Mixup or CutMix, drawn anew for each batch, pair or image.

    With probability ``prob`` something is mixed; if both are on (their alpha is not 0), it is
    CutMix with probability ``switch_prob``.  ``mode`` says for what is drawn: ``batch`` once for
    all images, ``pair`` for each two that are each other's partner, ``elem`` for each image.  In a
    batch of odd size the image in the middle is its own partner.

    Sets of labels (multi-hot targets) are smoothed towards ``epsilon / classes`` like any other.

    Args:
        mixup_alpha: the share of Mixup is drawn from Beta(alpha, alpha); 0: no Mixup.
        cutmix_alpha: the same for CutMix; 0: no CutMix.
        cutmix_minmax: sides of CutMix's rectangle are uniform between these shares of the image's
            and it lies inside, whatever ``cutmix_alpha`` says.
        prob: probability that a batch, pair or image is mixed.
        switch_prob: probability of CutMix, where both are on.
        mode: ``batch``, ``pair`` or ``elem``.
        epsilon: label smoothing; also of targets that are not mixed.
        off_epoch: so many epochs are mixed, and nothing after them any more; 0: all are.
        class_num: number of classes; the model's if not given.
        model_class_num: given by the engine.

    Source: timm.data.mixup.Mixup (``label_smoothing`` is ``epsilon`` here) and its
    ``--mixup-off-epoch``; H. Touvron et al., "DeiT", arXiv:2012.12877.
    """

    def __init__(
        self,
        *,
        mixup_alpha: Annotated[float, Range(min=0)] = 1.0,
        cutmix_alpha: Annotated[float, Range(min=0)] = 0.0,
        cutmix_minmax: Optional[
            tuple[Annotated[float, Range(0, 1)], Annotated[float, Range(0, 1)]]
        ] = None,
        prob: Annotated[float, Range(0, 1)] = 1.0,
        switch_prob: Annotated[float, Range(0, 1)] = 0.5,
        mode: Literal["batch", "pair", "elem"] = "batch",
        epsilon: Annotated[float, Range(0, 1)] = 0.1,
        off_epoch: Annotated[int, Range(min=0)] = 0,
        class_num: Optional[Annotated[int, Range(min=1)]] = None,
        model_class_num: Annotated[Optional[int], Runtime()] = None,
    ) -> None:
        super().__init__(mixup_alpha, epsilon, prob, class_num, model_class_num)
        if cutmix_minmax is not None and cutmix_minmax[0] >= cutmix_minmax[1]:
            raise ConfigError(
                f"MixupCutmix: cutmix_minmax is {list(cutmix_minmax)}; the lower bound comes first"
            )
        self.cutmix = cutmix_alpha > 0 or cutmix_minmax is not None
        if not self.cutmix and mixup_alpha == 0:
            raise ConfigError(
                "MixupCutmix: mixup_alpha and cutmix_alpha are both 0, so nothing would be mixed; "
                "remove it from batch_transform (CELoss has an epsilon of its own)"
            )
        self.cutmix_alpha, self.cutmix_minmax = cutmix_alpha, cutmix_minmax
        self.switch_prob, self.mode, self.off_epoch = switch_prob, mode, off_epoch

    def __call__(self, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> _Mixed:
        """float32 [B, C, H, W], changed in place, and labels -> the images and [B, classes]."""
        return self.mix(images, labels, rng)

    def in_epoch(
        self, epoch: int
    ) -> Callable[[np.ndarray, np.ndarray, np.random.Generator], _Mixed]:
        """What is done to the batches of ``epoch``, from 1 as training counts."""
        return self._only_soften if 0 < self.off_epoch < epoch else self

    def mix(self, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> _Mixed:
        """Mix a batch."""
        count, (height, width) = len(images), images.shape[2:]
        if self.mode == "batch":
            mix = self.draw(height, width, rng)
            if mix.box is not None:
                images = paste_partners(images, mix.box)
            elif mix.share != 1.0:
                images = add_partners(images, mix.share)
            return images, self.blend(labels, mix.share)
        if self.mode == "elem":
            mixes = [self.draw(height, width, rng) for _ in range(count)]
        else:
            first = [self.draw(height, width, rng) for _ in range(count // 2)]
            mixes = [*first, *[Mix(1.0)] * (count % 2), *reversed(first)]
        partners = images[::-1].copy()
        for image, partner, mix in zip(images, partners, mixes):
            _mix_one(image, partner, mix)
        return images, self.blend_each(labels, np.array([mix.share for mix in mixes]))

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Mix:
        """One random mix for images of ``height`` x ``width``."""
        if rng.random() >= self.prob:
            return Mix(1.0)
        if self.cutmix and (self.alpha == 0 or rng.random() < self.switch_prob):
            box = self._draw_box(height, width, rng)
            return Mix(share_outside(box, height, width), box)
        return Mix(float(rng.beta(self.alpha, self.alpha)))

    def _draw_box(self, height: int, width: int, rng: np.random.Generator) -> Box:
        if self.cutmix_minmax is None:
            share = float(rng.beta(self.cutmix_alpha, self.cutmix_alpha))
            return draw_box(share, height, width, rng)
        low, high = self.cutmix_minmax
        h = int(rng.integers(int(height * low), max(int(height * high), int(height * low) + 1)))
        w = int(rng.integers(int(width * low), max(int(width * high), int(width * low) + 1)))
        top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        return top, top + h, left, left + w

    def _only_soften(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        rng: np.random.Generator,  # noqa: ARG002
    ) -> _Mixed:
        return images, self.soft(labels)


def _mix_one(image: np.ndarray, partner: np.ndarray, mix: Mix) -> None:
    """Mix ``image`` [C, H, W] in place."""
    if mix.box is not None:
        top, bottom, left, right = mix.box
        image[:, top:bottom, left:right] = partner[:, top:bottom, left:right]
    elif mix.share != 1.0:
        image *= np.float32(mix.share)
        image += partner * np.float32(1.0 - mix.share)

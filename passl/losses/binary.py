"""One yes/no question per class: the loss of DeiT III."""

from __future__ import annotations

from typing import Annotated, Optional

import paddle

from passl.losses.targets import as_class_targets, holds_indices, in_fp32
from passl.losses.yes_no import binary_cross_entropy
from passl.registry import LOSSES, Range

__all__ = ["BCELoss"]


@LOSSES.register()
class BCELoss:
    """Binary cross entropy of every class, the mean over samples and classes.

    With a threshold, a class is asked for whole or not at all: an image mixed of a cat and a dog
    is to show a cat and to show a dog, whatever their shares.  Smoothed targets are above 0 for
    every class, so the data's Mixup must have ``epsilon: 0`` then, which the config is checked for.
    Divided by the number of classes, it is a thousandth of :class:`ViTCELoss` for ImageNet-1K.

    Args:
        target_threshold: soft targets above it become 1, others 0; null takes them as they are.

    Source: Touvron et al. 2022, "DeiT III", arXiv:2204.07118, section 3, and DeiT's ``--bce-loss``;
        Wightman et al. 2021, "ResNet strikes back", arXiv:2110.00476, section 2.
    """

    def __init__(
        self,
        *,
        target_threshold: Optional[Annotated[float, Range(min=0.0, max=1.0, max_open=True)]] = 0.0,
    ) -> None:
        self.target_threshold = target_threshold

    def __call__(self, logits: paddle.Tensor, target: paddle.Tensor) -> paddle.Tensor:
        """Mean loss over the batch and the classes, a float32 scalar.

        Args:
            logits: ``[B, C]``.
            target: integer ``[B]``, or floating-point ``[B, C]`` from 0 to 1.

        Raises:
            ValueError: the target is of neither kind.
        """
        return self._each(in_fp32(logits), target).mean()

    def per_sample(self, logits: paddle.Tensor, target: paddle.Tensor) -> paddle.Tensor:
        """The loss of each sample, ``[B]``, in the dtype of the logits."""
        return self._each(logits, target).mean(axis=1)

    def _each(self, logits: paddle.Tensor, target: paddle.Tensor) -> paddle.Tensor:
        """``[B, C]``."""
        is_soft = not holds_indices(logits, target)
        wanted = as_class_targets(target, logits.shape[1])
        if is_soft and self.target_threshold is not None:
            wanted = wanted > self.target_threshold
        wanted = wanted.astype(logits.dtype)
        return binary_cross_entropy(logits, wanted)

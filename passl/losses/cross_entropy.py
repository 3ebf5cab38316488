"""Cross entropies: the usual softmax one, and the two forms of PASSL's ViT recipes."""

from __future__ import annotations

from typing import Annotated, Literal, Optional

import paddle
import paddle.nn.functional as F

from passl.losses.targets import as_class_targets, as_indices, holds_indices, in_fp32
from passl.losses.yes_no import binary_cross_entropy
from passl.registry import LOSSES, Range

__all__ = ["CELoss", "ViTCELoss"]


@LOSSES.register()
class CELoss:
    """Softmax cross entropy, with class indices or soft targets.

    Label smoothing turns a target ``t`` into ``t (1 - epsilon) + epsilon / C``.  Soft targets
    (Mixup, Cutmix) come smoothed from their batch transform as a rule; ``epsilon`` then adds to it.

    Args:
        epsilon: strength of label smoothing; null or 0 is none.

    Source: arXiv:1512.00567, section 7; PASSL's ``CELoss``, whose choice between indices and soft
        targets by shape goes wrong when a batch has as many samples as there are classes.
    """

    def __init__(
        self, *, epsilon: Optional[Annotated[float, Range(min=0.0, max=1.0)]] = None
    ) -> None:
        self.epsilon = epsilon or 0.0

    def __call__(self, logits: paddle.Tensor, target: paddle.Tensor) -> paddle.Tensor:
        """Mean loss over the batch, a float32 scalar.

        Args:
            logits: ``[B, C]``.
            target: integer ``[B]``, or floating-point ``[B, C]``.

        Raises:
            ValueError: the target is of neither kind.
        """
        log_p = F.log_softmax(in_fp32(logits), axis=1)
        if holds_indices(logits, target):
            hit = F.nll_loss(log_p, as_indices(target))
            # The smoothed part needs no one-hot: each class gets the same share of it.
            return hit if not self.epsilon else _blend(hit, -log_p.mean(), self.epsilon)
        soft = in_fp32(target)
        if self.epsilon:
            soft = soft * (1.0 - self.epsilon) + self.epsilon / logits.shape[1]
        return -(soft * log_p).sum(axis=1).mean()

    def per_sample(self, logits: paddle.Tensor, target: paddle.Tensor) -> paddle.Tensor:
        """The loss of each sample, ``[B]``, in the dtype of the logits."""
        log_p = F.log_softmax(logits, axis=1)
        if holds_indices(logits, target):
            hit = -paddle.take_along_axis(log_p, as_indices(target).unsqueeze(1), axis=1).squeeze(1)
            return _blend(hit, -log_p.mean(axis=1), self.epsilon)
        soft = target.astype(logits.dtype)
        if self.epsilon:
            soft = soft * (1.0 - self.epsilon) + self.epsilon / logits.shape[1]
        return -(soft * log_p).sum(axis=1)


@LOSSES.register()
class ViTCELoss:
    """PASSL's loss for ViT pre-training: one binary cross entropy per class, or softmax.

    Targets are class indices or sets of labels (multi-hot).  Smoothing here is ``t (1 - epsilon) +
    epsilon`` for *each* class, not ``epsilon / C``: with 1000 classes, 1e-4 adds 0.1 to the sum of
    the targets.  The sigmoid form sums over the classes and averages over the batch; the softmax
    form does not divide by the number of labels of a sample.

    Args:
        epsilon: strength of smoothing; null or 0 is none.
        type: ``sigmoid`` (with a head bias of -10 at the start, arXiv:2006.07159) or ``softmax``.

    Source: PASSL's ``ViTCELoss``.
    """

    def __init__(
        self,
        *,
        epsilon: Optional[Annotated[float, Range(min=0.0, max=1.0)]] = None,
        type: Literal["sigmoid", "softmax"] = "sigmoid",
    ) -> None:
        self.epsilon = epsilon or 0.0
        self.type = type

    def __call__(self, logits: paddle.Tensor, target: paddle.Tensor) -> paddle.Tensor:
        """Mean loss over the batch, a float32 scalar.

        Args:
            logits: ``[B, C]``.
            target: integer ``[B]``, or floating-point ``[B, C]`` of zeros and ones.

        Raises:
            ValueError: the target is of neither kind.
        """
        indices = holds_indices(logits, target)
        logits = in_fp32(logits)
        if self.type == "softmax" and indices:
            log_p = F.log_softmax(logits, axis=1)
            hit = F.nll_loss(log_p, as_indices(target))
            every_class = -log_p.sum(axis=1).mean() if self.epsilon else hit
            return _blend(hit, every_class, self.epsilon)
        wanted = as_class_targets(target, logits.shape[1]) * (1.0 - self.epsilon) + self.epsilon
        if self.type == "softmax":
            return -(wanted * F.log_softmax(logits, axis=1)).sum(axis=1).mean()
        # Per element, not as separate sums: a confident, right logit must cancel before adding.
        each = binary_cross_entropy(logits, wanted)
        return each.sum(axis=1).mean()

    def per_sample(self, logits: paddle.Tensor, target: paddle.Tensor) -> paddle.Tensor:
        """The loss of each sample, ``[B]``, in the dtype of the logits."""
        holds_indices(logits, target)
        wanted = as_class_targets(target, logits.shape[1]).astype(logits.dtype)
        wanted = wanted * (1.0 - self.epsilon) + self.epsilon
        if self.type == "softmax":
            return -(wanted * F.log_softmax(logits, axis=1)).sum(axis=1)
        each = binary_cross_entropy(logits, wanted)
        return each.sum(axis=1)


def _blend(hit: paddle.Tensor, every_class: paddle.Tensor, epsilon: float) -> paddle.Tensor:
    return hit * (1.0 - epsilon) + every_class * epsilon if epsilon else hit

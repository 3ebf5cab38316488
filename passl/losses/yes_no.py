"""Binary cross entropy of logits whose gradient is right at a logit of 0 too.

Paddle 3.3.1's kernel gives ``sigmoid(x) - y - 1`` there and not ``sigmoid(x) - y`` (2.6.2 is
right).  Every logit of a classifier that starts with zeros is 0, so that its first update would go
the wrong way for all classes.
"""

from __future__ import annotations

from typing import Any

import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer

__all__ = ["binary_cross_entropy"]


def binary_cross_entropy(logits: paddle.Tensor, wanted: paddle.Tensor) -> paddle.Tensor:
    """``-y log(sigmoid(x)) - (1 - y) log(1 - sigmoid(x))`` of each element.

    Args:
        logits: ``x``, of any shape.
        wanted: ``y``, of the same shape and dtype, 0 to 1; no gradient reaches it.
    """
    if logits.stop_gradient or not paddle.is_grad_enabled():
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return _BinaryCrossEntropy.apply(logits, wanted.detach())


class _BinaryCrossEntropy(PyLayer):
    """Paddle's values with ``sigmoid(x) - y`` as the gradient."""

    @staticmethod
    def forward(ctx: Any, logits: paddle.Tensor, wanted: paddle.Tensor) -> paddle.Tensor:
        """Compute it, and keep what the backward pass needs."""
        ctx.save_for_backward(logits, wanted)
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")

    @staticmethod
    def backward(ctx: Any, grad: paddle.Tensor) -> tuple[paddle.Tensor, None]:
        """The gradients, in the order of the arguments."""
        logits, wanted = ctx.saved_tensor()
        return grad * (F.sigmoid(logits) - wanted), None

"""LAMB: Adam's direction, with a step as long as the weights of the layer allow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import paddle

from passl.optim.base import Optimizer, ParamState
from passl.optim.groups import ParamGroup
from passl.optim.trust import l2_norm, trust_ratio
from passl.registry import OPTIMIZERS, Range, Runtime

__all__ = ["Lamb"]


@OPTIMIZERS.register(aliases=["LAMB"])
class Lamb(Optimizer):
    """Layer-wise adaptive steps for large batches; the optimizer of DeiT III.

    With ``k`` the number of updates of the parameter, this one included::

        m <- b1 m + (1 - b1) g
        v <- b2 v + (1 - b2) g^2
        u <- (m / (1 - b1^k)) / (sqrt(v / (1 - b2^k)) + eps) + wd p
        p <- p - lr r u,    r = |p| / |u|, or 1 where either norm is 0

    A parameter that does not decay (a bias, a norm) takes ``r = 1``, as in apex and timm, which
    also clip the gradients by their global norm to 1: here ``Optimizer.grad_clip`` does that.

    Args:
        betas: decay rates of the two moments.
        eps: added to the root, after bias correction.
        weight_decay: strength ``wd``; the parameter groups may change it.
        always_adapt: use the trust ratio ``r`` for parameters that do not decay as well.
        trust_clip: let ``r`` be at most 1.

    Source: arXiv:1904.00962, algorithm 2; when ``r`` is 1 as in NVIDIA's FusedLAMB and timm.
    """

    slot_names = ("moment1", "moment2")

    def __init__(
        self,
        *,
        groups: Annotated[Sequence[ParamGroup], Runtime()],
        betas: tuple[
            Annotated[float, Range(min=0.0, max=1.0, max_open=True)],
            Annotated[float, Range(min=0.0, max=1.0, max_open=True)],
        ] = (0.9, 0.999),
        eps: Annotated[float, Range(min=0.0)] = 1e-6,
        weight_decay: Annotated[float, Range(min=0.0)] = 0.0,
        always_adapt: bool = False,
        trust_clip: bool = False,
    ) -> None:
        super().__init__(groups)
        self.betas = (float(betas[0]), float(betas[1]))
        self.eps = eps
        self.weight_decay = weight_decay
        self.always_adapt, self.trust_clip = always_adapt, trust_clip

    def _update(self, due: Sequence[tuple[ParamState, paddle.Tensor]], lr: float) -> None:
        beta1, beta2 = self.betas

        def update(state: ParamState, grad: paddle.Tensor) -> None:
            first, second, step = state.slots["moment1"], state.slots["moment2"], state.num_updates
            weights, decay = state.weights, state.weight_decay
            first.scale_(beta1).add_(grad * (1.0 - beta1))
            second.scale_(beta2).add_((grad * grad).scale_(1.0 - beta2))
            root = second.sqrt().scale_(1.0 / math.sqrt(1.0 - beta2**step), self.eps)
            direction = (first * (1.0 / (1.0 - beta1**step))).divide_(root)
            if decay:
                direction.add_(weights * decay)
            if decay or self.always_adapt:
                ratio = trust_ratio(l2_norm(weights), l2_norm(direction))
                direction.multiply_(ratio.clip(max=1.0) if self.trust_clip else ratio)
            weights.subtract_(direction.scale_(lr * state.lr_scale))

        self._update_each(due, update)

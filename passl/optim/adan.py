"""Adan: Nesterov's momentum written with differences of gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import paddle

from passl.optim.base import Optimizer, ParamState
from passl.optim.groups import ParamGroup
from passl.registry import OPTIMIZERS, Range, Runtime

__all__ = ["Adan"]

@OPTIMIZERS.register()
class Adan(Optimizer):
    """Adaptive Nesterov momentum.

    With ``k`` the number of updates of the parameter, this one included, ``g'`` its gradient in the
    update before (in the first, ``g`` itself) and ``ci = 1 - bi^k``::

        d <- g - g'
        m <- b1 m + (1 - b1) g
        v <- b2 v + (1 - b2) d
        n <- b3 n + (1 - b3) (g + b2 d)^2
        u <- (m / c1 + b2 v / c2) / (sqrt(n / c3) + eps)
        p <- (p - lr u) / (1 + lr wd)        (no_prox: p (1 - lr wd) - lr u)

    The betas are the shares that stay, as in the authors' code; those of the paper are 1 minus
    these.  It remembers four tensors of the parameter's size, AdamW two.

    Args:
        betas: decay rates of the averages of the gradient, its differences and the squares.
        eps: added to the root, after bias correction.
        weight_decay: strength ``wd``; the parameter groups may change it.
        no_prox: decay as AdamW does, with the weights before the step.

    Source: arXiv:2208.06677, algorithm 1, with the bias corrections of the authors' code.
    """

    slot_names = ("moment1", "difference", "moment2", "last_gradient")

    def __init__(
        self,
        *,
        groups: Annotated[Sequence[ParamGroup], Runtime()],
        betas: tuple[
            Annotated[float, Range(min=0.0, max=1.0, max_open=True)],
            Annotated[float, Range(min=0.0, max=1.0, max_open=True)],
            Annotated[float, Range(min=0.0, max=1.0, max_open=True)],
        ] = (0.98, 0.92, 0.99),
        eps: Annotated[float, Range(min=0.0)] = 1e-8,
        weight_decay: Annotated[float, Range(min=0.0)] = 0.0,
        no_prox: bool = False,
    ) -> None:
        super().__init__(groups)
        self.betas = (float(betas[0]), float(betas[1]), float(betas[2]))
        self.eps = eps
        self.weight_decay = weight_decay
        self.no_prox = no_prox

    def _update(self, due: Sequence[tuple[ParamState, paddle.Tensor]], lr: float) -> None:
        beta1, beta2, beta3 = self.betas

        def update(state: ParamState, grad: paddle.Tensor) -> None:
            slots, rate, step = state.slots, lr * state.lr_scale, state.num_updates
            last, weights = slots["last_gradient"], state.weights
            # In the first update the one before counts as equal.
            change = paddle.zeros_like(grad) if step == 1 else grad - last
            paddle.assign(grad, output=last)
            slots["moment1"].scale_(beta1).add_(grad * (1.0 - beta1))
            slots["difference"].scale_(beta2).add_(change * (1.0 - beta2))
            ahead = change.scale_(beta2).add_(grad)
            slots["moment2"].scale_(beta3).add_(ahead.multiply_(ahead).scale_(1.0 - beta3))

            direction = slots["moment1"] * (1.0 / (1.0 - beta1**step))
            direction.add_(slots["difference"] * (beta2 / (1.0 - beta2**step)))
            root = slots["moment2"].sqrt().scale_(1.0 / math.sqrt(1.0 - beta3**step), self.eps)
            direction.divide_(root).scale_(rate)
            decay = rate * state.weight_decay
            if self.no_prox:
                weights.scale_(1.0 - decay).subtract_(direction)
            else:
                weights.subtract_(direction).scale_(1.0 / (1.0 + decay))

        self._update_each(due, update)

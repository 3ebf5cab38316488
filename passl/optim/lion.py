"""Lion: the sign of an interpolated momentum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import paddle

from passl.optim.base import Optimizer, ParamState
from passl.optim.groups import ParamGroup
from passl.registry import OPTIMIZERS, Range, Runtime

__all__ = ["Lion"]


@OPTIMIZERS.register()
class Lion(Optimizer):
    """Steps of one size in every number, with decoupled weight decay::

        p <- p (1 - lr wd) - lr sign(b1 m + (1 - b1) g)
        m <- b2 m + (1 - b2) g

    It remembers one tensor where AdamW remembers two.  The authors advise a learning rate 3 to 10
    times smaller than AdamW's, and a weight decay larger by as much.

    Args:
        betas: share of the momentum in the step, and its decay rate.
        weight_decay: strength ``wd``; the parameter groups may change it.

    Source: arXiv:2302.06675, algorithm 2.
    """

    slot_names = ("momentum",)

    def __init__(
        self,
        *,
        groups: Annotated[Sequence[ParamGroup], Runtime()],
        betas: tuple[
            Annotated[float, Range(min=0.0, max=1.0, max_open=True)],
            Annotated[float, Range(min=0.0, max=1.0, max_open=True)],
        ] = (0.9, 0.99),
        weight_decay: Annotated[float, Range(min=0.0)] = 0.0,
    ) -> None:
        super().__init__(groups)
        self.betas = (float(betas[0]), float(betas[1]))
        self.weight_decay = weight_decay

    def _update(self, due: Sequence[tuple[ParamState, paddle.Tensor]], lr: float) -> None:
        beta1, beta2 = self.betas

        def update(state: ParamState, grad: paddle.Tensor) -> None:
            rate, momentum = lr * state.lr_scale, state.slots["momentum"]
            direction = paddle.sign((momentum * beta1).add_(grad * (1.0 - beta1)))
            if state.weight_decay:
                state.weights.scale_(1.0 - rate * state.weight_decay)
            state.weights.subtract_(direction.scale_(rate))
            momentum.scale_(beta2).add_(grad * (1.0 - beta2))

        self._update_each(due, update)

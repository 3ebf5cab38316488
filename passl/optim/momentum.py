"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import paddle

from passl.optim.base import Optimizer, ParamState
from passl.optim.groups import ParamGroup
from passl.optim.kernel_choice import momentum_kernel
from passl.registry import OPTIMIZERS, Range, Runtime

__all__ = ["Momentum"]


@OPTIMIZERS.register()
class Momentum(Optimizer):
    """SGD with momentum and L2 weight decay (added to the gradient)::

        g <- g + wd p
        v <- mu v + g            (the first v is g)
        p <- p - lr v            (nesterov: p - lr (g + mu v))

    Args:
        momentum: ``mu``; 0 is plain gradient descent (``SGD``), which remembers nothing.
        weight_decay: strength ``wd``; the parameter groups may change it.
        use_nesterov: look ahead along the velocity.

    Source: PyTorch's ``SGD`` without dampening; PASSL's ``Momentum`` (which has no Nesterov form).
    """

    def __init__(
        self,
        *,
        groups: Annotated[Sequence[ParamGroup], Runtime()],
        momentum: Annotated[float, Range(min=0.0, max=1.0, max_open=True)] = 0.9,
        weight_decay: Annotated[float, Range(min=0.0)] = 0.0,
        use_nesterov: bool = False,
    ) -> None:
        self.momentum = momentum
        super().__init__(groups)
        self.weight_decay = weight_decay
        self.use_nesterov = use_nesterov
        self._kernel = momentum_kernel()

    def slot_shapes(self, shape: Sequence[int]) -> dict[str, list[int]]:
        """The velocity, which plain gradient descent has not."""
        return {"velocity": list(shape)} if self.momentum else {}

    def _update(self, due: Sequence[tuple[ParamState, paddle.Tensor]], lr: float) -> None:
        rates = {  # made here, once each, and only read by the threads below
            scale: paddle.full([1], lr * scale, dtype="float32")
            for scale in {state.lr_scale for state, _ in due}
        }

        def update(state: ParamState, grad: paddle.Tensor) -> None:
            if self.momentum == 0.0:
                decayed = grad + state.weights * state.weight_decay if state.weight_decay else grad
                state.weights.subtract_(decayed * rates[state.lr_scale])
                return
            self._kernel(
                state.weights,
                grad,
                state.slots["velocity"],
                rates[state.lr_scale],
                self.momentum,
                state.weight_decay,
                self.use_nesterov,
            )

        self._update_each(due, update)


OPTIMIZERS.variant("SGD", Momentum, momentum=0.0)

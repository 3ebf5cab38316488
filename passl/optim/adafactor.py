"""Adafactor: second moments as an outer product, so that they take next to no memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Optional

import paddle

from passl.optim.base import Optimizer, ParamState
from passl.optim.groups import ParamGroup
from passl.optim.trust import rms
from passl.registry import OPTIMIZERS, Range, Runtime

__all__ = ["Adafactor"]


@OPTIMIZERS.register()
class Adafactor(Optimizer):
    """Adaptive rates from row and column means of squared gradients.

    With ``k`` the number of updates of the parameter, this one included, for a parameter of two or
    more axes (means are over the last axis and the one before it)::

        b <- 1 - k^decay_rate
        R <- b R + (1 - b) mean_columns(g^2 + eps)
        C <- b C + (1 - b) mean_rows(g^2 + eps)
        u <- g / sqrt(R C / mean(R))
        u <- a u / max(1, rms(u) / clip_threshold),    a = lr max(eps_scale, rms(p))
        p <- p (1 - a wd) - u

    A parameter of one axis or none keeps the whole average of ``g^2 + eps`` instead of ``R C``.
    With ``betas``, ``u`` is averaged before it is subtracted.  The learning rate always comes from
    the schedule; the paper's own is ``min(0.01, 1 / sqrt(k))``.

    Args:
        eps: added to the squares.
        eps_scale: least scale of a parameter, for those that start at zero.
        clip_threshold: largest root mean square of an update, before the learning rate.
        decay_rate: exponent of the decay of the averages, below 0.
        betas: the first is the decay rate of the average of updates, the second is not used; null
            keeps no such average.
        weight_decay: strength ``wd``; the parameter groups may change it.
        scale_parameter: measure steps by the size of the parameter; otherwise ``a = lr``.

    Source: arXiv:1804.04235, algorithms 4 and 5; arguments as in PASSL and timm.
    """

    def __init__(
        self,
        *,
        groups: Annotated[Sequence[ParamGroup], Runtime()],
        eps: Annotated[float, Range(min=0.0)] = 1e-30,
        eps_scale: Annotated[float, Range(min=0.0)] = 1e-3,
        clip_threshold: Annotated[float, Range(min=0.0, min_open=True)] = 1.0,
        decay_rate: Annotated[float, Range(max=0.0, max_open=True)] = -0.8,
        betas: Optional[
            tuple[
                Annotated[float, Range(min=0.0, max=1.0, max_open=True)],
                Annotated[float, Range(min=0.0, max=1.0, max_open=True)],
            ]
        ] = None,
        weight_decay: Annotated[float, Range(min=0.0)] = 0.0,
        scale_parameter: bool = True,
    ) -> None:
        self.beta1 = None if betas is None else float(betas[0])
        super().__init__(groups)
        self.eps, self.eps_scale = eps, eps_scale
        self.clip_threshold, self.decay_rate = clip_threshold, decay_rate
        self.weight_decay = weight_decay
        self.scale_parameter = scale_parameter

    def slot_shapes(self, shape: Sequence[int]) -> dict[str, list[int]]:
        """Means over the last axis and over the one before it, or the whole average."""
        axes = list(shape)
        shapes = {"moment2": axes}
        if len(axes) >= 2:
            shapes = {"rows": axes[:-1], "columns": [*axes[:-2], axes[-1]]}
        return shapes if self.beta1 is None else {"moment1": axes, **shapes}

    def _update(self, due: Sequence[tuple[ParamState, paddle.Tensor]], lr: float) -> None:
        def update(state: ParamState, grad: paddle.Tensor) -> None:
            weights, rate = state.weights, lr * state.lr_scale
            step = self._direction(state, grad)
            # At least 1: an update is made shorter, never longer.
            length = (rms(step) * (1.0 / self.clip_threshold)).clip(min=1.0)
            scale = rms(weights).clip(min=self.eps_scale) * rate if self.scale_parameter else None
            step.multiply_((rate if scale is None else scale) / length)
            if self.beta1 is not None:
                average = state.slots["moment1"].scale_(self.beta1).add_(step * (1.0 - self.beta1))
                step = average
            if state.weight_decay:
                decay = (rate if scale is None else scale) * state.weight_decay
                weights.subtract_(weights * decay)
            weights.subtract_(step)

        self._update_each(due, update)

    def _direction(self, state: ParamState, grad: paddle.Tensor) -> paddle.Tensor:
        """The gradient over the root of its second moments, which take it in."""
        new = state.num_updates**self.decay_rate  # share of this gradient
        squares = (grad * grad).scale_(1.0, self.eps)
        if "moment2" in state.slots:
            moment = state.slots["moment2"].scale_(1.0 - new).add_(squares.scale_(new))
            return moment.rsqrt().multiply_(grad)
        rows, columns = state.slots["rows"], state.slots["columns"]
        rows.scale_(1.0 - new).add_(squares.mean(axis=-1).scale_(new))
        columns.scale_(1.0 - new).add_(squares.mean(axis=-2).scale_(new))
        of_rows = (rows / rows.mean(axis=-1, keepdim=True)).rsqrt_().unsqueeze(-1)
        return (of_rows * columns.rsqrt().unsqueeze(-2)).multiply_(grad)

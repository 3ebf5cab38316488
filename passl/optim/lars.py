"""LARS and LARC: momentum with a learning rate of its own for each layer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated

import paddle

from passl.optim.base import Optimizer, ParamState
from passl.optim.groups import ParamGroup
from passl.optim.trust import l2_norm, trust_ratio
from passl.registry import OPTIMIZERS, Range, Runtime

__all__ = ["LARS", "MomentumLARS"]


class _LayerwiseMomentum(Optimizer):
    """Momentum over gradients that are scaled tensor by tensor; the first velocity is the gradient.

    Args:
        groups: parameters with their weight decay and learning-rate factor.
        momentum: share of the velocity that stays.
        use_nesterov: look ahead along the velocity.
    """

    slot_names = ("velocity",)

    def __init__(
        self, groups: Sequence[ParamGroup], momentum: float, use_nesterov: bool = False
    ) -> None:
        super().__init__(groups)
        self.momentum, self.use_nesterov = momentum, use_nesterov

    @abstractmethod
    def _scaled(self, state: ParamState, grad: paddle.Tensor, _rate: float, /) -> paddle.Tensor:
        """The gradient with weight decay, times the factor of this tensor at the rate ``_rate``."""

    def _update(self, due: Sequence[tuple[ParamState, paddle.Tensor]], lr: float) -> None:
        def update(state: ParamState, grad: paddle.Tensor) -> None:
            rate = lr * state.lr_scale
            scaled = self._scaled(state, grad, rate)
            velocity = state.slots["velocity"].scale_(self.momentum).add_(scaled)
            step = scaled + velocity * self.momentum if self.use_nesterov else velocity
            state.weights.subtract_(step * rate)

        self._update_each(due, update)


@OPTIMIZERS.register()
class LARS(_LayerwiseMomentum):
    """Momentum with layer-wise adaptive rates::

        r <- trust_coefficient |p| / (|g| + wd |p| + eps), or 1 where |p| or |g| is 0
        v <- mu v + r (g + wd p)
        p <- p - lr v            (nesterov: p - lr (r (g + wd p) + mu v))

    A parameter that does not decay (a bias, a norm) takes ``r = 1``, unless ``always_adapt``.
    ``MomentumLARC`` is the same with ``clip`` and ``always_adapt``, and a ``trust_coefficient`` of
    0.02, as in PASSL.

    Args:
        momentum: ``mu``.
        weight_decay: strength ``wd``; the parameter groups may change it.
        trust_coefficient: how far a layer moves in a step, relative to its norm.
        eps: keeps the quotient finite.
        clip: LARC: divide ``r`` by the learning rate and let it be at most 1, so that the rate of a
            layer is the smaller one of both.
        always_adapt: use ``r`` for parameters that do not decay as well.
        use_nesterov: look ahead along the velocity.

    Source: arXiv:1708.03888, algorithm 1; ``clip`` as in NVIDIA's LARC, the rest as in timm.
    """

    def __init__(
        self,
        *,
        groups: Annotated[Sequence[ParamGroup], Runtime()],
        momentum: Annotated[float, Range(min=0.0, max=1.0, max_open=True)] = 0.9,
        weight_decay: Annotated[float, Range(min=0.0)] = 0.0,
        trust_coefficient: Annotated[float, Range(min=0.0, min_open=True)] = 0.001,
        eps: Annotated[float, Range(min=0.0)] = 1e-8,
        clip: bool = False,
        always_adapt: bool = False,
        use_nesterov: bool = False,
    ) -> None:
        super().__init__(groups, momentum, use_nesterov)
        self.weight_decay = weight_decay
        self.trust_coefficient, self.eps = trust_coefficient, eps
        self.clip, self.always_adapt = clip, always_adapt

    def _scaled(self, state: ParamState, grad: paddle.Tensor, rate: float, /) -> paddle.Tensor:
        decay = state.weight_decay
        if not (decay or self.always_adapt):
            return grad
        weights, gradient = l2_norm(state.weights), l2_norm(grad)
        ratio = trust_ratio(
            weights * self.trust_coefficient, gradient, gradient + weights * decay + self.eps
        )
        if self.clip and rate > 0.0:  # at a rate of 0 nothing moves, whatever the ratio
            ratio = (ratio / rate).clip(max=1.0)
        return (grad + state.weights * decay) * ratio


@OPTIMIZERS.register()
class MomentumLARS(_LayerwiseMomentum):
    """LARS as PASSL has it, from MoCo v3: the norm of gradient and decay together::

        u <- g + wd p
        r <- trust_coefficient |p| / |u|, or 1 where either norm is 0
        v <- mu v + r u
        p <- p - lr v

    Parameters of one dimension or none (biases, norms) do not decay and take ``r = 1``.

    Args:
        momentum: ``mu``.
        weight_decay: strength ``wd``; the parameter groups may change it.
        trust_coefficient: how far a layer moves in a step, relative to its norm.

    Source: PASSL's ``MomentumLARS``; MoCo v3 (arXiv:2104.02057), its class ``LARS``.
    """

    def __init__(
        self,
        *,
        groups: Annotated[Sequence[ParamGroup], Runtime()],
        momentum: Annotated[float, Range(min=0.0, max=1.0, max_open=True)] = 0.9,
        weight_decay: Annotated[float, Range(min=0.0)] = 0.0,
        trust_coefficient: Annotated[float, Range(min=0.0, min_open=True)] = 0.001,
    ) -> None:
        super().__init__(groups, momentum)
        self.weight_decay = weight_decay
        self.trust_coefficient = trust_coefficient

    def _scaled(self, state: ParamState, grad: paddle.Tensor, _rate: float, /) -> paddle.Tensor:
        if len(state.weights.shape) <= 1:
            return grad
        update = grad + state.weights * state.weight_decay
        weights = l2_norm(state.weights) * self.trust_coefficient
        return update * trust_ratio(weights, l2_norm(update))


OPTIMIZERS.variant(
    "MomentumLARC", LARS, trust_coefficient=0.02, clip=True, always_adapt=True
)

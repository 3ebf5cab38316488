"""AdamW: Adam with weight decay that does not pass through the moments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import paddle

from passl.optim.base import Optimizer, ParamState, chunks, current_gradient
from passl.optim.groups import ParamGroup
from passl.optim.kernel_choice import adamw_kernel
from passl.optim.kernels import AdamWListKernel, AdamWScalars
from passl.registry import OPTIMIZERS, Range, Runtime

__all__ = ["AdamW"]


@OPTIMIZERS.register()
class AdamW(Optimizer):
    """Adam with decoupled weight decay.

    With ``k`` the number of updates of the parameter, this one included::

        p <- p (1 - lr wd)
        m <- b1 m + (1 - b1) g
        v <- b2 v + (1 - b2) g^2
        p <- p - lr (m / (1 - b1^k)) / (sqrt(v / (1 - b2^k)) + eps)

    Args:
        betas: decay rates of the two moments.
        eps: added to the root, after bias correction.
        weight_decay: strength ``wd``; the parameter groups may change it.

    Source: arXiv:1711.05101, algorithm 2 (with ``lr wd`` as PyTorch, Paddle and PASSL have it).
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
        eps: Annotated[float, Range(min=0.0)] = 1e-8,
        weight_decay: Annotated[float, Range(min=0.0)] = 0.0,
    ) -> None:
        super().__init__(groups)
        self.betas = (float(betas[0]), float(betas[1]))
        self.eps = eps
        self.weight_decay = weight_decay
        self._form = adamw_kernel()

    def _update(self, due: Sequence[tuple[ParamState, paddle.Tensor]], lr: float) -> None:
        scalars: dict[_Key, AdamWScalars] = {}
        for state, _ in due:  # made here, once each, and only read by the threads below
            key = _key(state)
            if key not in scalars:
                scalars[key] = AdamWScalars.at(
                    state.num_updates, lr * state.lr_scale, self.betas, self.eps, state.weight_decay
                )
        if self._form.update_list is not None:
            for chunk in chunks(due):  # bounds the memory of float32 gradients
                self._update_lists(self._form.update_list, chunk, scalars)
            return

        def update(state: ParamState, grad: paddle.Tensor) -> None:
            moments = state.slots["moment1"], state.slots["moment2"]
            self._form.update(state.weights, grad, *moments, scalars[_key(state)])

        if self._form.threaded:
            for state, grad in due:
                update(state, current_gradient(grad))
        else:
            self._update_each(due, update)

    def _update_lists(
        self,
        update_list: AdamWListKernel,
        due: Sequence[tuple[ParamState, paddle.Tensor]],
        scalars: Mapping[_Key, AdamWScalars],
    ) -> None:
        """One call for all parameters that share their numbers."""
        alike: dict[_Key, list[tuple[ParamState, paddle.Tensor]]] = {}
        for state, grad in due:
            alike.setdefault(_key(state), []).append((state, grad))
        for key, pairs in alike.items():
            update_list(
                [state.weights for state, _ in pairs],
                [current_gradient(grad) for _, grad in pairs],
                [state.slots["moment1"] for state, _ in pairs],
                [state.slots["moment2"] for state, _ in pairs],
                scalars[key],
            )


_Key = tuple[int, float, float]


def _key(state: ParamState) -> _Key:
    """What parameters with the same numbers have in common."""
    return state.num_updates, state.lr_scale, state.weight_decay

"""The arithmetic of the optimizers, on one float32 tensor at a time, in place.

Each update exists in several forms that compute the same thing: Paddle's fused kernels, which read
and write every number once, and a composition of public operations for versions of Paddle whose
kernels we do not know.  :mod:`passl.optim.kernel_choice` chooses.

Bias correction is folded into the learning rate and epsilon in Python's double precision,

    lr' = lr sqrt(1 - b2^k) / (1 - b1^k),    eps' = eps sqrt(1 - b2^k),

which is algebraically the same and leaves no running powers of the betas to save and restore.
Nothing here waits for the device.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable, Optional

import numpy as np
import paddle

__all__ = [
    "ADAMW_FORMS",
    "LAUNCH_CHUNK",
    "AdamWForm",
    "AdamWKernel",
    "AdamWListKernel",
    "AdamWScalars",
    "MomentumKernel",
    "momentum_composed",
    "momentum_fused",
    "signatures",
]


@dataclass(frozen=True)
class AdamWScalars:
    """The numbers of one AdamW update: ``p -= decay p; p -= lr m / (sqrt(v) + eps)``.

    Attributes:
        lr, lr_tensor: learning rate times bias correction, as a number and as float32 ``[1]``.
        decay: learning rate times weight decay.
        beta1, beta2: decay rates of the moments.
        eps: epsilon times the correction of the second moment.
        decay_per_lr: ``decay / lr`` (finite where ``lr`` is 0), for a kernel that multiplies them.
    """

    lr: float
    lr_tensor: paddle.Tensor
    decay: float
    beta1: float
    beta2: float
    eps: float
    decay_per_lr: float

    @classmethod
    def at(
        cls, step: int, lr: float, betas: tuple[float, float], eps: float, weight_decay: float
    ) -> AdamWScalars:
        """The numbers of update number ``step`` (1-based)."""
        # The kernels hold the betas in float32; the correction must be of those same numbers.
        beta1, beta2 = (float(np.float32(beta)) for beta in betas)
        root = math.sqrt(1.0 - beta2**step)
        correction = root / (1.0 - beta1**step)
        return cls(
            lr=lr * correction,
            lr_tensor=paddle.full([1], lr * correction, dtype="float32"),
            decay=lr * weight_decay,
            beta1=beta1,
            beta2=beta2,
            eps=eps * root,
            decay_per_lr=weight_decay / correction,
        )


AdamWKernel = Callable[
    [paddle.Tensor, paddle.Tensor, paddle.Tensor, paddle.Tensor, AdamWScalars], None
]
_Tensors = Sequence[paddle.Tensor]
AdamWListKernel = Callable[[_Tensors, _Tensors, _Tensors, _Tensors, AdamWScalars], None]
#: (parameter, gradient, velocity, learning rate as float32 [1], momentum, weight decay, nesterov)
MomentumKernel = Callable[
    [paddle.Tensor, paddle.Tensor, paddle.Tensor, paddle.Tensor, float, float, bool], None
]

#: From this many numbers on, memory decides and one pass wins; below, the numbers stay in the cache
#: and starting threads costs more than a second pass.
_LARGE = 2**19

#: Numbers that one block of a GPU updates in the multi-tensor kernel: 86 million fill 6 launches.
LAUNCH_CHUNK = 2**16


@dataclass(frozen=True)
class AdamWForm:
    """One way to compute AdamW.

    Attributes:
        name: in the tests.
        update: updates one parameter.
        threaded: it uses several threads by itself.
        update_list: updates many parameters that share the scalars, in one call; None without one.
    """

    name: str
    update: AdamWKernel
    threaded: bool
    update_list: Optional[AdamWListKernel] = None


def _adamw_fused(
    param: paddle.Tensor, grad: paddle.Tensor, m: paddle.Tensor, v: paddle.Tensor, s: AdamWScalars
) -> None:
    """Paddle's AdamW kernel, with its own bias correction switched off (powers held at 0)."""
    zero = _zero()
    max_v, amsgrad = ((None,), (False,)) if signatures() == "3" else ((), ())
    paddle._C_ops.adamw_(
        param, grad, s.lr_tensor, m, v, *max_v, zero, zero, None, None,
        s.beta1, s.beta2, s.eps, 1.0, s.decay_per_lr, s.decay_per_lr != 0.0, False, 1000,
        False, True, *amsgrad,
    )  # fmt: skip


def _adamw_decay_then_adam(
    param: paddle.Tensor, grad: paddle.Tensor, m: paddle.Tensor, v: paddle.Tensor, s: AdamWScalars
) -> None:
    """Decay in place, then Paddle's multi-tensor Adam kernel on a list of one."""
    if s.decay:
        param.scale_(1.0 - s.decay)
    zero = [_zero()]
    max_v, amsgrad = ((None,), (False,)) if signatures() == "3" else ((), ())
    paddle._C_ops.merged_adam_(
        [param], [grad], [s.lr_tensor], [m], [v], *max_v, zero, zero, None,
        s.beta1, s.beta2, s.eps, False, True, *amsgrad,
    )  # fmt: skip


def _adamw_by_size(
    param: paddle.Tensor, grad: paddle.Tensor, m: paddle.Tensor, v: paddle.Tensor, s: AdamWScalars
) -> None:
    """The fused kernel, which starts threads of its own, for large tensors only."""
    form = _adamw_fused if param.size >= _LARGE else _adamw_decay_then_adam
    form(param, grad, m, v, s)


def _adamw_listed(
    params: _Tensors, grads: _Tensors, m: _Tensors, v: _Tensors, s: AdamWScalars
) -> None:
    """Paddle's multi-tensor AdamW: on a GPU one launch for up to 60 tensors or 320 chunks.

    Source: the limits, fused_adam_kernel.cu of Paddle 3.
    """
    zeros = [_zero()] * len(params)
    max_v, amsgrad = ((None,), (False,)) if signatures() == "3" else ((), ())
    paddle._C_ops.fused_adam_(
        list(params), list(grads), s.lr_tensor, list(m), list(v), *max_v, zeros, zeros, None, None,
        s.beta1, s.beta2, s.eps, LAUNCH_CHUNK, s.decay_per_lr, True, False, True, *amsgrad,
    )  # fmt: skip


def _adamw_listed_one(
    param: paddle.Tensor, grad: paddle.Tensor, m: paddle.Tensor, v: paddle.Tensor, s: AdamWScalars
) -> None:
    _adamw_listed([param], [grad], [m], [v], s)


def _adamw_composed(
    param: paddle.Tensor, grad: paddle.Tensor, m: paddle.Tensor, v: paddle.Tensor, s: AdamWScalars
) -> None:
    """Public operations only."""
    m.scale_(s.beta1).add_(grad * (1.0 - s.beta1))
    v.scale_(s.beta2).add_(grad * grad * (1.0 - s.beta2))
    param.scale_(1.0 - s.decay).subtract_(m / (v.sqrt() + s.eps) * s.lr)


ADAMW_FORMS = {
    form.name: form
    for form in (
        AdamWForm("fused", _adamw_fused, threaded=True),
        AdamWForm("listed", _adamw_listed_one, threaded=True, update_list=_adamw_listed),
        AdamWForm("by_size", _adamw_by_size, threaded=True),
        AdamWForm("decay_then_adam", _adamw_decay_then_adam, threaded=False),
        AdamWForm("composed", _adamw_composed, threaded=False),
    )
}


def momentum_fused(
    param: paddle.Tensor,
    grad: paddle.Tensor,
    velocity: paddle.Tensor,
    lr: paddle.Tensor,
    momentum: float,
    weight_decay: float,
    nesterov: bool,
) -> None:
    """Paddle's kernel."""
    paddle._C_ops.momentum_(
        param, grad, velocity, lr, None, momentum, nesterov, "l2_decay", weight_decay, False, 1.0
    )


def momentum_composed(
    param: paddle.Tensor,
    grad: paddle.Tensor,
    velocity: paddle.Tensor,
    lr: paddle.Tensor,
    momentum: float,
    weight_decay: float,
    nesterov: bool,
) -> None:
    """Public operations only."""
    grad = grad + param * weight_decay if weight_decay else grad
    velocity.scale_(momentum).add_(grad)
    param.subtract_((grad + velocity * momentum if nesterov else velocity) * lr)


@functools.lru_cache(maxsize=1)
def signatures() -> str:
    """Which argument lists the fused kernels have: ``3``, ``2.6`` or ``unknown``.

    Read from the version: calling a kernel with the wrong list can end the process (2.6.2 does).
    """
    match = re.match(r"(\d+)\.(\d+)", paddle.__version__)
    major, minor = (int(match[1]), int(match[2])) if match else (0, 0)
    if not all(hasattr(paddle._C_ops, n) for n in ("adamw_", "merged_adam_", "momentum_")):
        return "unknown"
    return {(2, 6): "2.6"}.get((major, minor), "3" if major == 3 else "unknown")


@functools.lru_cache(maxsize=1)
def _zero() -> paddle.Tensor:
    """A shared, never written [1]; on the host, where the kernels read it without waiting."""
    return paddle.zeros([1], dtype="float32").cpu()

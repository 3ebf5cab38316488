"""Mixed precision: which operations run in fp16 or bf16, and the loss scale that fp16 needs.

Under ``paddle.amp.auto_cast`` the operations of Paddle's white list (matrix products, convolutions)
are cast at both levels; of the others ``O1`` keeps the unsafe ones in fp32, and ``O2`` computes in
half precision those whose inputs all are.  At ``O1`` parameters stay fp32 and gradients arrive in
fp32; at ``O2`` weights are half, with fp32 masters (:mod:`passl.precision.half_weights`) and fp32
sums of gradients (:mod:`passl.precision.gradients`).  At both, the scores' softmax, the loss, the
gradients' norm, clipping and update are fp32.  The loss scale is dynamic with PASSL's keys; it adds
a floor of 1, below which a run is not underflowing but broken.

A CPU computes in fp32 whatever is asked (Paddle has no half-precision kernels there).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping
from typing import Any, Optional, Union

import paddle
from paddle import Tensor

from passl.errors import PasslError
from passl.optim.parallel import on_cpu

__all__ = ["LossScaler", "Precision"]

#: Steps without an update, at the smallest scale, after which a run is given up: a single bad batch
#: or two happen, this many in a row do not mend themselves.
_HOPELESS_STEPS = 100


class LossScaler:
    """Multiplies the loss so that fp16 gradients neither vanish nor overflow.

    After ``decr_every_n_nan_or_inf`` bad steps in a row the scale shrinks, after
    ``incr_every_n_steps`` good ones it grows.  Defaults: PASSL.  Source: Micikevicius et al., Mixed
    Precision Training, 2018, section 3.2; counters as in ``paddle.amp.GradScaler``.

    Args:
        init_loss_scaling: first scale.
        max_loss_scaling: ceiling of the scale.
        min_loss_scaling: floor of the scale.
        incr_ratio, decr_ratio: factors of growth and shrinking.
        incr_every_n_steps: good steps in a row before it grows.
        decr_every_n_nan_or_inf: bad steps in a row before it shrinks.
        use_dynamic_loss_scaling: False keeps the first scale.

    Raises:
        ValueError: the first scale is above the ceiling.
    """

    def __init__(
        self,
        *,
        init_loss_scaling: float = 1024.0,
        max_loss_scaling: float = 2.0**32,
        min_loss_scaling: float = 1.0,
        incr_ratio: float = 2.0,
        decr_ratio: float = 0.5,
        incr_every_n_steps: int = 1000,
        decr_every_n_nan_or_inf: int = 2,
        use_dynamic_loss_scaling: bool = True,
    ) -> None:
        if init_loss_scaling > max_loss_scaling:
            raise ValueError(
                f"init_loss_scaling={init_loss_scaling:g} is above "
                f"max_loss_scaling={max_loss_scaling:g}"
            )
        self.scale = float(init_loss_scaling)
        self._low, self._high = min_loss_scaling, max_loss_scaling
        self._grow, self._shrink = incr_ratio, decr_ratio
        self._good_needed, self._bad_needed = incr_every_n_steps, decr_every_n_nan_or_inf
        self._dynamic = use_dynamic_loss_scaling
        self._good = self._bad = 0
        self._stuck = 0

    @property
    def is_stuck(self) -> bool:
        """The newest step was bad, and the scale could not shrink further."""
        return self._stuck > 0

    @property
    def is_hopeless(self) -> bool:
        """Many bad steps in a row, and the scale cannot shrink further."""
        return self._stuck >= _HOPELESS_STEPS

    def update(self, finite: bool) -> None:
        """Count one step and move the scale."""
        stuck = not finite and (not self._dynamic or self.scale <= self._low)
        self._stuck = self._stuck + 1 if stuck else 0
        if not self._dynamic:
            return
        if finite:
            self._good, self._bad = self._good + 1, 0
            if self._good >= self._good_needed:
                self.scale, self._good = min(self.scale * self._grow, self._high), 0
        else:
            self._good, self._bad = 0, self._bad + 1
            if self._bad >= self._bad_needed:
                self.scale, self._bad = max(self.scale * self._shrink, self._low), 0

    def state_dict(self) -> dict[str, float]:
        """Scale and counters."""
        return {"scale": self.scale, "good": self._good, "bad": self._bad}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """The inverse of :meth:`state_dict`; an empty state, of a run without scale, is ignored.

        A scale that does not move is what the settings say now, and one that does keeps to the
        bounds that they give now.
        """
        if state and self._dynamic:
            self.scale = min(max(float(state["scale"]), self._low), self._high)
            self._good, self._bad = int(state["good"]), int(state["bad"])


class Precision:
    """How one training step casts, scales and decides.

    Args:
        level: ``O0`` fp32, ``O1`` or ``O2`` automatic casts.
        dtype: ``float16`` (with a loss scale) or ``bfloat16`` (without).
        scaler: the loss scale; used for float16 only.
        white_list, black_list: names of operations always or never cast.
    """

    def __init__(
        self,
        level: str = "O0",
        dtype: str = "float16",
        scaler: Optional[LossScaler] = None,
        white_list: Optional[list[str]] = None,
        black_list: Optional[list[str]] = None,
    ) -> None:
        self.level, self.dtype = level, dtype
        self.scaler = scaler if level != "O0" and dtype == "float16" else None
        self._lists: dict[str, Any] = {
            "custom_white_list": white_list,
            "custom_black_list": black_list,
        }

    def describe(self) -> str:
        """For the start-up summary: ``fp32`` or ``O2 float16, loss scale 65536``."""
        if self.level == "O0":
            return "fp32"
        scale = f", loss scale {self.scaler.scale:g}" if self.scaler else ""
        return f"{self.level} {self.dtype}{scale}"

    def record(self) -> dict[str, str]:
        """What a checkpoint remembers: what ran, which on a CPU is not what the config asks."""
        return {"level": self.level, "dtype": "float32" if self.level == "O0" else self.dtype}

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context of the forward pass."""
        if self.level == "O0":
            return contextlib.nullcontext()
        return paddle.amp.auto_cast(level=self.level, dtype=self.dtype, **self._lists)

    def backward(self, loss: Tensor, share: float = 1.0) -> None:
        """Back-propagate ``share`` times the (scaled) loss; gradients add up.

        A loss that is not finite makes every gradient NaN, also where its derivative happens to be
        finite: so it is part of the gradients' norm, on this rank and, once they are summed, on
        all.

        Args:
            loss: float32 scalar.
            share: its weight in the step, such as samples of the micro-batch over those of the
                global batch.
        """
        weight = paddle.scale(loss.detach(), 0.0, bias=share)  # 0 times infinity is NaN
        weighted = loss * weight
        (weighted * self.scaler.scale if self.scaler else weighted).backward()

    @property
    def scale(self) -> float:
        """What the loss is multiplied by before it is differentiated; 1 without a scaler."""
        return self.scaler.scale if self.scaler is not None else 1.0

    def unscale(self, gradients: Iterable[Optional[Tensor]]) -> None:
        """Divide gradients by the scale in place; nothing to do without one."""
        if self.scaler is not None and self.scaler.scale != 1.0:
            with paddle.no_grad():
                for gradient in gradients:
                    if gradient is not None:
                        gradient.scale_(1.0 / self.scaler.scale)

    def accept(self, grad_norm: Tensor) -> Union[bool, Tensor]:
        """Whether this step's update may be applied; moves the scale.

        Args:
            grad_norm: norm of the gradients summed over all ranks, so that all decide alike.

        Returns:
            The answer on a CPU, where reading costs nothing, and for fp16, whose scale must know
            it at once (one read a step); else a bool tensor [] that only the device knows so far.

        Raises:
            PasslError: no step is accepted any more, at the smallest scale.
        """
        if self.scaler is None and not on_cpu():
            return paddle.isfinite(grad_norm)
        finite = math.isfinite(float(grad_norm.item()))
        if self.scaler is None:
            return finite
        self.scaler.update(finite)
        if self.scaler.is_hopeless:
            raise PasslError(
                f"{_HOPELESS_STEPS} steps in a row had gradients that are not finite, with a loss "
                f"scale of {self.scaler.scale:g}: the model itself overflows {self.dtype}. Use "
                "-o FP16.dtype=bfloat16 or FP16.level=O1, or a lower learning rate; checkpoints "
                "from before are kept"
            )
        return finite

    @property
    def shrinks_instead(self) -> bool:
        """A step that was not accepted only overflowed fp16: the scale goes down, no more to it."""
        return self.scaler is not None and not self.scaler.is_stuck

    def state_dict(self) -> dict[str, float]:
        """The scale's state; empty without one."""
        return self.scaler.state_dict() if self.scaler else {}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """The inverse of :meth:`state_dict`."""
        if self.scaler:
            self.scaler.load_state_dict(state)

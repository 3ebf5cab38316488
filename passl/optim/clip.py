"""Gradient clipping by the norm of all gradients together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Optional, Union

import paddle

from passl.optim.parallel import map_tensors, on_cpu

__all__ = ["ClipGradByGlobalNorm", "global_norm", "sum_of_squares"]

#: Keeps the quotient finite for a norm of 0; the same number as in PyTorch and PASSL.
_TINY = 1e-6

Parameter = Union[paddle.Tensor, tuple[str, paddle.Tensor]]


class ClipGradByGlobalNorm:
    """Scale gradients so that their common norm is at most ``clip_norm``.

    One norm over *all* parameters, whatever groups they are in, with squares and sums in float32
    whatever the dtype of the gradients.  If the norm is above ``clip_norm``, every gradient is
    multiplied by ``clip_norm / (norm + 1e-6)``.

    Args:
        clip_norm: the largest norm, above 0.
        always_clip: scale even if the norm is smaller (small gradients are then scaled *up*).
        clip_norm_max: upper bound of the factor; None is no bound.
        no_clip_list: parameters whose name contains one of these count for nothing here and keep
            their gradient.

    Source: arXiv:1211.5063; the factor as in PyTorch's ``clip_grad_norm_``, the options as in
        PASSL's class of this name, which takes the norm of one parameter group at a time.

    Raises:
        ValueError: ``clip_norm`` is not above 0.
    """

    def __init__(
        self,
        clip_norm: float = 1.0,
        always_clip: bool = False,
        clip_norm_max: Optional[float] = None,
        no_clip_list: Sequence[str] = (),
    ) -> None:
        if not clip_norm > 0:
            raise ValueError(
                f"ClipGradByGlobalNorm.clip_norm must be above 0, found {clip_norm}; to switch "
                "clipping off, remove grad_clip"
            )
        self.clip_norm = clip_norm
        self.always_clip = always_clip
        self.clip_norm_max = clip_norm_max
        self.no_clip_list = tuple(no_clip_list)

    @paddle.no_grad()
    def __call__(self, params: Iterable[Parameter], scale: float = 1.0) -> paddle.Tensor:
        """Clip in place and return the norm before clipping, a float32 scalar tensor.

        Gradients of a scaled loss are divided by its scale in the same pass, and rounded once.

        Args:
            params: parameters, or ``(structured name, parameter)`` pairs (``no_clip_list`` looks at
                the structured name; at Paddle's own without one).  Those without a gradient are
                passed over.
            scale: the gradients are those of the loss times this; afterwards they are not, also
                those of ``no_clip_list``.

        Returns:
            The norm, without ``scale``; infinite or NaN if a gradient is.  NaN leaves the gradients
            as they are, but for the scale.  Nothing is read back from a device; on a CPU reading
            costs nothing and saves the multiplication by 1.
        """
        params = list(params)
        grads = self._gradients(params)
        norm = _norm(grads)
        if scale != 1.0:
            norm = norm * (1.0 / scale)
            _multiply(_with_gradient(self.left_out(params)), 1.0 / scale)
        if on_cpu():
            factor = self._factor(norm.item()) / scale
            if factor != 1.0:
                _multiply(grads, factor)
            return norm
        scaled = self.clip_norm / (norm + _TINY)
        if self.clip_norm_max is not None:
            scaled = scaled.clip(max=self.clip_norm_max)
        if not self.always_clip:
            scaled = paddle.where(norm > self.clip_norm, scaled, paddle.ones_like(scaled))
        _multiply(grads, scaled * (1.0 / scale))
        return norm

    def left_out(self, params: Iterable[Parameter]) -> list[Parameter]:
        """Those of ``params`` that ``no_clip_list`` keeps out of the norm."""
        if not self.no_clip_list:
            return []
        return [item for item in params if self._is_left_out(_name(item))]

    def _is_left_out(self, name: str) -> bool:
        return any(part in name for part in self.no_clip_list)

    def _factor(self, norm: float) -> float:
        """What the gradients are multiplied by, in Python; 1.0 for none."""
        if math.isnan(norm) or (norm <= self.clip_norm and not self.always_clip):
            return 1.0
        factor = self.clip_norm / (norm + _TINY)
        return factor if self.clip_norm_max is None else min(factor, self.clip_norm_max)

    def _gradients(self, params: Iterable[Parameter]) -> list[paddle.Tensor]:
        return _with_gradient(item for item in params if not self._is_left_out(_name(item)))


@paddle.no_grad()
def global_norm(params: Iterable[Parameter]) -> paddle.Tensor:
    """The L2 norm of all gradients together, a float32 scalar; 0 if there is none."""
    return _norm(_with_gradient(params))


def _with_gradient(params: Iterable[Parameter]) -> list[paddle.Tensor]:
    """The gradients of those that have one."""
    tensors = (item[1] if isinstance(item, tuple) else item for item in params)
    return [param.grad for param in tensors if param.grad is not None]


def _name(item: Parameter) -> str:
    return str(item[0] if isinstance(item, tuple) else item.name)


def _norm(grads: Sequence[paddle.Tensor]) -> paddle.Tensor:
    if not grads:
        return paddle.zeros([], dtype="float32")
    squares = map_tensors(sum_of_squares, grads, [grad.size for grad in grads])
    return paddle.concat(squares).sum().sqrt()  # in the order of the parameters, always


def sum_of_squares(grad: paddle.Tensor) -> paddle.Tensor:
    """Float32 ``[1]``.

    The kernel under Paddle's own clipping: one pass, and pairwise sums, where ``paddle.dot`` adds
    one after another and loses more than half of a sum over 86 million small equal squares.
    """
    if grad.dtype != paddle.float32:
        grad = grad.astype("float32")
    kernel = getattr(paddle._C_ops, "squared_l2_norm", None)
    squares = kernel(grad) if kernel else grad.square().sum()
    return squares if squares.shape else squares.reshape([1])


def _multiply(grads: Sequence[paddle.Tensor], factor: Union[float, paddle.Tensor]) -> None:
    def scale(grad: paddle.Tensor) -> None:
        if grad.dtype != paddle.float32:  # a factor in half precision would be off by 0.05 percent
            paddle.assign((grad.astype("float32") * factor).astype(grad.dtype), output=grad)
        elif isinstance(factor, float):
            grad.scale_(factor)
        else:
            grad.multiply_(factor)

    map_tensors(scale, grads, [grad.size for grad in grads])

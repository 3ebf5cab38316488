"""Several losses as one, each still visible in the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

import paddle

from passl.losses.targets import in_fp32

__all__ = ["CombinedLoss"]

Loss = Callable[[paddle.Tensor, paddle.Tensor], paddle.Tensor]


class CombinedLoss:
    """The weighted sum of losses.

    Args:
        terms: ``(name, weight, loss)`` triples; a repeated name gets a number (``CELoss_2``), so
            two terms of one class are both kept.

    Attributes:
        names: keys of the result, in the order of the log: each term, then ``loss``.

    Raises:
        ValueError: there is no term.
    """

    def __init__(self, terms: Sequence[tuple[str, float, Loss]]) -> None:
        if not terms:
            raise ValueError("a run needs at least one loss")
        self._terms: dict[str, tuple[float, Loss]] = {}
        for name, weight, loss in terms:
            self._terms[self._free(name)] = (weight, loss)
        self.names = [*self._terms, "loss"]

    def __call__(self, logits: paddle.Tensor, target: paddle.Tensor) -> dict[str, paddle.Tensor]:
        """Each term times its weight, and their sum as ``loss``; float32 scalars.

        Args:
            logits: ``[B, C]`` of any floating-point dtype; the losses see float32.
            target: integer ``[B]``, or floating-point ``[B, C]``.
        """
        logits = in_fp32(logits)
        parts: dict[str, paddle.Tensor] = {}
        for name, (weight, loss) in self._terms.items():
            value = loss(logits, target)
            parts[name] = value if weight == 1.0 else value * weight
        values = list(parts.values())
        parts["loss"] = sum(values[1:], values[0])
        return parts

    def per_sample(self, logits: paddle.Tensor, target: paddle.Tensor) -> dict[str, paddle.Tensor]:
        """The same for each sample alone: float64 ``[B]``, computed in float64 where a loss can.

        A loss with a method ``per_sample(logits, target) -> [B]`` is asked for it; one without is
        called on each sample, which gives the same and takes longer.

        Args:
            logits: ``[B, C]`` of any floating-point dtype.
            target: integer ``[B]``, or floating-point ``[B, C]``.
        """
        logits = in_fp32(logits)
        parts: dict[str, paddle.Tensor] = {}
        for name, (weight, loss) in self._terms.items():
            parts[name] = _each(loss, logits, target).astype("float64") * weight
        values = list(parts.values())
        parts["loss"] = sum(values[1:], values[0])
        return parts

    def _free(self, name: str) -> str:
        number, free = 1, name
        while free in self._terms or free == "loss":
            number += 1
            free = f"{name}_{number}"
        return free


def _each(loss: Loss, logits: paddle.Tensor, target: paddle.Tensor) -> paddle.Tensor:
    method = getattr(loss, "per_sample", None)
    if method is not None:
        return method(logits.astype("float64"), target)
    count = logits.shape[0]
    single = [loss(logits[i : i + 1], target[i : i + 1]).reshape([1]) for i in range(count)]
    return paddle.concat(single)

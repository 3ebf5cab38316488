"""Norms of one tensor, and steps measured by them, on the device and without waiting for it."""

from __future__ import annotations

from typing import Union

import paddle

from passl.optim.clip import sum_of_squares

__all__ = ["l2_norm", "rms", "trust_ratio"]


def l2_norm(tensor: paddle.Tensor) -> paddle.Tensor:
    """The root of the sum of squares, a float32 scalar."""
    return sum_of_squares(tensor).reshape([]).sqrt()


def rms(tensor: paddle.Tensor) -> paddle.Tensor:
    """The root of the mean of squares, a float32 scalar."""
    return (sum_of_squares(tensor).reshape([]) * (1.0 / max(1, int(tensor.size)))).sqrt()


def trust_ratio(
    weights: paddle.Tensor, update: paddle.Tensor, denominator: Union[paddle.Tensor, None] = None
) -> paddle.Tensor:
    """``weights / denominator``, or 1 where ``weights`` or ``update`` is 0.

    Args:
        weights: norm of the weights, a scalar.
        update: norm of the update, a scalar.
        denominator: what to divide by; None: ``update``.
    """
    ratio = weights / (update if denominator is None else denominator)
    usable = paddle.logical_and(weights > 0.0, update > 0.0)
    return paddle.where(usable, ratio, paddle.ones_like(ratio))

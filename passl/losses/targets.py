"""Telling class indices from per-class targets, and turning one into the other."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F

__all__ = ["as_class_targets", "as_indices", "holds_indices", "in_fp32"]


def holds_indices(logits: paddle.Tensor, target: paddle.Tensor) -> bool:
    """Whether ``target`` holds one class index per sample (else: one number per class).

    The dtype decides: a batch may well have as many samples as there are classes.

    Args:
        logits: ``[B, C]``.
        target: integer ``[B]`` or ``[B, 1]``, or floating-point ``[B, C]``.

    Raises:
        ValueError: the target is neither.
    """
    if paddle.is_floating_point(target):
        if list(target.shape) == list(logits.shape):
            return False
        raise ValueError(
            f"a floating-point target must have one number per class: logits {_show(logits)}, "
            f"target {_show(target)}"
        )
    if target.shape[0] == logits.shape[0] and list(target.shape[1:]) in ([], [1]):
        return True
    raise ValueError(
        f"an integer target must hold one class index per sample, shape [{logits.shape[0]}]: "
        f"logits {_show(logits)}, target {_show(target)} (sets of labels are float32 [B, C])"
    )


def as_indices(target: paddle.Tensor) -> paddle.Tensor:
    """int64 ``[B]`` from an integer ``[B]`` or ``[B, 1]``."""
    return target.reshape([-1]).astype("int64")


def as_class_targets(target: paddle.Tensor, class_num: int) -> paddle.Tensor:
    """float32 ``[B, C]``: one-hot rows from class indices; a per-class target as it is."""
    if paddle.is_floating_point(target):
        return in_fp32(target)
    return F.one_hot(as_indices(target), class_num).astype("float32")


def in_fp32(tensor: paddle.Tensor) -> paddle.Tensor:
    """The tensor in float32; the same object if it is so already."""
    return tensor if tensor.dtype == paddle.float32 else tensor.astype("float32")


def _show(tensor: paddle.Tensor) -> str:
    return f"{str(tensor.dtype).rpartition('.')[2]} {list(tensor.shape)}"

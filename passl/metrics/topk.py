"""Top-k accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Union

import paddle

from passl.errors import ConfigError
from passl.registry import METRICS, Range

__all__ = ["TopkAcc"]


@METRICS.register()
class TopkAcc:
    """How often the right class is among the ``k`` largest logits.

    Among equal logits the lower class number comes first, so a result never depends on a sorting
    algorithm; a sample with a NaN logit at or above its class counts as wrong.  A ``k`` above the
    number of classes means the number of classes (top-5 of 3 classes is always 1).

    Args:
        topk: one ``k`` or several; the first one is also the run's ``metric``, by which the best
            checkpoint is chosen.

    Attributes:
        names: ``top1``, ``top5``, ...
    """

    def __init__(
        self,
        *,
        topk: Union[Annotated[int, Range(min=1)], tuple[Annotated[int, Range(min=1)], ...]] = (
            1,
            5,
        ),
    ) -> None:
        ks: Sequence[int] = [topk] if isinstance(topk, int) else list(topk)
        if not ks or len(set(ks)) != len(ks) or min(ks) < 1:
            raise ValueError(f"TopkAcc.topk: expected different numbers of at least 1, found {ks}")
        self.ks = tuple(ks)
        self.names = [f"top{k}" for k in self.ks]

    def __call__(self, logits: paddle.Tensor, target: paddle.Tensor) -> dict[str, paddle.Tensor]:
        """Number of hits in the batch for each ``k``: int64 scalars.

        Args:
            logits: ``[B, C]``.
            target: integer class indices, ``[B]`` or ``[B, 1]``.

        Raises:
            ConfigError: the target is not one class index per sample.
        """
        if paddle.is_floating_point(target) or (target.ndim > 1 and target.shape[1] != 1):
            raise ConfigError(
                "Metric: TopkAcc needs one class index per sample, but the targets are a number "
                f"per class ({list(target.shape)}), as Mixup, Cutmix and multi-label lists give; "
                "remove TopkAcc from that part of Metric"
            )
        rank = _rank_of(logits, target.reshape([-1, 1]).astype("int64"))
        class_num = logits.shape[1]
        return {
            name: (rank < min(k, class_num)).astype("int64").sum()
            for name, k in zip(self.names, self.ks)
        }


@paddle.no_grad()
def _rank_of(logits: paddle.Tensor, target_b1: paddle.Tensor) -> paddle.Tensor:
    """How many classes come before the target's, int64 ``[B]``; 0 is top-1.

    Counting costs one pass over the logits, where ``paddle.topk`` partly sorts them.
    """
    logits = logits.astype("float32")
    own = paddle.take_along_axis(logits, target_b1, axis=1)
    classes = paddle.arange(logits.shape[1], dtype="int64").unsqueeze(0)
    tie_before = paddle.logical_and(logits == own, classes < target_b1)
    # "not <=" rather than ">": NaN compares false with everything, and must not count as a hit.
    ahead = paddle.logical_or(paddle.logical_not(logits <= own), tie_before)
    return ahead.astype("int64").sum(axis=1)

"""Activation recomputation: less memory for a second forward pass of each block.

A model opts in by running its blocks through :func:`run_blocks` and having a class attribute
``recompute_every = 0``, which the engine sets to what ``Global.recompute`` asks for.

Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", section 4.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import paddle

__all__ = ["can_recompute", "run_blocks"]


def run_blocks(
    blocks: Iterable[Any], x: paddle.Tensor, *arguments: Any, recompute_every: int = 0
) -> paddle.Tensor:
    """``x`` through all blocks, one after another.

    Of every ``recompute_every``-th block, beginning with the first, only the input is kept for the
    backward pass, which runs the block again, with the same random masks.  Gradients are those of
    the plain pass bit for bit on a CPU.

    Args:
        blocks: layers ``block(x, *arguments) -> x``.
        x: input of the first block.
        arguments: given to every block as they are.
        recompute_every: 0 keeps all activations.
    """
    for index, block in enumerate(blocks):
        # An input without gradient, behind frozen layers, would cut off the block's own gradients.
        wanted = recompute_every and index % recompute_every == 0 and not x.stop_gradient
        if wanted and paddle.is_grad_enabled():
            from paddle.distributed.fleet.utils import recompute

            x = recompute(block, x, *arguments)
        else:
            x = block(x, *arguments)
    return x


def can_recompute(model: Any) -> bool:
    """Whether the model runs its blocks through :func:`run_blocks`."""
    return hasattr(type(model), "recompute_every")

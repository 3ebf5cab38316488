"""Position embeddings of one image size, resized for another."""

from __future__ import annotations

import math

import numpy as np
import paddle
import paddle.nn.functional as F

__all__ = ["resize_pos_embed"]


def resize_pos_embed(
    pos_embed: np.ndarray, grid_size: tuple[int, int], num_prefix_tokens: int
) -> np.ndarray:
    """Resize the grid of a position embedding; the tokens before the grid stay as they are.

    Bicubic with half-pixel centres, cubic coefficient a = -0.75, no antialiasing, as PASSL and
    DeiT fine-tune.

    Args:
        pos_embed: [1, prefix + rows * columns, D], any float; the source grid must be square,
            since a file does not say its shape.
        grid_size: rows and columns wanted.
        num_prefix_tokens: tokens before the grid, in the source as in the result (class token,
            ...).

    Returns:
        [1, prefix + grid_size[0] * grid_size[1], D] float32; equal to the source if the grid is
        the same.

    Raises:
        ValueError: the tokens after the prefix are not a square grid.

    Source: Dosovitskiy et al. 2021 (arXiv 2010.11929), section 3.2; Touvron et al. 2021 (arXiv
        2012.12877),
    section 6 (bicubic).
    """
    num_grid_tokens = pos_embed.shape[1] - num_prefix_tokens
    side = math.isqrt(max(num_grid_tokens, 0))
    if side == 0 or side * side != num_grid_tokens:
        raise ValueError(
            f"{pos_embed.shape[1]} tokens less the first {num_prefix_tokens} are no square grid"
        )
    source = pos_embed.astype(np.float32)
    if (side, side) == tuple(grid_size):
        return source
    prefix_1pd, grid_1nd = source[:, :num_prefix_tokens], source[:, num_prefix_tokens:]
    grid_1dhw = grid_1nd.reshape(1, side, side, -1).transpose(0, 3, 1, 2)
    resized_1dhw = F.interpolate(
        paddle.to_tensor(np.ascontiguousarray(grid_1dhw)),
        size=list(grid_size),
        mode="bicubic",
        align_corners=False,
    ).numpy()
    resized_1nd = resized_1dhw.transpose(0, 2, 3, 1).reshape(1, -1, source.shape[-1])
    return np.concatenate([prefix_1pd, resized_1nd], axis=1)

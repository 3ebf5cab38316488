"""Position embeddings of one image size, resized for another.

Four methods, because the systems whose weights are brought along do not agree (and the difference
is not small: zoom and bilinear differ by as much as the embeddings themselves).  Each is a product
with one matrix an axis, so all are exact, alike under every version of Paddle, and float64 inside.

==================  =================================================  ========================
method              samples                                            used by
==================  =================================================  ========================
bicubic             half-pixel centres, a = -0.75, no antialiasing     PASSL, DeiT
bicubic_antialias   half-pixel centres, a = -0.5, widened to shrink    timm
bilinear            half-pixel centres, no antialiasing                timm on Google's files
zoom                corners on corners, bilinear                       Google, jeonsworld
==================  =================================================  ========================
"""

from __future__ import annotations

import math
from typing import Callable, Optional

import numpy as np

__all__ = ["RESIZE_METHODS", "resize_grid", "resize_pos_embed", "resize_weights", "square_grid"]

#: Names that :func:`resize_pos_embed` and ``Global.pos_embed_resize`` take.
RESIZE_METHODS = ("bicubic", "bicubic_antialias", "bilinear", "zoom")
_SHARPNESS, _SHARPNESS_ANTIALIASED = -0.75, -0.5  # the cubic's a, as OpenCV and as Pillow choose it


def resize_pos_embed(
    pos_embed: np.ndarray,
    grid_size: tuple[int, int],
    num_prefix_tokens: int,
    *,
    method: str = "bicubic",
    source_grid: Optional[tuple[int, int]] = None,
    num_suffix_tokens: int = 0,
) -> np.ndarray:
    """Resize the grid of a position embedding; the tokens around the grid stay as they are.

    Args:
        pos_embed: [1, prefix + rows * columns + suffix, D], any float.
        grid_size: rows and columns wanted.
        num_prefix_tokens: tokens before the grid, in the source as in the result (class token,
            ...).
        method: one of :data:`RESIZE_METHODS`.
        source_grid: rows and columns of the source; None: a square.
        num_suffix_tokens: tokens after the grid (a class token that comes last).

    Returns:
        [1, prefix + grid_size[0] * grid_size[1] + suffix, D] float32; the source's bits if the
        grid is the same.

    Raises:
        ValueError: the tokens are no such grid, or there is no such method.

    Source: Dosovitskiy et al. 2021 (arXiv 2010.11929), section 3.2; Touvron et al. 2021 (arXiv
        2012.12877), section 6 (bicubic).
    """
    num_grid_tokens = pos_embed.shape[1] - num_prefix_tokens - num_suffix_tokens
    rows, columns = source_grid or square_grid(num_grid_tokens)
    if rows * columns != num_grid_tokens or num_grid_tokens < 1:
        shape = "square grid" if source_grid is None else f"grid of {rows} x {columns}"
        raise ValueError(f"{num_grid_tokens} tokens are no {shape}")
    source = pos_embed.astype(np.float32)
    if (rows, columns) == tuple(grid_size):
        return source
    end = num_prefix_tokens + num_grid_tokens
    grid_hwd = source[0, num_prefix_tokens:end].reshape(rows, columns, -1)
    resized_1nd = resize_grid(grid_hwd, grid_size, method).reshape(1, -1, source.shape[2])
    return np.concatenate([source[:, :num_prefix_tokens], resized_1nd, source[:, end:]], axis=1)


def square_grid(num_tokens: int) -> tuple[int, int]:
    """Rows and columns of a square of so many tokens; (0, 0) if there is none."""
    side = math.isqrt(max(num_tokens, 0))
    return (side, side) if side * side == num_tokens else (0, 0)


def resize_grid(grid_hwd: np.ndarray, size: tuple[int, int], method: str) -> np.ndarray:
    """[rows, columns, D] -> [size[0], size[1], D] float32; computed in float64."""
    down_hh = resize_weights(grid_hwd.shape[0], size[0], method)
    across_ww = resize_weights(grid_hwd.shape[1], size[1], method)
    tall_hwd = np.tensordot(down_hh, grid_hwd.astype(np.float64), axes=(1, 0))
    return np.einsum("vw,hwd->hvd", across_ww, tall_hwd).astype(np.float32)


def resize_weights(old: int, new: int, method: str) -> np.ndarray:
    """The matrix [new, old] float64 that resizes one axis; each row sums to 1.

    Raises:
        ValueError: there is no such method.

    Source: cubic convolution, Keys 1981; the four variants as PyTorch's ``interpolate`` (with and
        without ``antialias``) and SciPy's ``zoom`` of order 1 compute them.
    """
    if method not in RESIZE_METHODS:
        raise ValueError(f"there is no method {method!r}; there are {', '.join(RESIZE_METHODS)}")
    positions = np.arange(new, dtype=np.float64)
    if method == "zoom":
        centres = positions * ((old - 1) / (new - 1) if new > 1 else 0.0)
        return _sample(old, centres, 1, _triangle)
    scale = old / new
    centres = (positions + 0.5) * scale - 0.5
    if method == "bilinear":
        return _sample(old, centres, 1, _triangle)
    if method == "bicubic":
        return _sample(old, centres, 2, lambda x: _cubic(x, _SHARPNESS))
    stretch = max(scale, 1.0)  # shrinking averages over as many tokens as become one
    distances = (np.arange(old, dtype=np.float64)[None] - centres[:, None]) / stretch
    weights = _cubic(distances, _SHARPNESS_ANTIALIASED)
    return weights / weights.sum(axis=1, keepdims=True)


def _sample(
    old: int, centres: np.ndarray, reach: int, kernel: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Weights of the ``2 * reach`` neighbours of each centre; those outside are the border's."""
    weights = np.zeros((len(centres), old))
    rows = np.arange(len(centres))
    first = np.floor(centres)
    for offset in range(1 - reach, 1 + reach):
        neighbours = first + offset
        columns = np.clip(neighbours, 0, old - 1).astype(np.int64)
        np.add.at(weights, (rows, columns), kernel(centres - neighbours))
    return weights


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, 1.0 - np.abs(x))


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))

"""Pictures of weights: the filters of the patch embedding, and how alike positions are.

Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", figure 7, left and middle.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from paddle import nn

from passl.errors import ConfigError
from passl.visualize.figure import HEAT, add_heading, new_figure, save_figure, show_image
from passl.visualize.rollout import token_layout

__all__ = [
    "draw_filters",
    "draw_positions",
    "first_filters",
    "position_similarity",
    "principal_components",
]

_COLUMNS, _CELL = 14, 0.6  # inches
_MOST_POSITIONS = 16  # along a side
_TILE_PIXELS, _GAP_PIXELS = 60, 3


def first_filters(model: nn.Layer) -> tuple[str, np.ndarray]:
    """Name and weights [filters, channels, height, width] of the first layer over the image.

    That of the patches, or of the residual network of a hybrid.

    Raises:
        ConfigError: the first convolution does not look at one or three channels.
    """
    for name, layer in model.named_sublayers():
        weight = getattr(layer, "weight", None)
        if weight is not None and weight.ndim == 4:
            if weight.shape[1] not in (1, 3):
                raise ConfigError(
                    f"{name}.weight looks at {weight.shape[1]} channels, which are no colours; "
                    "filters are drawn of models of grey or coloured images"
                )
            return f"{name}.weight", weight.astype("float32").numpy()
    raise ConfigError(f"{type(model).__name__} has no convolution over the image")


def principal_components(filters: np.ndarray, most: int = 28) -> tuple[np.ndarray, np.ndarray]:
    """The main directions of the filters, after their mean is taken off.

    Args:
        filters: [n, channels, height, width].
        most: how many.

    Returns:
        components [k, channels, height, width] of length 1, the largest entry of each positive,
        and the part of the variance that each explains [k]; ``k`` is at most the rank there can be.
    """
    flat = filters.reshape(len(filters), -1).astype(np.float64)
    flat = flat - flat.mean(axis=0)
    _, singular, rows = np.linalg.svd(flat, full_matrices=False)
    share = singular**2 / max(float((singular**2).sum()), np.finfo(np.float64).tiny)
    signs = np.sign(rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)])
    components = (rows * signs[:, None]).reshape(-1, *filters.shape[1:])
    return components[:most], share[:most]


def position_similarity(model: Any) -> np.ndarray:
    """Cosine of the angle between the embeddings of any two patches' positions.

    Returns:
        float64 [rows, columns, rows, columns], -1 to 1.

    Raises:
        ConfigError: the model has no learned positions.
    """
    layout, embedded = token_layout(model), getattr(model, "pos_embed", None)
    if embedded is None:
        raise ConfigError(f"{type(model).__name__} has no pos_embed to look at")
    rows, columns = layout.grid
    positions = embedded.astype("float32").numpy().reshape(-1, embedded.shape[-1])
    positions = positions.astype(np.float64)
    if len(positions) != rows * columns:  # tokens before and after the patches have some as well
        positions = positions[layout.prefix : layout.prefix + rows * columns]
    positions /= np.maximum(np.linalg.norm(positions, axis=1, keepdims=True), 1e-12)
    return (positions @ positions.T).reshape(rows, columns, rows, columns)


def draw_filters(name: str, filters: np.ndarray, path: Path, *, title: str) -> Path:
    """The principal components of the filters, and the largest of the filters themselves.

    Args:
        name: of the weights.
        filters: [n, channels, height, width].
        path: of the file.
        title: model, step and weights.

    Raises:
        ConfigError: matplotlib is missing, or the file cannot be written.
    """
    components, share = principal_components(filters)
    norms = np.linalg.norm(filters.reshape(len(filters), -1), axis=1)
    largest = np.argsort(-norms, kind="stable")[: 4 * _COLUMNS]
    rows = [math.ceil(len(part) / _COLUMNS) for part in (components, largest)]
    width, height = _COLUMNS * _CELL + 0.3, 0.9 + sum(rows) * _CELL + 2 * 0.32
    with new_figure(width, height) as figure:
        top = height - add_heading(
            figure, title, f"{name}, {list(filters.shape)}; each from its least to its largest"
        )
        explained = f"First {len(components)} principal components, {share.sum():.0%} of variance"
        chosen = (
            f"The {len(largest)} filters of the largest norm, of {len(filters):,}"
            if len(largest) < len(filters)
            else f"All {len(filters)} filters, that of the largest norm first"
        )
        for part, words in ((components, explained), (filters[largest], chosen)):
            figure.text(0.15 / width, (top - 0.18) / height, words, weight="bold")
            top -= 0.3
            for number, values in enumerate(part):
                row, column = divmod(number, _COLUMNS)
                left, bottom = 0.15 + column * _CELL, top - (row + 1) * _CELL
                side = _CELL - 0.05
                axes = figure.add_axes(
                    (left / width, bottom / height, side / width, side / height)
                )
                show_image(axes, _as_pixels(values))
            top -= math.ceil(len(part) / _COLUMNS) * _CELL + 0.06
        return save_figure(figure, path)


def draw_positions(similarity: np.ndarray, path: Path, *, title: str) -> Path:
    """A tile for each position: its similarity to every other; of large grids evenly chosen ones.

    Args:
        similarity: of :func:`position_similarity`.
        path: of the file.
        title: model, step and weights.

    Raises:
        ConfigError: matplotlib is missing, or the file cannot be written.
    """
    grid = similarity.shape[:2]
    chosen = [_evenly(side, _MOST_POSITIONS) for side in grid]
    mosaic, middles = _mosaic(similarity, *chosen)
    cell = min(0.9, max(0.5, 6.5 / max(len(part) for part in chosen)))
    across = len(chosen[1]) * cell
    down = across * mosaic.shape[0] / mosaic.shape[1]  # each tile has the shape of the grid
    width, height = max(across + 1.55, 5.0), down + 1.55
    note = f"grid of {grid[0]} x {grid[1]}"
    if any(len(part) < side for part, side in zip(chosen, grid)):
        note += f", of which {len(chosen[0])} x {len(chosen[1])} positions are shown"
    note += "; each tile: the cosine of one position with all of them"
    least = min(0.0, float(similarity.min()))
    with new_figure(width, height) as figure:
        top = height - add_heading(figure, title, note)
        axes = figure.add_axes(
            (0.6 / width, (top - down) / height, across / width, down / height)
        )
        drawn = axes.imshow(mosaic, cmap=HEAT, vmin=least, vmax=1.0, interpolation="nearest")
        axes.set_yticks(middles[0], [str(row + 1) for row in chosen[0]])
        axes.set_xticks(middles[1], [str(column + 1) for column in chosen[1]])
        axes.set(xlabel="column of the patch", ylabel="row of the patch")
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        bar = figure.add_axes(
            ((0.75 + across) / width, (top - down) / height, 0.15 / width, down / height)
        )
        figure.colorbar(drawn, cax=bar, label="cosine similarity")
        return save_figure(figure, path)


def _mosaic(
    similarity: np.ndarray, rows: list[int], columns: list[int]
) -> tuple[np.ndarray, list[list[float]]]:
    """All tiles in one array with gaps of NaN between them, and the middles of rows and columns."""
    height, width = similarity.shape[2:]
    times = -(-_TILE_PIXELS // max(height, width))
    pitch = height * times + _GAP_PIXELS, width * times + _GAP_PIXELS
    mosaic = np.full([len(rows) * pitch[0], len(columns) * pitch[1]], np.nan)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            tile = similarity[row, column].repeat(times, axis=0).repeat(times, axis=1)
            top, left = i * pitch[0], j * pitch[1]
            mosaic[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    middles = [
        [(number + 0.5) * step - _GAP_PIXELS for number in range(len(part))]
        for part, step in zip((rows, columns), pitch)
    ]
    return mosaic[:-_GAP_PIXELS, :-_GAP_PIXELS], middles


def _as_pixels(values: np.ndarray) -> np.ndarray:
    """[channels, h, w] -> what can be drawn: stretched to 0..255, grey as a map."""
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / ((high - low) or 1.0)
    if len(values) == 1:
        return scaled[0]
    return np.rint(scaled.transpose(1, 2, 0) * 255).astype(np.uint8)


def _evenly(count: int, most: int) -> list[int]:
    if count <= most:
        return list(range(count))
    return [int(i) for i in np.unique(np.rint(np.linspace(0, count - 1, most)).astype(int))]

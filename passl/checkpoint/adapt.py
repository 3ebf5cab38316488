"""What fine-tuning changes in weights so that they fit a model of another image.

Another size of image or patch has another grid of positions, other patches another first kernel,
images of other channels too.  Nothing else is touched here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

import numpy as np

from passl.checkpoint.patch_embed_resize import adapt_channels, resize_patch_embed
from passl.checkpoint.pos_embed import resize_pos_embed, square_grid
from passl.errors import CheckpointError

__all__ = ["adapt_patch_embed", "adapt_positions", "unsaid_grid"]

_POS_EMBED = "pos_embed"
_PROJECTION = "patch_embed.proj.weight"
#: A hybrid's first convolution; R+ViT-Ti has nothing but a stem.
_HYBRID_STEMS = ("patch_embed.backbone.stem.conv.weight", "patch_embed.backbone.conv.weight")
#: Tokens that may have a position, in the order of their positions.
_TOKENS = ("cls_token", "dist_token", "reg_token")
#: One position before the grid: its token, and which one of it.
_Slot = tuple[str, int]


def adapt_patch_embed(
    targets: Mapping[str, Any], values: dict[str, np.ndarray], origin: str
) -> dict[str, str]:
    """Fit the first convolution in ``values`` to the model's patch size and channels.

    Args:
        targets: the model's tensors.
        values: the file's arrays; entries are replaced.
        origin: what messages call the file.

    Returns:
        What was changed: name -> how.

    Raises:
        CheckpointError: the channels of the file mean nothing to this model.
    """
    first = next((name for name in _HYBRID_STEMS if name in targets), _PROJECTION)
    stored, target = values.get(first), targets.get(first)
    if stored is None or target is None or stored.ndim != 4 or len(target.shape) != 4:
        return {}
    changes = []
    in_chans, patch = int(target.shape[1]), (int(target.shape[2]), int(target.shape[3]))
    if stored.shape[0] != target.shape[0]:
        return {}  # another width: not the same model
    if stored.shape[1] != in_chans:
        try:
            values[first] = adapt_channels(stored, in_chans)
        except ValueError as error:
            raise CheckpointError(f"{origin}: {first}: {error}.") from error
        how = "summed" if in_chans == 1 else f"repeated, times {stored.shape[1]}/{in_chans}"
        changes.append(f"channels {stored.shape[1]} -> {in_chans}, {how}")
    if first == _PROJECTION and stored.shape[2:] != patch:
        values[first] = resize_patch_embed(values[first], patch)
        changes.append(f"patch {_by(stored.shape[2:])} -> {_by(patch)}, pseudo-inverse resize")
    return {first: "; ".join(changes)} if changes else {}


def adapt_positions(
    model: Any,
    targets: Mapping[str, Any],
    values: dict[str, np.ndarray],
    origin: str,
    *,
    method: str,
    source_grid: Optional[tuple[int, int]],
) -> dict[str, str]:
    """Fit ``pos_embed`` in ``values`` to the model's grid and to the tokens that have a position.

    A position of the file's class token (or another) that the model has no room for is added to
    that token, which gives the same sums; a position that the file has not starts at zero.  What
    stands before the model's grid follows from its shapes, never from a guess: ``pos_embed`` less
    ``grid_size`` less ``num_suffix_tokens``.

    Args:
        model: its ``grid_size`` and, if tokens come last, ``num_suffix_tokens`` are read.
        targets: the model's tensors.
        values: the file's arrays; entries are replaced.
        origin: what messages call the file.
        method: see :func:`~passl.checkpoint.pos_embed.resize_pos_embed`.
        source_grid: rows and columns in the file; None: as the model if there are as many tokens,
            else a square.

    Returns:
        What was changed: name -> how.

    Raises:
        CheckpointError: the file's tokens are no grid.
    """
    stored, target = values.get(_POS_EMBED), targets.get(_POS_EMBED)
    if stored is None or target is None or stored.ndim != 3 or not hasattr(model, "grid_size"):
        return {}
    if stored.shape[2] != target.shape[2]:
        return {}
    wanted = (int(model.grid_size[0]), int(model.grid_size[1]))
    if stored.shape[1] == target.shape[1] and source_grid in (None, wanted):
        return {}
    suffix = int(getattr(model, "num_suffix_tokens", 0))
    room = int(target.shape[1]) - wanted[0] * wanted[1] - suffix
    # positions can only be moved between tokens that both sides name
    movable = len(_slots(values)) - suffix if len(_slots(targets)) >= room else -1
    before, grid = _layout(stored.shape[1] - suffix, room, movable, wanted, source_grid)
    if grid is None:
        raise CheckpointError(_no_grid(origin, stored.shape[1], room + suffix, source_grid))
    resized = resize_pos_embed(
        stored, wanted, before, method=method, source_grid=grid, num_suffix_tokens=suffix
    )
    changes = {}
    if grid != wanted:
        changes[_POS_EMBED] = f"grid {_by(grid)} -> {_by(wanted)}, {method}"
    if before != room:
        resized, moved = _move_positions(resized, before, room, targets, values)
        changes[_POS_EMBED] = "; ".join(filter(None, [changes.get(_POS_EMBED), *moved]))
    values[_POS_EMBED] = resized
    return changes


def unsaid_grid(
    model: Any, values: Mapping[str, Any], source_grid: Optional[tuple[int, int]]
) -> str:
    """A word for the log where the model's grid was taken for the file's and a square fits as well.

    Args:
        model: see :func:`adapt_positions`.
        values: the file's arrays, before they are adapted.
        source_grid: see :func:`adapt_positions`.

    Returns:
        The note; empty if there is no doubt.
    """
    grid = getattr(model, "grid_size", None)
    if source_grid is not None or grid is None or _POS_EMBED not in values or grid[0] == grid[1]:
        return ""
    num_tokens, in_grid = values[_POS_EMBED].shape[1], int(grid[0]) * int(grid[1])
    square = square_grid(in_grid)
    if square[0] == 0 or not 0 <= num_tokens - in_grid <= len(_slots(values)):
        return ""
    return (
        f"the {in_grid} positions of the patches were taken for {_by(grid)}, as in the model; if "
        f"they were learned as {_by(square)}, give source_grid={square} in Python, or "
        f'"grid_size": {list(square)} in the provenance.json beside the file'
    )


def _layout(
    num_tokens: int,
    room: int,
    movable: int,
    wanted: tuple[int, int],
    source_grid: Optional[tuple[int, int]],
) -> tuple[int, Optional[tuple[int, int]]]:
    """Positions before the file's grid, and its rows and columns; None if nothing fits.

    Usual are positions for all of the file's ``movable`` tokens, or for none: they are tried first,
    since 2 + 4 x 4 positions could be 6 x 3 patches too.
    """
    usual = (movable, 0) if movable >= 0 else ()
    for before in (*usual, room, *range(movable + 1)):
        in_grid = num_tokens - before
        if source_grid is not None:
            grid = source_grid
        else:
            grid = wanted if in_grid == wanted[0] * wanted[1] else square_grid(in_grid)
        if in_grid > 0 and grid[0] * grid[1] == in_grid:
            return before, grid
    return 0, None


def _slots(tensors: Mapping[str, Any]) -> list[_Slot]:
    """The tokens of a model or file, each as often as it has entries."""
    return [
        (name, position)
        for name in _TOKENS
        if name in tensors and len(tensors[name].shape) == 3
        for position in range(int(tensors[name].shape[1]))
    ]


def _move_positions(
    pos_embed: np.ndarray,
    before: int,
    room: int,
    targets: Mapping[str, Any],
    values: dict[str, np.ndarray],
) -> tuple[np.ndarray, list[str]]:
    """Replace the ``before`` positions of the file's tokens by ``room`` of the model's."""
    rows = dict(zip(_slots(values), pos_embed[0, :before]))
    slots = _slots(targets)[:room]
    kept = np.zeros((1, room, pos_embed.shape[2]), np.float32)
    moved = []
    for number, slot in enumerate(slots):
        if slot in rows:
            kept[0, number] = rows.pop(slot)
        else:
            moved.append(f"position of {slot[0]} starts at 0")
    for (name, position), row in rows.items():
        if name in targets and name in values:
            token = values[name].astype(np.float32)
            token[0, position] += row
            values[name] = token
            moved.append(f"position of {name} added to it")
        else:
            moved.append(f"position of {name} dropped")
    return np.concatenate([kept, pos_embed[:, before:]], axis=1), list(dict.fromkeys(moved))


def _no_grid(
    origin: str, num_tokens: int, around: int, source_grid: Optional[tuple[int, int]]
) -> str:
    grid = "square grid" if source_grid is None else f"grid of {_by(source_grid)}"
    return (
        f"{origin}: {_POS_EMBED} cannot be resized: {num_tokens} tokens less the {around} around "
        f"the model's grid are no {grid}. If they are rows times columns, say so with "
        'source_grid=(rows, columns) in Python, or with "grid_size": [rows, columns] in '
        f"{origin}.provenance.json."
    )


def _by(size: Any) -> str:
    return f"{size[0]}x{size[1]}"

"""What is known of a file of weights beside its numbers.

A converted file carries ``FILE.provenance.json``; a checkpoint of a run carries its config in
``state.json``.  Both say what the shapes of the tensors do not: how the family of models that the
weights are from resizes position embeddings, and which rows and columns the positions have.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from passl.checkpoint.pos_embed import RESIZE_METHODS
from passl.checkpoint.resolve import ResolvedCheckpoint
from passl.errors import CheckpointError
from passl.layers.hybrid_embed import feature_size

__all__ = ["PROVENANCE_SUFFIX", "Provenance", "read_provenance"]

#: Appended to the name of a file of weights.
PROVENANCE_SUFFIX = ".provenance.json"


@dataclass(frozen=True)
class Provenance:
    """Facts about a file of weights.

    Args:
        pos_embed_method: how its family resizes position embeddings; None if nobody says.
        grid_size: rows and columns of its positions; None if nobody says.
    """

    pos_embed_method: Optional[str] = None
    grid_size: Optional[tuple[int, int]] = None


def read_provenance(resolved: ResolvedCheckpoint) -> Provenance:
    """What stands beside the weights; nothing is known of a lone file.

    Raises:
        CheckpointError: a file beside the weights is damaged, or says what makes no sense.
    """
    beside = resolved.weights.with_name(resolved.weights.name + PROVENANCE_SUFFIX)
    if beside.is_file():
        return _from_json(beside)
    if resolved.state is not None:
        return Provenance(grid_size=_grid_of_run(_read_json(resolved.state)))
    return Provenance()


def _from_json(path: Path) -> Provenance:
    facts = _read_json(path)
    method, grid = facts.get("pos_embed_method"), facts.get("grid_size")
    if method is not None and method not in RESIZE_METHODS:
        raise CheckpointError(
            f"{path}: pos_embed_method is {method!r}; it must be one of {', '.join(RESIZE_METHODS)}"
        )
    if grid is not None and not _is_pair(grid):
        raise CheckpointError(f"{path}: grid_size is {grid!r}; it must be [rows, columns]")
    return Provenance(method, (grid[0], grid[1]) if grid is not None else None)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: is no JSON object")
    return content


def _grid_of_run(record: dict[str, Any]) -> Optional[tuple[int, int]]:
    """The grid of the model that a run trained; a hybrid's patches are cells of its features."""
    model = record.get("config", {}).get("Model", {})
    size, patch = model.get("img_size"), model.get("patch_size")
    if isinstance(size, int):
        size = (size, size)
    if not _is_pair(size) or not isinstance(patch, int):
        return None
    stages = model.get("backbone_layers")
    if stages is not None:
        size = [feature_size(side, len(stages)) for side in size]
    return size[0] // patch, size[1] // patch


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(isinstance(side, int) and side > 0 for side in value)
    )

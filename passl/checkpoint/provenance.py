"""What is known of a file of weights beside its numbers.

A converted or averaged file carries ``FILE.provenance.json``; a checkpoint of a run carries its
config in ``state.json``.  Both say what the shapes of the tensors do not: how the family of models
that the weights are from resizes position embeddings, which rows and columns the positions have,
what the classes are called and how the model was evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Optional

from passl.checkpoint.disk import digest_of
from passl.checkpoint.pos_embed import RESIZE_METHODS
from passl.checkpoint.resolve import ResolvedCheckpoint
from passl.errors import CheckpointError
from passl.json_text import from_json

__all__ = ["PROVENANCE_SUFFIX", "Provenance", "common", "read_provenance"]

#: Appended to the name of a file of weights.
PROVENANCE_SUFFIX = ".provenance.json"
#: What weights made of a run's keep of its ``state.json``.
_LEARNED = ("classes", "external", "evaluation_choices", "evaluation_settings")


@dataclass(frozen=True)
class Provenance:
    """Facts about a file of weights.

    Args:
        pos_embed_method: how its family resizes position embeddings; None if nobody says.
        grid_size: rows and columns of its positions; None if nobody says.
        learned: what the run that trained it left in ``state.json``: ``classes`` (names by label),
            ``external``, ``evaluation_choices`` and ``evaluation_settings``, as far as it is known.
    """

    pos_embed_method: Optional[str] = None
    grid_size: Optional[tuple[int, int]] = None
    learned: Mapping[str, Any] = field(default_factory=dict)

    def with_classes_of(self, class_num: Optional[int]) -> Mapping[str, Any]:
        """``learned``, its names only where the model has as many classes."""
        names = self.learned.get("classes")
        keep = isinstance(names, list) and len(names) == class_num
        return {key: value for key, value in self.learned.items() if keep or key != "classes"}


def common(several: Sequence[Provenance]) -> Provenance:
    """What all of them say alike."""
    first, *others = several

    def same(name: str) -> Any:
        value = getattr(first, name)
        return value if all(getattr(other, name) == value for other in others) else None

    learned = {
        key: value
        for key, value in first.learned.items()
        if all(other.learned.get(key) == value for other in others)
    }
    return Provenance(same("pos_embed_method"), same("grid_size"), learned)


def read_provenance(resolved: ResolvedCheckpoint) -> Provenance:
    """What stands beside the weights; nothing is known of a lone file.

    Raises:
        CheckpointError: a file beside the weights is damaged, or says what makes no sense.
    """
    beside = resolved.weights.with_name(resolved.weights.name + PROVENANCE_SUFFIX)
    if beside.is_file():
        return _from_json(beside, resolved.weights)
    if resolved.state is not None:
        record = _read_json(resolved.state)
        learned = {key: record[key] for key in _LEARNED if record.get(key)}
        return Provenance(grid_size=_grid_of_run(record), learned=learned)
    return Provenance()


def _from_json(path: Path, weights: Path) -> Provenance:
    facts = _read_json(path)
    method, grid = facts.get("pos_embed_method"), facts.get("grid_size")
    if method is not None and method not in RESIZE_METHODS:
        raise CheckpointError(
            f"{path}: pos_embed_method is {method!r}; it must be one of {', '.join(RESIZE_METHODS)}"
        )
    if grid is not None and not _is_pair(grid):
        raise CheckpointError(f"{path}: grid_size is {grid!r}; it must be [rows, columns]")
    learned = facts.get("learned") or {}
    if not isinstance(learned, dict):
        raise CheckpointError(f"{path}: learned is {learned!r}; it must be an object")
    return Provenance(
        method,
        (grid[0], grid[1]) if grid is not None else None,
        learned if learned and _is_of(facts, weights) else {},
    )


def _is_of(facts: Mapping[str, Any], weights: Path) -> bool:
    """Whether the file is the one that was described: another may have taken its place."""
    file = facts.get("file")
    told = file.get("sha256") if isinstance(file, dict) else None
    if told is None or not weights.is_file():
        return False
    stat = weights.stat()
    return told == _sha256(weights.resolve(), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=16)
def _sha256(weights: Path, size: int, changed_ns: int) -> str:
    """Of a file that is as it was while ``size`` and ``changed_ns`` are."""
    del size, changed_ns
    return digest_of(weights).sha256


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = from_json(path.read_text(encoding="utf-8"))
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
        from passl.layers.hybrid_embed import feature_size  # imports Paddle

        size = [feature_size(side, len(stages)) for side in size]
    return size[0] // patch, size[1] // patch


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(isinstance(side, int) and side > 0 for side in value)
    )

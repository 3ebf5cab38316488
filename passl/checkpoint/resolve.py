"""What a user typed as a checkpoint -> the files that are meant.

All of these lead to the same weights::

    output/X/checkpoints/step_00001234      a checkpoint folder
    output/X/best                           a link to one
    output/X/best/model.pdparams            a file
    output/X/best/model                     the same without its suffix, as PASSL always wrote it

Weights of another system are named by their file, by the ``*.index.json`` of their shards, or by
the folder that holds either.  ``output/X/best_ema`` leads to the averaged weights, the file
``ema.pdparams`` of its folder.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

from passl.checkpoint.links import follow_link
from passl.checkpoint.manifest import MANIFEST_NAME, Manifest
from passl.checkpoint.sources.opening import holds_foreign_weights
from passl.checkpoint.sources.shards import INDEX_SUFFIX
from passl.errors import CheckpointError

__all__ = [
    "BEST_EMA",
    "EMA_NAME",
    "OPTIMIZER_NAME",
    "STATE_NAME",
    "WEIGHTS_NAME",
    "ResolvedCheckpoint",
    "resolve_checkpoint",
]

WEIGHTS_NAME = "model.pdparams"
EMA_NAME = "ema.pdparams"
OPTIMIZER_NAME = "optimizer.pdopt"
STATE_NAME = "state.json"
#: The link whose weights are the averaged ones.
BEST_EMA = "best_ema"


@dataclass(frozen=True)
class ResolvedCheckpoint:
    """The files behind a path.

    Args:
        folder: the checkpoint folder with its links followed; None for loose files.
        weights: the file of weights, or the folder of another system's; it exists.
        optimizer: the optimizer's state, if there is one.
        state: ``state.json``, if there is one: only then can training be continued.
    """

    folder: Optional[Path]
    weights: Path
    optimizer: Optional[Path] = None
    state: Optional[Path] = None

    def verify(self, *, only_weights: bool = False) -> None:
        """Compare the files with the folder's manifest; loose files have none to compare with.

        Raises:
            CheckpointError: names the file that is missing or differs.
        """
        if self.folder is not None:
            names = [self.weights.name] if only_weights else None
            Manifest.read(self.folder).verify(self.folder, names)


def resolve_checkpoint(path_like: Union[str, Path]) -> ResolvedCheckpoint:
    """Find the files of a checkpoint folder, a link, a file, or PASSL's prefix without suffix.

    Args:
        path_like: what the user typed; relative to the working folder; ``~`` is the home folder.

    Raises:
        CheckpointError: there is nothing of the kind; says what was looked for and what is there
            instead.
    """
    typed = Path(os.path.expanduser(path_like))
    path = _follow(typed)
    if path.is_dir():
        averaged = path / EMA_NAME
        if typed.name == BEST_EMA and averaged.is_file():
            return _complete(path, averaged, path / OPTIMIZER_NAME)
        return _from_folder(path, typed)
    if path.is_file():
        return _from_file(path)
    for prefix in (typed, path):
        with_suffix = prefix.parent / (prefix.name + ".pdparams")
        if with_suffix.is_file():
            return _from_file(with_suffix)
    raise CheckpointError(_nothing_there(typed, path))


def _follow(path: Path) -> Path:
    """Follow links, symbolic and written, of the path itself and of the folder it is in."""
    for _ in range(8):  # a written link leads to a folder: more than one or two hops is a circle
        target = follow_link(path)
        if target is None:
            parent = follow_link(path.parent) if path.parent.is_file() else None
            if parent is None:
                return path
            target = parent / path.name
        path = target
    return path


def _from_folder(folder: Path, typed: Path) -> ResolvedCheckpoint:
    if (folder / MANIFEST_NAME).is_file() or (folder / WEIGHTS_NAME).is_file():
        weights = folder / WEIGHTS_NAME
        if not weights.is_file():
            raise CheckpointError(
                f"{typed}: is a checkpoint without weights: {WEIGHTS_NAME} is missing."
            )
        return _complete(folder, weights, folder / OPTIMIZER_NAME)
    if holds_foreign_weights(folder):
        return ResolvedCheckpoint(folder=None, weights=folder)
    inside = ", ".join(str(path) for path in _candidates(folder)[:5])
    raise CheckpointError(
        f"{typed}: is a folder without a checkpoint (looked for {WEIGHTS_NAME}, {MANIFEST_NAME})."
        + (f" Did you mean one of: {inside}?" if inside else "")
    )


def _from_file(path: Path) -> ResolvedCheckpoint:
    if path.name.endswith(INDEX_SUFFIX):
        return ResolvedCheckpoint(folder=None, weights=path)
    if path.suffix in (".pdopt", ".pdstates", ".json"):
        raise CheckpointError(
            f"{path}: holds no weights. Give the .pdparams file beside it or the checkpoint folder."
        )
    if path.name in (WEIGHTS_NAME, EMA_NAME):
        return _complete(path.parent, path, path.parent / OPTIMIZER_NAME)
    return _complete(path.parent, path, path.with_suffix(".pdopt"))


def _complete(folder: Path, weights: Path, optimizer: Path) -> ResolvedCheckpoint:
    state = folder / STATE_NAME
    is_ours = (folder / MANIFEST_NAME).is_file()
    return ResolvedCheckpoint(
        folder=folder.resolve() if is_ours else None,
        weights=weights,
        optimizer=optimizer if optimizer.is_file() else None,
        state=state if is_ours and state.is_file() else None,
    )


def _candidates(folder: Path) -> list[Path]:
    """Checkpoints and files of weights in a folder of a run, newest steps first."""
    links = [folder / name for name in ("best", BEST_EMA, "latest") if (folder / name).exists()]
    steps = [
        path.parent for path in folder.glob(f"**/{MANIFEST_NAME}") if not path.parent.is_symlink()
    ]
    return links + sorted(steps, reverse=True) + sorted(folder.glob("*.pdparams"))


def _nothing_there(typed: Path, path: Path) -> str:
    if follow_link(typed) is not None:
        return f"{typed}: leads to {path}, which does not exist. Was it deleted or moved?"
    if not typed.parent.is_dir():
        missing = next(parent for parent in (typed, *typed.parents) if parent.parent.exists())
        return f"{typed}: there is no such checkpoint; {missing} does not exist."
    looked_for = f"looked for a folder, a link or a file of that name and for {typed.name}.pdparams"
    near = difflib.get_close_matches(typed.name, os.listdir(typed.parent), n=3, cutoff=0.5)
    hint = (
        f" Did you mean {' or '.join(str(typed.parent / name) for name in near)}?" if near else ""
    )
    return f"{typed}: there is no such checkpoint ({looked_for}).{hint}"

"""The checkpoints of one run: complete or absent, newest first, never the last one lost.

    output/<Model.name>/
      checkpoints/step_00001234/   model.pdparams  optimizer.pdopt  state.json  manifest.json
      latest -> checkpoints/step_00001234     best -> ...

A checkpoint is built in a hidden folder, every file is fsynced, the manifest (lengths and SHA-256)
is written last, and one rename makes it visible.  Whatever moment a kill chooses, each visible
folder is whole; what a failing disk or a careless copy does later is found by
:meth:`CheckpointStore.verify`.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from passl.checkpoint.disk import (
    FileDigest,
    atomic_file,
    human_size,
    os_errors_become_sentences,
    remove_tree,
    sync_folder,
)
from passl.checkpoint.files import stream_arrays
from passl.checkpoint.links import follow_link, refuse_folder, set_link
from passl.checkpoint.lock import RunLock
from passl.checkpoint.manifest import MANIFEST_NAME, Manifest, json_bytes
from passl.checkpoint.resolve import BEST_EMA
from passl.errors import CheckpointError
from passl.logs.logger import get_logger

__all__ = ["CheckpointStore", "Part", "SkippedCheckpoint"]

#: Content of one file: arrays for ``.pdparams`` and ``.pdopt``, plain data for ``.json``.
Part = Union[Mapping[str, np.ndarray], Mapping[str, Any]]

#: A second whole checkpoint is kept whatever the config says: the newest may be the one a disk
#: damages.
_MIN_KEPT = 2
#: Links of a training; a folder in the place of one would let every save fail.
LINK_NAMES = ("latest", "best", BEST_EMA)
_SUFFIXES = (".pdparams", ".pdopt", ".json")
_STEP_FOLDER = re.compile(r"step_(\d{8,})")
_BUILDING = re.compile(r"\.step_\d+\.tmp-\d+")
_REPLACED = re.compile(r"\.(step_\d+)\.old-\d+")


@dataclass(frozen=True)
class SkippedCheckpoint:
    """A checkpoint that :meth:`CheckpointStore.latest` passed over, and why, as a sentence."""

    path: Path
    reason: str


class CheckpointStore:
    """Writes, finds and prunes the checkpoints of one run.

    Making a store touches nothing; the process that writes calls :meth:`prepare` first and
    :meth:`close` at the end.  One process at a time may write, which a lock sees to; within it, one
    thread at a time.

    Args:
        run_dir: ``output/<Model.name>``.
        keep_latest: how many of the newest checkpoints to keep, besides those that links lead to.
            At least two are kept.
    """

    def __init__(self, run_dir: Union[str, Path], keep_latest: int = 1) -> None:
        #: As messages show them.
        self.run_dir = Path(run_dir)
        self.folder = self.run_dir / "checkpoints"
        # Where they are, even if the code of a user changes the working folder.
        self._run_dir = self.run_dir.absolute()
        self._folder = self.folder.absolute()
        self.keep_latest = max(keep_latest, _MIN_KEPT)
        #: What the last call of :meth:`latest` passed over.
        self.skipped: list[SkippedCheckpoint] = []
        self._lock = RunLock(self.run_dir)

    def prepare(self) -> Optional[str]:
        """Make the folders, lock them, and clean up after a process killed while it wrote.

        Returns:
            Why the folder cannot be locked, if its file system has no locks.

        Raises:
            CheckpointError: nothing can be written there, another run does, or a folder has the
                name of a link.
        """
        with os_errors_become_sentences("use the run folder", self.run_dir):
            self.folder.mkdir(parents=True, exist_ok=True)
        unlocked = self._lock.acquire()
        for name in LINK_NAMES:
            refuse_folder(self.run_dir / name)
        with os_errors_become_sentences("use the run folder", self.run_dir):
            for entry in sorted(self.folder.iterdir()):
                replaced = _REPLACED.fullmatch(entry.name)
                if replaced and not (self.folder / replaced[1]).exists():
                    # The kill came between the two renames of _publish.
                    entry.rename(self.folder / replaced[1])
                elif replaced or _BUILDING.fullmatch(entry.name):
                    remove_tree(entry)
            probe = self.folder / f".step_0.tmp-{os.getpid()}"
            probe.mkdir()
            probe.rmdir()
        return unlocked

    def close(self) -> None:
        """Let another run use the folder."""
        self._lock.release()

    def save(
        self, step: int, parts: Mapping[str, Part], links: Sequence[str] = ("latest",)
    ) -> Path:
        """Write one checkpoint, let ``links`` lead to it, then prune.

        Args:
            step: number of optimizer updates done; saving a step again replaces it.
            parts: file name -> content: arrays for ``*.pdparams`` and ``*.pdopt``, plain data for
                ``*.json``.
            links: names in the run folder, such as ``"latest"`` and ``"best"``.

        Returns:
            The checkpoint's folder.

        Raises:
            CheckpointError: it could not be written; earlier checkpoints and links are as before.
        """
        _refuse_bad_names(parts)
        final = self._folder / f"step_{step:08d}"
        building = self._folder / f".{final.name}.tmp-{os.getpid()}"
        self._refuse_small_disk(final, parts)
        try:
            with os_errors_become_sentences("write checkpoint", final):
                building.mkdir(parents=True)
                files = {name: _write_part(building / name, part) for name, part in parts.items()}
                Manifest(step, self._next_sequence(), files).write(building)
                self._publish(building, final)
        finally:
            remove_tree(building)  # there only if something failed
        for name in links:
            set_link(self._run_dir / name, final)
        try:
            self._prune(final)
        except OSError as error:  # what was to be saved is safe, and the next save tries again
            get_logger().warning(
                f"{self.folder}: old checkpoints are not removed for now ({error.strerror})"
            )
        return self.folder / final.name

    def latest(self) -> Union[Path, None]:
        """The checkpoint saved last of those whose files are as they were written, or None.

        Those passed over are in :attr:`skipped`, with reasons.

        Raises:
            CheckpointError: a newer one may not be read.
        """
        self.skipped = []
        for name in [path.name for path in self._newest_first()]:
            path = self.folder / name
            try:
                self.verify(path)
            except CheckpointError as error:
                if isinstance(error.__cause__, PermissionError):
                    raise  # it is whole, as far as anyone knows; its owner can give the rights
                self.skipped.append(SkippedCheckpoint(path, str(error)))
            else:
                return path
        return None

    def verify(self, path: Union[str, Path]) -> Manifest:
        """Compare a checkpoint with its manifest, lengths and hashes.

        Raises:
            CheckpointError: names the file that is missing or differs.
        """
        manifest = Manifest.read(Path(path))
        manifest.verify(Path(path))
        return manifest

    # -- inside ------------------------------------------------------------------------------------

    def _publish(self, building: Path, final: Path) -> None:
        """Make a complete folder visible; an older one of the same step gives way only then."""
        sync_folder(building)
        replaced = self._folder / f".{final.name}.old-{os.getpid()}"
        remove_tree(replaced)
        if final.exists():
            final.rename(replaced)
        try:
            building.rename(final)
        except OSError:
            if replaced.exists():
                replaced.rename(final)
            raise
        sync_folder(self._folder)
        remove_tree(replaced)

    def _prune(self, saved: Path) -> None:
        linked = {self._target(entry) for entry in self._run_dir.iterdir()}
        whole = [path for path in self._newest_first() if _is_readable(path)]
        for path in whole[self.keep_latest :]:
            if path.resolve() not in linked and path != saved:
                self._remove(path)

    def _remove(self, path: Path) -> None:
        """Delete a checkpoint; it disappears at once, since a kill may come between two files.

        What cannot be deleted stays: the one just saved is safe, and that is what matters.
        """
        hidden = self._folder / f".{path.name}.tmp-{os.getpid()}"
        with suppress(OSError):
            path.rename(hidden)
            remove_tree(hidden)

    @staticmethod
    def _target(entry: Path) -> Union[Path, None]:
        target = follow_link(entry)
        return None if target is None else target.resolve()

    def _newest_first(self) -> list[Path]:
        """Checkpoint folders by sequence; those without a readable manifest come first."""
        if not self._folder.is_dir():
            return []
        paths = [path for path in self._folder.iterdir() if _STEP_FOLDER.fullmatch(path.name)]
        return sorted(paths, key=lambda path: (_sequence(path), path.name), reverse=True)

    def _next_sequence(self) -> int:
        readable = [_sequence(path) for path in self._newest_first() if _is_readable(path)]
        return int(max(readable, default=0)) + 1

    def _refuse_small_disk(self, final: Path, parts: Mapping[str, Part]) -> None:
        """Say so before writing for minutes, when the arrays alone do not fit."""
        num_bytes = sum(_num_bytes(part) for part in parts.values())
        with os_errors_become_sentences("write checkpoint", final):
            self._folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self._folder).free
        if num_bytes > free:
            raise CheckpointError(
                f"cannot write checkpoint {final}: it needs {human_size(num_bytes)}, the disk has "
                f"{human_size(free)} free. Free some space or choose another Global.output_dir."
            )


def _write_part(path: Path, part: Part) -> FileDigest:
    with atomic_file(path) as file:
        if path.suffix == ".json":
            file.write(json_bytes(part))
        else:
            stream_arrays(file, part)
    return file.digest()


def _refuse_bad_names(names: Iterable[str]) -> None:
    for name in names:
        if Path(name).name != name or name == MANIFEST_NAME or not name.endswith(_SUFFIXES):
            raise ValueError(f"{name!r} cannot be in a checkpoint; names end in {_SUFFIXES}")


def _num_bytes(part: Part) -> int:
    return sum(value.nbytes for value in part.values() if isinstance(value, np.ndarray))


def _is_readable(path: Path) -> bool:
    return _sequence(path) != float("inf")


def _sequence(path: Path) -> float:
    try:
        return Manifest.read(path).sequence
    except CheckpointError:
        return float("inf")

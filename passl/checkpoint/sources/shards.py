"""Weights that are spread over several files: an index says which tensor is where.

Source: the ``*.index.json`` that Hugging Face's libraries write beside sharded weights: an object
with ``weight_map``, tensor name -> file name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Optional

import numpy as np

from passl.checkpoint.disk import digest_of
from passl.checkpoint.sources.source import MAX_TENSORS, TensorSource, damage_becomes_sentences
from passl.checkpoint.sources.spans import Damage, Stored
from passl.errors import CheckpointError

__all__ = ["INDEX_SUFFIX", "ShardedSource", "open_index", "open_shards"]

INDEX_SUFFIX = ".index.json"
_MAX_INDEX_BYTES = 64 << 20
#: Every shard is an open file.
_MAX_SHARDS = 500

OpenOne = Callable[[Path], TensorSource]


class ShardedSource(TensorSource):
    """The union of several files.

    Args:
        path: the index or the folder.
        owners: tensor -> the file that holds it, open.
        shards: all files, in order; closed with the source.
        extra: files that also count for :meth:`sha256`.
    """

    def __init__(
        self,
        path: Path,
        owners: Mapping[str, TensorSource],
        shards: list[TensorSource],
        extra: Optional[list[Path]] = None,
    ) -> None:
        ignored = {
            f"{shard.path.name}/{key}": what
            for shard in shards
            for key, what in shard.ignored.items()
        }
        ignored.update(
            (f"{shard.path.name}/{name}", "a tensor that the index does not name")
            for shard in shards
            for name in shard.names()
            if owners.get(name) is not shard
        )
        tensors: dict[str, Stored] = {name: owner._stored(name) for name, owner in owners.items()}
        super().__init__(
            path,
            shards[0].format,
            tensors,
            wrapper=shards[0].wrapper,
            ignored=ignored,
            metadata=shards[0].metadata,
        )
        self._owners, self._shards, self._extra = dict(owners), shards, extra or []

    def read(self, name: str) -> np.ndarray:
        """See :meth:`TensorSource.read`; messages name the file that holds the tensor."""
        self._stored(name)
        return self._owners[name].read(name)

    def sha256(self) -> str:
        """The SHA-256 of the list "hash  file name" of all files, as ``sha256sum`` prints it."""
        if not self._sha256:
            parts = [(shard.path.name, shard.sha256()) for shard in self._shards]
            parts += [(path.name, digest_of(path).sha256) for path in self._extra]
            lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(parts))
            self._sha256 = hashlib.sha256(lines.encode()).hexdigest()
        return self._sha256

    def close(self) -> None:
        """Close every file."""
        for shard in self._shards:
            shard.close()


def open_index(index: Path, open_one: OpenOne) -> TensorSource:
    """The files that an index names, as one source.

    Raises:
        CheckpointError: the index is damaged, names a file that is missing, or a tensor that its
            file does not hold.
    """
    with damage_becomes_sentences(index):
        if index.stat().st_size > _MAX_INDEX_BYTES:
            raise Damage("it is too long for an index")
        content = json.loads(index.read_text(encoding="utf-8"))
        weight_map = content.get("weight_map") if isinstance(content, dict) else None
        weight_map = _checked_map(weight_map)
    files = list(dict.fromkeys(weight_map.values()))
    missing = [name for name in files if not (index.parent / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{index}: {len(missing)} of its {len(files)} files are missing, first {missing[0]}. "
            f"Put them into {index.parent}."
        )
    shards = _open_all([index.parent / name for name in files], open_one)
    by_name = dict(zip(files, shards))
    owners: dict[str, TensorSource] = {}
    for name, file in weight_map.items():
        if name not in by_name[file].names():
            _close_all(shards)
            raise CheckpointError(f"{index}: it says that {name!r} is in {file}, but it is not.")
        owners[name] = by_name[file]
    return ShardedSource(index, owners, shards, [index])


def open_shards(folder: Path, files: list[Path], open_one: OpenOne) -> TensorSource:
    """Several files without an index, each with tensors of its own.

    Raises:
        CheckpointError: two of them hold a tensor of the same name.
    """
    shards = _open_all(files, open_one)
    owners: dict[str, TensorSource] = {}
    for shard in shards:
        for name in shard.names():
            if name in owners:
                _close_all(shards)
                raise CheckpointError(
                    f"{folder}: {name!r} is in {owners[name].path.name} and in {shard.path.name}. "
                    "Name the one file that is meant."
                )
            owners[name] = shard
    return ShardedSource(folder, owners, shards)


def _checked_map(weight_map: Any) -> dict[str, str]:
    if not isinstance(weight_map, dict) or not weight_map:
        raise Damage("it has no weight_map")
    if len(weight_map) > MAX_TENSORS or len(set(map(str, weight_map.values()))) > _MAX_SHARDS:
        raise Damage("it claims an absurd number of tensors or files")
    for file in weight_map.values():
        if not isinstance(file, str) or Path(file).name != file or file in ("", ".", ".."):
            raise Damage(f"{file!r} is no name of a file beside it")
    return weight_map


def _open_all(paths: list[Path], open_one: OpenOne) -> list[TensorSource]:
    shards: list[TensorSource] = []
    try:
        for path in paths:
            shards.append(open_one(path))
    except BaseException:
        _close_all(shards)
        raise
    return shards


def _close_all(shards: list[TensorSource]) -> None:
    for shard in shards:
        shard.close()

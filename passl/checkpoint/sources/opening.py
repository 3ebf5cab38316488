"""From a path to a source: the format is recognised by what is in the file, not by its name."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import BinaryIO, Optional, Union

from passl.checkpoint.disk import os_errors_become_sentences
from passl.checkpoint.formats import READABLE, recognise
from passl.checkpoint.sources.npz import open_npz
from passl.checkpoint.sources.paddle_file import open_paddle
from passl.checkpoint.sources.safetensors import open_safetensors
from passl.checkpoint.sources.shards import INDEX_SUFFIX, open_index, open_shards
from passl.checkpoint.sources.source import TensorSource, damage_becomes_sentences
from passl.checkpoint.sources.torch_legacy import open_torch_legacy
from passl.checkpoint.sources.torch_zip import open_torch_zip
from passl.errors import CheckpointError

__all__ = ["holds_foreign_weights", "open_source"]

_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".npz", ".pdparams")
#: What Hugging Face's libraries call a file of weights, whatever lies beside it.
_USUAL = ("model.safetensors", "pytorch_model.bin")
_SHARD = re.compile(r"(.*[-_.])(\d+)-of-(\d+)(\.\w+)")


def open_source(path: Union[str, Path], *, wrapper: Optional[str] = None) -> TensorSource:
    """Open a file of tensors of any format that is read here; nothing of it is run.

    Args:
        path: a file of PyTorch, safetensors, NumPy (``.npz``) or Paddle; an index of shards
            (``*.index.json``); or a folder with one of these.
        wrapper: the entry of a PyTorch or Paddle file that holds the wanted tensors, such as
            ``"model_ema"`` or ``"state_dict/model"``; None for the order of
            :mod:`passl.checkpoint.sources.wrappers`.

    Raises:
        CheckpointError: there is no such file, or it is damaged, unsafe, of no known format, or
            without tensors; says which and what to do.
    """
    path = Path(os.path.expanduser(path))
    if path.is_dir():
        return _open_folder(path, wrapper)
    if not path.exists():
        raise CheckpointError(_nothing_there(path))
    if not path.is_file():
        raise CheckpointError(f"{path}: is neither a file nor a folder.")
    if path.name.endswith(INDEX_SUFFIX):
        return open_index(path, lambda shard: _open_file(shard, wrapper))
    return _open_file(path, wrapper)


def holds_foreign_weights(folder: Path) -> bool:
    """Whether :func:`open_source` has something of another system to look at in the folder."""
    with os_errors_become_sentences("read", folder):
        names = [entry.name for entry in folder.iterdir() if entry.is_file()]
    foreign = tuple(suffix for suffix in _SUFFIXES if suffix != ".pdparams")
    return any(name.endswith((*foreign, INDEX_SUFFIX)) for name in names)


def _open_file(path: Path, wrapper: Optional[str]) -> TensorSource:
    with os_errors_become_sentences("read", path):
        file = open(path, "rb")  # noqa: SIM115 (closed with the source)
    try:
        with damage_becomes_sentences(path):
            return _open_as(file, path, wrapper)
    except BaseException:
        file.close()
        raise


def _open_as(file: BinaryIO, path: Path, wrapper: Optional[str]) -> TensorSource:
    found = recognise(file)
    file.seek(0)
    if found.reader in ("safetensors", "npz") and wrapper:
        raise CheckpointError(f"{path}: has no entry {wrapper!r}: {found.text} is one level deep.")
    if found.reader == "safetensors":
        return open_safetensors(file, path)
    if found.reader == "npz":
        return open_npz(file, path)
    if found.reader == "torch zip":
        return open_torch_zip(file, path, wrapper)
    if found.reader == "torch legacy":
        return open_torch_legacy(file, path, wrapper)
    if found.reader == "pickle":
        return open_paddle(file, path, wrapper)
    raise CheckpointError(f"{path}: this is {found.text}. {READABLE}")


def _open_folder(folder: Path, wrapper: Optional[str]) -> TensorSource:
    with os_errors_become_sentences("read", folder):
        files = sorted(entry for entry in folder.iterdir() if entry.is_file())
    for suffix in _SUFFIXES:
        indices = [f for f in files if f.name.endswith(suffix + INDEX_SUFFIX)]
        if len(indices) == 1:
            return open_index(indices[0], lambda shard: _open_file(shard, wrapper))
        weights = [f for f in files if f.suffix == suffix]
        usual = [f for f in weights if f.name in _USUAL]
        if not indices and (len(weights) == 1 or usual):
            return _open_file((usual or weights)[0], wrapper)
        if not indices and _are_all_shards(weights):
            return open_shards(folder, weights, lambda shard: _open_file(shard, wrapper))
        if weights or indices:
            names = ", ".join(f.name for f in (indices or weights)[:5])
            raise CheckpointError(
                f"{folder}: holds several files of weights ({names}). Name the one that is meant."
            )
    raise CheckpointError(
        f"{folder}: is a folder without weights (looked for *{INDEX_SUFFIX} and "
        f"{', '.join('*' + suffix for suffix in _SUFFIXES)})."
    )


def _are_all_shards(files: list[Path]) -> bool:
    """Whether the names are ``x-00001-of-0000N`` for every number up to N."""
    matches = [_SHARD.fullmatch(f.name) for f in files]
    parts = [(m[1], int(m[2]), int(m[3]), m[4]) for m in matches if m is not None]
    if not parts or len(parts) != len(files) or len(parts) > 500:
        return False
    stem, _, total, suffix = parts[0]
    return sorted(parts) == [(stem, number, total, suffix) for number in range(1, total + 1)]


def _nothing_there(path: Path) -> str:
    if not path.parent.is_dir():
        return f"{path}: there is no such file; the folder {path.parent} does not exist."
    near = difflib.get_close_matches(path.name, os.listdir(path.parent), n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(str(path.parent / name) for name in near)}?" if near else ""
    return f"{path}: there is no such file.{hint}"

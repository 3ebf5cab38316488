"""Reading what ``torch.save`` wrote before 1.6: pickles one after the other, then the storages.

A magic number, a protocol version, facts about the machine, the object, the list of storage keys;
then for each key the number of its elements in eight bytes and the elements, little-endian.

Source: ``torch.serialization`` (``_legacy_save`` and ``_legacy_load``).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO, Optional

import numpy as np

from passl.checkpoint.sources.allowed import refuse_code
from passl.checkpoint.sources.inert_pickle import Pickle, read_pickle
from passl.checkpoint.sources.source import TensorSource
from passl.checkpoint.sources.spans import DTYPES, Damage, FileSpan
from passl.checkpoint.sources.torch_tensors import TorchTensors, storage_of
from passl.checkpoint.sources.wrappers import find_tensors

__all__ = ["open_torch_legacy"]

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


def open_torch_legacy(file: BinaryIO, path: Path, wrapper: Optional[str]) -> TensorSource:
    """The tensors of a PyTorch file of the old format; its storages stay where they are.

    Args:
        file: open at its start; belongs to the source afterwards.
        path: for messages.
        wrapper: see :func:`open_source`.

    Raises:
        CheckpointError: it would run code, or holds no tensors by name.
        Exception: damage of any kind, for :func:`damage_becomes_sentences`.
    """
    magic, protocol, _, content, keys = (_next_pickle(file, path) for _ in range(5))
    if magic.value != _MAGIC or protocol.value != _PROTOCOL:
        raise Damage(f"its protocol is {protocol.value!r}")
    if not isinstance(keys.value, list) or not all(isinstance(k, str) for k in keys.value):
        raise Damage("it has no list of storages")
    spans = _locate(file, keys.value, _storage_types(content, path))

    def find(key: str, _: str) -> FileSpan:
        if key not in spans:
            raise Damage(f"storage {key} is missing in it")
        return spans[key]

    found = find_tensors(content.value, path, TorchTensors(find, path), wrapper)
    return TensorSource(
        path, "torch", found.tensors, file, wrapper=found.wrapper, ignored=found.ignored
    )


def _next_pickle(file: BinaryIO, path: Path) -> Pickle:
    pickle = read_pickle(file)
    refuse_code(pickle, path)
    return pickle


def _storage_types(content: Pickle, path: Path) -> dict[str, str]:
    """Element type of every storage that the object speaks of."""
    types: dict[str, str] = {}
    for external in content.externals:
        if isinstance(external.pid, tuple) and external.pid[:1] == ("storage",):
            dtype, key, _, _ = storage_of(external, path)
            if types.setdefault(key, dtype) != dtype:
                raise Damage(f"storage {key} has two types")
    return types


def _locate(file: BinaryIO, keys: list[Any], types: dict[str, str]) -> dict[str, FileSpan]:
    place, end = file.tell(), file.seek(0, os.SEEK_END)
    spans: dict[str, FileSpan] = {}
    for key in keys:
        if key not in types or key in spans:
            raise Damage(f"its list of storages has {key!r}, which nothing or something else uses")
        file.seek(place)
        count = int.from_bytes(file.read(8), "little")
        size = count * np.dtype(DTYPES[types[key]]).itemsize
        if place + 8 + size > end:
            raise Damage("it ends too early")
        spans[key] = FileSpan(file, place + 8, size)
        place += 8 + size
    return spans

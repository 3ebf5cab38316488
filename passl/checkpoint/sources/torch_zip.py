"""Reading what ``torch.save`` writes since 1.6: a zip archive of a pickle and one member a storage.

Source: ``torch.serialization`` (names of the members, ``byteorder``); a recorded check sum of 0
stands for none (``torch.serialization.set_crc32_options``).
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import BinaryIO, Optional

from passl.checkpoint.sources.allowed import refuse_code
from passl.checkpoint.sources.inert_pickle import read_pickle
from passl.checkpoint.sources.source import TensorSource
from passl.checkpoint.sources.spans import Damage, FileSpan, MemberSpan, Span
from passl.checkpoint.sources.torch_tensors import TorchTensors
from passl.checkpoint.sources.wrappers import find_tensors
from passl.checkpoint.zips import member_start, open_zip
from passl.errors import CheckpointError

__all__ = ["open_torch_zip"]

_PICKLE = "data.pkl"
#: The pickle of ViT-L with its optimizer has less than one megabyte.
_MAX_PICKLE_BYTES = 128 << 20


def open_torch_zip(file: BinaryIO, path: Path, wrapper: Optional[str]) -> TensorSource:
    """The tensors of a PyTorch file.

    Args:
        file: open; belongs to the source afterwards.
        path: for messages.
        wrapper: see :func:`open_source`.

    Raises:
        CheckpointError: it would run code, holds a program, or no tensors by name.
        Exception: damage of any kind, for :func:`damage_becomes_sentences`.
    """
    members = _Members(file)
    pickle = read_pickle(io.BytesIO(members.content(_PICKLE, _MAX_PICKLE_BYTES)))
    if members.has("constants.pkl") or members.has("code/"):
        raise CheckpointError(
            f"{path}: this is a TorchScript archive: it holds a program beside its weights. Where "
            "torch is installed, save the weights alone: "
            "torch.save(torch.jit.load(SRC).state_dict(), 'weights.pth')."
        )
    refuse_code(pickle, path)
    to_tensor = TorchTensors(members.storage, path, members.byte_order())
    found = find_tensors(pickle.value, path, to_tensor, wrapper)
    return TensorSource(
        path, "torch", found.tensors, file, wrapper=found.wrapper, ignored=found.ignored
    )


class _Members:
    """The members below the archive's one folder."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._archive = file, open_zip(file)
        infos = self._archive.infolist()
        pickles = [i.filename for i in infos if f"/{i.filename}".endswith(f"/{_PICKLE}")]
        if not pickles:
            raise Damage(f"there is no {_PICKLE} in it")
        folder = min(pickles, key=len)[: -len(_PICKLE)]
        self._infos = {i.filename[len(folder) :]: i for i in infos if i.filename.startswith(folder)}
        self._spans: dict[str, Span] = {}

    def has(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self._infos)

    def byte_order(self) -> str:
        if "byteorder" not in self._infos:
            return "<"
        order = self.content("byteorder", 16)
        if order not in (b"little", b"big"):
            raise Damage(f"its byte order is {order!r}")
        return "<" if order == b"little" else ">"

    def content(self, name: str, limit: int) -> bytes:
        span = self._span(name)
        if span.size > limit:
            raise Damage(f"{name} claims to be {span.size} bytes long")
        data = bytearray(span.size)
        span.read_into(0, memoryview(data))
        return bytes(data)

    def storage(self, key: str, _: str) -> Span:
        return self._span(f"data/{key}")

    def _span(self, name: str) -> Span:
        if name not in self._spans:
            info = self._infos.get(name)
            if info is None:
                raise Damage(f"{name} is missing in it")
            start = member_start(self._file, info)
            self._spans[name] = (
                FileSpan(self._file, start, info.file_size, info.CRC or None)
                if info.compress_type == zipfile.ZIP_STORED
                else MemberSpan(self._archive, info)
            )
        return self._spans[name]

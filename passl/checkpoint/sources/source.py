"""An open file of tensors, of whatever format: names, shapes and types at once, values one by one.

    with open_source("deit_base.pth") as source:
        for name in source.names():
            array = source.read(name)

Memory stays near the largest tensor, however large the file is.
"""

from __future__ import annotations

import difflib
import errno
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Optional

import numpy as np

from passl.checkpoint.disk import digest_of, human_size, os_errors_become_sentences
from passl.checkpoint.sources.spans import Damage, Stored, read_stored
from passl.errors import CheckpointError

__all__ = ["MAX_TENSORS", "TensorSource", "damage_becomes_sentences"]

#: More tensors than any model has.
MAX_TENSORS = 200_000

_ADVICE = "Was the copy or download interrupted? Fetch it again, or use another checkpoint."
#: What parsers of Python's library raise for bytes that are not what they should be.
_SIGNS_OF_DAMAGE = (
    ValueError,  # UnicodeError, json.JSONDecodeError and Damage among them
    EOFError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RecursionError,
    NotImplementedError,  # zipfile: a method of compression that it does not know
    RuntimeError,  # zipfile: an encrypted member
    SyntaxError,  # the header of an array inside an .npz
    tokenize.TokenError,  # likewise
)


class TensorSource:
    """Tensors of a file; a context manager that closes it.

    Args:
        path: of the file or folder.
        format: ``"paddle"``, ``"torch"``, ``"safetensors"`` or ``"npz"``.
        tensors: name -> what is where, in the file's order.
        file: open; closed with the source.
        wrapper: under which key of the file the tensors were found: ``"model"``,
            ``"state_dict"``, ``"state_dict/model"``; empty if at the top.
        ignored: other entries of the file -> what they are: ``{"args": "argparse.Namespace"}``.
        metadata: text that a safetensors file carries beside the tensors.

    Raises:
        Damage: there are absurd numbers of tensors, or one that cannot be as it claims.
    """

    def __init__(
        self,
        path: Path,
        format: str,
        tensors: Mapping[str, Stored],
        file: Optional[BinaryIO] = None,
        *,
        wrapper: str = "",
        ignored: Optional[Mapping[str, str]] = None,
        metadata: Optional[Mapping[str, str]] = None,
    ) -> None:
        if len(tensors) > MAX_TENSORS:
            raise Damage(f"it claims to hold {len(tensors)} tensors")
        for stored in tensors.values():
            stored.check()
        self.path, self.format, self.wrapper = path, format, wrapper
        self.ignored: dict[str, str] = dict(ignored or {})
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self._tensors = dict(tensors)
        self._file = file
        self._sha256 = ""

    def names(self) -> list[str]:
        """Names in the file's order, as stored: a prefix ``module.`` is still there."""
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """The axes of a tensor, in the layout of whoever wrote it."""
        return self._stored(name).shape

    def dtype(self, name: str) -> str:
        """The stored element type: ``"float32"``, ``"bfloat16"``, ``"int64"``, ..."""
        return self._stored(name).dtype

    def read(self, name: str) -> np.ndarray:
        """One tensor, in memory of its own: native byte order, bfloat16 widened to float32.

        Not for several threads at once: they would share the file's position.

        Raises:
            ValueError: the source is closed.
            CheckpointError: there is no such tensor, or its bytes are damaged or missing.
        """
        stored = self._stored(name)
        if self._file is not None and self._file.closed:
            raise ValueError(f"{self.path} is closed")
        with damage_becomes_sentences(self.path, f"tensor {name!r}: "):
            return read_stored(stored)

    def sha256(self) -> str:
        """The SHA-256 of the whole file, in hexadecimal; computed once, in pieces."""
        if not self._sha256:
            with os_errors_become_sentences("read", self.path):
                self._sha256 = digest_of(self.path).sha256
        return self._sha256

    def close(self) -> None:
        """Close the file; nothing can be read afterwards."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> TensorSource:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def _stored(self, name: str) -> Stored:
        if name not in self._tensors:
            near = difflib.get_close_matches(name, list(self._tensors), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise CheckpointError(f"{self.path}: there is no tensor {name!r} in it.{hint}")
        return self._tensors[name]


@contextmanager
def damage_becomes_sentences(path: Path, place: str = "") -> Iterator[None]:
    """Turn what parsers and the operating system raise into a :class:`CheckpointError`.

    Args:
        path: the file; the message begins with it.
        place: what was being read, with a colon and a space behind it.
    """
    try:
        with os_errors_become_sentences("read", path):
            try:
                yield
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                raise Damage("it points to a place that no file has") from error
    except CheckpointError:
        raise
    except MemoryError as error:
        size = human_size(path.stat().st_size) if path.is_file() else "unknown size"
        raise CheckpointError(
            f"{path}: {place}there is not enough memory to read it (a file of {size}). "
            "Use a machine with more memory, or close other programs."
        ) from error
    except _SIGNS_OF_DAMAGE as error:
        reason = str(error) or type(error).__name__
        if "remain" in reason or "truncated" in reason or isinstance(error, EOFError):
            reason = "it ends too early"
        raise CheckpointError(
            f"{path}: {place}the file is damaged ({reason[:300]}). {_ADVICE}"
        ) from error

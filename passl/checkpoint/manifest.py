"""``manifest.json``: written last into a checkpoint, the proof that its other files are whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from passl.checkpoint.disk import (
    FileDigest,
    atomic_file,
    digest_of,
    os_errors_become_sentences,
)
from passl.errors import CheckpointError
from passl.json_text import from_json

__all__ = ["FORMAT_VERSION", "MANIFEST_NAME", "Manifest", "json_bytes", "read_json"]

MANIFEST_NAME = "manifest.json"
#: Raised when a reader of the old layout could no longer read the new one.
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint consists of.

    Args:
        step: number of optimizer updates done.
        sequence: 1 for a run's first save, then one more for each: *newest* means the largest.
            Steps cannot tell, since a run may be started again from an earlier step; clocks can go
            backwards.
        files: file name -> length and hash.
    """

    step: int
    sequence: int
    files: Mapping[str, FileDigest]

    def write(self, folder: Path) -> None:
        """Write it into ``folder``, durable on return; raises what the operating system does."""
        files = {name: asdict(digest) for name, digest in self.files.items()}
        content = {
            "format": FORMAT_VERSION,
            "step": self.step,
            "sequence": self.sequence,
            "files": files,
        }
        with atomic_file(folder / MANIFEST_NAME) as file:
            file.write(json_bytes(content))

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a checkpoint folder.

        Raises:
            CheckpointError: it is missing, damaged, or of a later version of this software.
        """
        path = folder / MANIFEST_NAME
        with os_errors_become_sentences("read", path):
            is_there = path.is_file()
        if not is_there:
            raise CheckpointError(
                f"{folder}: has no {MANIFEST_NAME}, so it is no complete checkpoint."
            )
        content = read_json(path)
        if content.get("format") != FORMAT_VERSION:
            raise CheckpointError(
                f"{path}: is of checkpoint format {content.get('format')!r}; this version of PASSL "
                f"reads format {FORMAT_VERSION}. Use the version that wrote it."
            )
        try:
            files = {str(name): FileDigest(**entry) for name, entry in content["files"].items()}
            return cls(int(content["step"]), int(content["sequence"]), files)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{path}: is damaged ({error!r}).") from error

    def verify(self, folder: Path, names: Optional[Sequence[str]] = None) -> None:
        """Compare files with what was written; cheap differences first.

        Args:
            folder: where they are.
            names: only these of its files; default all.

        Raises:
            CheckpointError: names the first file that differs and what differs.
        """
        wanted = {
            name: entry for name, entry in self.files.items() if names is None or name in names
        }
        for name, expected in wanted.items():
            path = folder / name
            if not path.is_file():
                raise CheckpointError(f"{path}: is missing, though {MANIFEST_NAME} lists it.")
            size = path.stat().st_size
            if size != expected.size:
                raise CheckpointError(
                    f"{path}: is {size} bytes long, but {expected.size} were written."
                )
        for name, expected in wanted.items():
            _verify_content(folder / name, expected)


def _verify_content(path: Path, expected: FileDigest) -> None:
    with os_errors_become_sentences("read", path):
        found = digest_of(path)
    if found.sha256 != expected.sha256:
        raise CheckpointError(
            f"{path}: its content has changed since it was written (its SHA-256 begins "
            f"{found.sha256[:12]}, not {expected.sha256[:12]})."
        )


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """``content`` as an indented JSON file.

    Floats keep all their bits; NaN and infinities are written as Python writes them, and a name of
    a file that is no UTF-8 in escapes that give it back.
    """
    try:
        text = json.dumps(content, indent=2, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        text = json.dumps(content, indent=2).encode("ascii")
    return text + b"\n"


def read_json(path: Path) -> dict[str, Any]:
    """Read what :func:`json_bytes` made (``state.json``, ``manifest.json``).

    Raises:
        CheckpointError: the file is missing, damaged, or holds no object.
    """
    with os_errors_become_sentences("read", path):
        data = path.read_bytes()
    try:
        content = from_json(data)
    except ValueError as error:
        raise CheckpointError(f"{path}: is damaged: it is no JSON ({error}).") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: is damaged: it holds no JSON object.")
    return content

"""``DST.provenance.json``: where converted weights come from and what was done to them."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional

import numpy as np

import passl
from passl.checkpoint.convert.casting import BecameZero
from passl.checkpoint.convert.conversion import Conversion
from passl.checkpoint.convert.targets import Target
from passl.checkpoint.disk import FileDigest, atomic_file, os_errors_become_sentences
from passl.checkpoint.sources import TensorSource

__all__ = ["Record", "provenance_path", "write_record"]

_FORMAT = 1


def provenance_path(destination: Path) -> Path:
    """The file beside ``destination`` that says where it comes from."""
    return destination.with_name(destination.name + ".provenance.json")


@dataclass
class Record:
    """What is written.

    Args:
        source: the file that was read.
        conversion: what it became.
        target: the model it fills; None if it was compared with none.
        missing: tensors of the model that the file has not, by permission.
        dtype: type of the numbers written.
        url: where the file was fetched from, if it was.
        verified: what it was compared with and how well it agreed; empty if it was not.
        learned: what the run that trained the weights says of them, as
            :class:`~passl.checkpoint.provenance.Provenance` has it.
        became_zero: numbers too small for ``dtype``, once they are written.
    """

    source: TensorSource
    conversion: Conversion
    target: Optional[Target]
    missing: list[str]
    dtype: str
    url: str = ""
    verified: dict[str, Any] = field(default_factory=dict)
    learned: Mapping[str, Any] = field(default_factory=dict)
    became_zero: BecameZero = field(default_factory=BecameZero)

    def as_json(self, destination: Path, digest: FileDigest) -> dict[str, Any]:
        """The content of the file, for a result of this length and hash."""
        conversion, source, target = self.conversion, self.source, self.target
        content: dict[str, Any] = {
            "format": _FORMAT,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "file": {"name": destination.name, "size": digest.size, "sha256": digest.sha256},
            "source": {
                "path": str(source.path),
                "url": self.url,
                "size": source.path.stat().st_size if source.path.is_file() else None,
                "sha256": source.sha256() if source.path.is_file() else None,
                "format": source.format,
                "wrapper": source.wrapper,
                "not_tensors": dict(source.ignored),
            },
            "family": conversion.family,
            "table": conversion.table_version,
            "model": None if target is None else {"name": target.name, "args": target.args},
            "pos_embed_method": conversion.pos_embed_method,
            "grid_size": None if target is None or target.grid_size is None
            else list(target.grid_size),
            "learned": dict(self.learned),
            "dtype": self.dtype,
            "became_zero": self.became_zero.as_json(),
            "tensors": len(conversion.used),
            "resized": {},
            "missing": self.missing,
            "dropped": conversion.dropped,
            "notes": conversion.notes,
            "verified": self.verified,
            "versions": {
                "passl": passl.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        }
        return content


def write_record(record: Record, destination: Path, digest: FileDigest) -> Path:
    """Write the record beside ``destination``; it appears whole or not at all.

    Raises:
        CheckpointError: the operating system refused.
    """
    path = provenance_path(destination)
    text = json.dumps(record.as_json(destination, digest), indent=2) + "\n"
    with os_errors_become_sentences("write", path), atomic_file(path) as file:
        file.write(text.encode("utf-8"))
    return path

"""Writing what was converted: whole or not at all, with its provenance beside it."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Callable

from passl.checkpoint.convert.casting import DTYPES, CastArrays
from passl.checkpoint.convert.record import Record, provenance_path, write_record
from passl.checkpoint.convert.to_timm import TimmArrays
from passl.checkpoint.disk import FileDigest, human_size
from passl.checkpoint.files import write_arrays
from passl.checkpoint.sources import write_safetensors
from passl.errors import CheckpointError, ConfigError

__all__ = ["SUFFIXES", "Destination", "write_converted"]

#: What ``--to`` takes -> the suffix of such a file.
SUFFIXES = {"pdparams": ".pdparams", "safetensors": ".safetensors"}


@dataclass(frozen=True)
class Destination:
    """Where a result goes, and as what.

    Args:
        path: the file.
        format: a key of :data:`SUFFIXES`.
        dtype: a key of :data:`~passl.checkpoint.convert.casting.DTYPES`.
        overwrite: replace a file that is there.
    """

    path: Path
    format: str
    dtype: str
    overwrite: bool

    def refuse_if_impossible(self, source: Path) -> None:
        """Say what is wrong with it before anything is read.

        Raises:
            ConfigError: another suffix than the format's, or the source itself.
            CheckpointError: it exists, or nothing can be written there.
        """
        suffix = SUFFIXES[self.format]
        if self.path.suffix != suffix:
            raise ConfigError(
                f"{self.path}: --to {self.format} writes files that end in {suffix}; "
                f"call it {self.path.with_suffix(suffix)}, or choose another --to."
            )
        if self.path.exists() and source.exists() and self.path.samefile(source):
            raise ConfigError(f"{self.path}: the result would replace the file it is made from.")
        if self.path.exists() and not self.overwrite:
            raise CheckpointError(
                f"{self.path}: there is such a file already; --overwrite replaces it."
            )
        folder = self.path.parent
        if not folder.is_dir():
            raise CheckpointError(f"{self.path}: the folder {folder} does not exist; make it.")
        if not os.access(folder, os.W_OK):
            raise CheckpointError(
                f"{self.path}: nothing can be written in {folder}: permission denied. Change the "
                "rights of the folder or choose another."
            )

    def refuse_if_full(self, num_values: int) -> None:
        """Say so before writing for minutes, when the arrays do not fit on the disk.

        Raises:
            CheckpointError: with what is needed and what there is.
        """
        needed = num_values * DTYPES[self.dtype]
        free = shutil.disk_usage(self.path.parent).free
        if needed > free:
            raise CheckpointError(
                f"cannot write {self.path}: it needs {human_size(needed)}, the disk has "
                f"{human_size(free)} free. Free some space or choose another folder."
            )


def write_converted(
    record: Record,
    destination: Destination,
    watch: Callable[[int], None] = lambda num_bytes: None,  # noqa: ARG005
) -> FileDigest:
    """Write the arrays of ``record.conversion`` and the record beside them.

    Args:
        record: what is written and where it comes from.
        destination: where to.
        watch: called with the number of bytes of each array; safetensors are gone through twice.

    Returns:
        Length and SHA-256 of the file of weights.

    Raises:
        CheckpointError: a tensor cannot be read or stored, or the operating system refused; an
            older file of that name is as it was.
    """
    conversion, path = record.conversion, destination.path
    destination.refuse_if_full(sum(prod(shape) for shape in conversion.shapes.values()))
    is_new = not path.exists()
    if destination.format == "safetensors":
        # Paddle knows bfloat16 as uint16; here the writer makes it, of float32.
        is_bfloat16 = destination.dtype == "bfloat16"
        arrays = CastArrays(
            TimmArrays(conversion.arrays),
            "float32" if is_bfloat16 else destination.dtype,
            watch,
            record.became_zero,
        )
        metadata = {"format": "pt", "table": conversion.table_version}
        digest = write_safetensors(
            path, arrays, metadata, dtype="bfloat16" if is_bfloat16 else None
        )
    else:
        arrays = CastArrays(conversion.arrays, destination.dtype, watch, record.became_zero)
        digest = write_arrays(path, arrays)
    try:
        write_record(record, path, digest)
    except CheckpointError:
        if is_new:
            with suppress(OSError):
                path.unlink()
                provenance_path(path).unlink(missing_ok=True)
        raise
    return digest

"""The mean of the weights of several checkpoints.

Sums are float64, and one file is in memory at a time.

Source: averaging points of one run, arXiv:1803.05407; of several fine-tuned ones, arXiv:2203.05482.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Union

import numpy as np

from passl.checkpoint.disk import FileDigest, atomic_file, os_errors_become_sentences
from passl.checkpoint.files import bfloat16_to_float32, read_arrays, write_arrays
from passl.checkpoint.manifest import MANIFEST_NAME
from passl.checkpoint.provenance import PROVENANCE_SUFFIX, Provenance, common, read_provenance
from passl.checkpoint.resolve import resolve_checkpoint
from passl.errors import CheckpointError

__all__ = ["average_checkpoints"]


def average_checkpoints(paths: Sequence[Union[str, Path]], output: Union[str, Path]) -> list[Path]:
    """Write the mean of the weights at ``paths`` to ``output``, which appears whole or not at all.

    Args:
        paths: checkpoint folders, links such as ``best_ema``, files; one that comes twice counts
            twice.
        output: a ``.pdparams`` file; floats are float32 in it.

    Returns:
        The files that were read.

    Raises:
        CheckpointError: a file is damaged, has other tensors than the first, or one that is not
            finite; names of classes, or whole numbers, that differ between them; ``output`` belongs
            to a checkpoint or is one of the files.  Nothing is written then.
    """
    if not paths:
        raise CheckpointError("there is nothing to average: name at least one checkpoint")
    if Path(output).suffix != ".pdparams":
        raise CheckpointError(f"{output}: the file of averaged weights must end in .pdparams")
    if (Path(output).parent / MANIFEST_NAME).exists():
        raise CheckpointError(
            f"{output}: is inside a checkpoint, whose own weights must stay; write to another "
            "folder"
        )
    files: list[Path] = []
    known: list[Provenance] = []
    sums: dict[str, np.ndarray] = {}
    for path in paths:
        resolved = resolve_checkpoint(path)
        resolved.verify(only_weights=True)
        if Path(output).resolve() == Path(resolved.weights).resolve():
            raise CheckpointError(f"{output}: is one of the files to average; write to another")
        known.append(read_provenance(resolved))
        _refuse_other_classes(known, files, resolved.weights)
        arrays = {name: _widened(each) for name, each in read_arrays(resolved.weights).items()}
        if files:
            _refuse_others(sums, arrays, files[0], resolved.weights)
        for name, array in arrays.items():
            _add(sums, name, array, resolved.weights)
        files.append(resolved.weights)
    means = {
        name: (total / len(files)).astype(np.float32) if total.dtype.kind == "f" else total
        for name, total in sums.items()
    }
    digest = write_arrays(output, means)
    _describe(Path(output), digest, common(known), files)
    return files


def _describe(
    output: Path, digest: FileDigest, known: Provenance, files: Sequence[Path]
) -> None:
    """Write beside the file what all that went into it say alike: names of classes, for one."""
    content = {
        "format": 1,
        "file": {"name": output.name, "size": digest.size, "sha256": digest.sha256},
        "averaged": [str(file) for file in files],
        "pos_embed_method": known.pos_embed_method,
        "grid_size": known.grid_size,
        "learned": dict(known.learned),
    }
    path = output.with_name(output.name + PROVENANCE_SUFFIX)
    with os_errors_become_sentences("write", path), atomic_file(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


def _refuse_other_classes(
    known: Sequence[Provenance], files: Sequence[Path], weights: Path
) -> None:
    """The mean of two classifiers that number their classes differently is of no use."""
    names = known[-1].learned.get("classes")
    for file, each in zip(files, known):
        others = each.learned.get("classes")
        if names and others and names != others:
            raise CheckpointError(
                f"{weights} and {file} learned other classes, or the same in another order, so "
                "their mean would know neither"
            )


def _widened(array: np.ndarray) -> np.ndarray:
    return bfloat16_to_float32(array) if array.dtype == np.uint16 else array


def _add(sums: dict[str, np.ndarray], name: str, array: np.ndarray, file: Path) -> None:
    if array.dtype.kind != "f":
        if not np.array_equal(sums.setdefault(name, array), array):
            raise CheckpointError(f"{file}: the whole numbers of {name} differ from the first's")
        return
    if not np.isfinite(array).all():
        raise CheckpointError(f"{file}: {name} has values that are not finite; leave this one out")
    if name in sums:
        sums[name] += array
    else:
        sums[name] = array.astype(np.float64)


def _refuse_others(
    sums: dict[str, np.ndarray], arrays: dict[str, np.ndarray], first: Path, file: Path
) -> None:
    shapes = {name: (value.shape, value.dtype.kind == "f") for name, value in sums.items()}
    found = {name: (value.shape, value.dtype.kind == "f") for name, value in arrays.items()}
    different = sorted(
        name for name in {*shapes, *found} if shapes.get(name) != found.get(name)
    )
    if different:
        named = ", ".join(different[:5]) + (", ..." if len(different) > 5 else "")
        raise CheckpointError(
            f"{file} and {first} are of different models: {len(different)} tensors differ in name, "
            f"shape or kind of number ({named})"
        )

"""Reading a file of weights for a model, converted on the fly where it is not ours."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import numpy as np

from passl.checkpoint.convert.conversion import convert_source, layout_of, recognise
from passl.checkpoint.convert.operations import Shape
from passl.checkpoint.files import read_arrays
from passl.checkpoint.sources import TensorSource, open_source
from passl.checkpoint.sources.wrappers import OTHER_WEIGHTS
from passl.errors import CheckpointError

__all__ = ["ReadWeights", "read_weights"]

#: Names that only older PASSL and PLSC files have.
_LEGACY = ("head0.", "master_weights/")


@dataclass(frozen=True)
class ReadWeights:
    """Arrays under our names in our layout.

    Attributes:
        arrays: name -> array.
        table: version of the table that made them; empty if they are as the file has them.
        pos_embed_method: how their origin resizes positions; None if the file does not tell.
        dropped: name in the file -> why it is not used.
        num_heads: heads of the attentions where the file shows them.
        notes: what a user of weights of this origin must know.
    """

    arrays: dict[str, np.ndarray]
    table: str = ""
    pos_embed_method: Optional[str] = None
    dropped: dict[str, str] = field(default_factory=dict)
    num_heads: Optional[int] = None
    notes: tuple[str, ...] = ()


def read_weights(
    path: Path, shapes: Mapping[str, Shape], allow: Sequence[str] = ()
) -> ReadWeights:
    """Read ``path``, whatever wrote it.

    A Paddle file with the model's own names is taken as it is, whoever's model that may be.

    Args:
        path: a file.
        shapes: parameter of the model -> shape.
        allow: regular expressions of names in the file that no table needs to know, and of the
            model's that a block of the file need not have.

    Raises:
        CheckpointError: it cannot be read, or no table knows its names.
    """
    with open_source(path) as source:
        if source.format == "paddle" and _is_ours(source, shapes):
            wrapped = bool(source.wrapper)  # in an entry of the file, as "model"
            arrays = {name: source.read(name) for name in source.names()} if wrapped else None
            return ReadWeights(arrays or read_arrays(path), notes=tuple(_other_weights(source)))
        conversion = convert_source(source, allow=allow, allow_non_finite=True)
        conversion = conversion.shaped_for(shapes)
        return ReadWeights(
            arrays=dict(conversion.arrays),
            table=conversion.table_version,
            pos_embed_method=conversion.pos_embed_method,
            dropped=conversion.dropped,
            num_heads=conversion.num_heads,
            notes=(*conversion.notes, *_other_weights(source)),
        )


def _other_weights(source: TensorSource) -> list[str]:
    """A word for each other set of weights in the file, such as an average that was kept."""
    return [
        f"{source.wrapper or 'the file'} was read; {key} holds weights too: passl-convert "
        f"--wrapper {key} makes a file of them"
        for key, what in source.ignored.items()
        if OTHER_WEIGHTS in what
    ]


def _is_ours(source: TensorSource, names: Collection[str]) -> bool:
    """Whether the names are the model's and the layout is Paddle's, or no table knows better."""
    stored = source.names()
    if any(name.startswith(_LEGACY) for name in stored) or layout_of(source) == "torch":
        return False
    if 2 * sum(name in names for name in stored) >= len(stored):
        return True
    try:
        recognise(source)
    except CheckpointError:
        return True  # the loader will say what does not fit
    return False

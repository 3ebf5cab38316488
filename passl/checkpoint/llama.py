"""Blocks of a LLaMA checkpoint, read one tensor at a time, and cut out into a file of their own.

    weights = open_llama("LLaMA/7B")                   # the last block; sizes only
    for name, array in weights.tensors(): ...          # "layers.0.attention.wq.weight", [in, out]
    extract_llama_block("LLaMA/7B", "llama_7b_31.pdparams", layer=31)

The layouts that are read are in :mod:`passl.checkpoint.llama_layouts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional, Union

import numpy as np

from passl.checkpoint.convert.casting import ArraysInOrder, BecameZero, as_stored
from passl.checkpoint.files import write_arrays
from passl.checkpoint.llama_layouts import (
    BLOCK_NAMES,
    CONFIG_PREFIX,
    FINAL_NORM,
    Reader,
    open_layout,
    shapes,
)
from passl.errors import CheckpointError
from passl.layers.llama_block import LlamaSizes
from passl.registry import EXTERNAL_WEIGHTS

__all__ = ["LlamaWeights", "extract_llama_block", "open_llama"]


@dataclass(frozen=True)
class LlamaWeights:
    """Some blocks in a row of a LLaMA checkpoint.

    Attributes:
        path: the folder or file.
        sizes: of each block.
        num_layers: blocks of the whole checkpoint.
        layers: which of them these are.
    """

    path: Path
    sizes: LlamaSizes
    num_layers: int
    layers: range
    _opened: Callable[[ExitStack], Reader]

    def tensors(self, *, final_norm: bool = True) -> Iterator[tuple[str, np.ndarray]]:
        """``(name, array)`` one by one, blocks counted from 0, linear weights [in, out].

        Args:
            final_norm: the checkpoint's last normalisation, ``norm.weight``, as well.

        Raises:
            CheckpointError: a tensor is missing, damaged, not finite or of another shape.
        """
        with ExitStack() as stack:
            read = self._opened(stack)
            for position, layer in enumerate(self.layers):
                for name in BLOCK_NAMES:
                    array = self._checked(f"layers.{layer}.{name}", name, read)
                    yield f"layers.{position}.{name}", array.T
                    del array  # before the next is read: the largest there are
            if final_norm:
                yield FINAL_NORM, self._checked(FINAL_NORM, FINAL_NORM, read)

    def _checked(self, full_name: str, name: str, read: Reader) -> np.ndarray:
        array, wanted = read(full_name), shapes(self.sizes)[name]
        if array.shape != wanted:
            raise CheckpointError(
                f"{self.path}: {full_name} has the shape {list(array.shape)}, and by the sizes "
                f"beside it must have {list(wanted)}; are the files of one checkpoint?"
            )
        if not np.isfinite(array).all():
            raise CheckpointError(f"{self.path}: {full_name} holds NaN or infinite values.")
        return array


@EXTERNAL_WEIGHTS.register("llama")
def open_llama(path: str, layer: Optional[int] = None, count: int = 1) -> LlamaWeights:
    """The blocks of a LLaMA checkpoint that a model wants; reads sizes, no weights yet.

    Args:
        path: a folder of Meta's or Hugging Face's layout, or an extracted block.
        layer: index of the last block, from 0; None is the last one there.
        count: how many blocks in a row, ending with ``layer``.

    Raises:
        CheckpointError: nothing of the kind is there (says what was looked for), it is damaged, it
            is no LLaMA, or it has no such block.
    """
    place = Path(path).expanduser()
    layout = open_layout(place)
    last = layout.held[-1] if layer is None else layer
    layers = range(last - count + 1, last + 1)
    if count < 1 or layers[0] not in layout.held or layers[-1] not in layout.held:
        raise CheckpointError(
            f"{place}: asked for: {_blocks(last - count + 1, last)} (llama_layer, llama_layers); "
            f"held: {_blocks(layout.held[0], layout.held[-1])} of the checkpoint's "
            f"{layout.num_layers}, counted from 0"
        )
    return LlamaWeights(place, layout.sizes, layout.num_layers, layers, layout.opened)


def extract_llama_block(
    path: Union[str, Path],
    dst: Union[str, Path],
    *,
    layer: Optional[int] = None,
    count: int = 1,
    dtype: Optional[str] = None,
    lost: Optional[BecameZero] = None,
) -> LlamaWeights:
    """Write some blocks of a LLaMA checkpoint into a file that ``llama_path`` takes.

    Unless ``dtype`` is given no digit is lost, and a block of LLaMA 7B takes 405 MB, as fp16 and
    bf16 stay what they are; one tensor at a time is in memory.  The last normalisation goes with
    them.

    Args:
        path: a checkpoint, as of :func:`open_llama`.
        dst: the file to write, ``*.pdparams``.
        layer, count: as of :func:`open_llama`.
        dtype: ``float32``, ``float16`` or ``bfloat16``; None as stored.
        lost: counts numbers that become 0.

    Returns:
        What was written.

    Raises:
        CheckpointError: the checkpoint cannot be used, or the operating system refused.
    """
    dst = Path(dst)
    if dst.suffix != ".pdparams":
        raise CheckpointError(f"{dst}: the file to write must be called *.pdparams")
    weights = open_llama(str(path), layer, count)
    dst.parent.mkdir(parents=True, exist_ok=True)
    write_arrays(dst, _Extraction(weights, dtype, lost))
    return weights


def _blocks(first: int, last: int) -> str:
    return f"block {last}" if first == last else f"blocks {first} to {last}"


class _Extraction(ArraysInOrder):
    """What an extracted file holds; each array exists only while it is written."""

    def __init__(
        self, weights: LlamaWeights, dtype: Optional[str], lost: Optional[BecameZero]
    ) -> None:
        self._weights, self._dtype, self._lost = weights, dtype, lost
        sizes = weights.sizes
        self._config = {
            "dim": sizes.dim,
            "num_heads": sizes.num_heads,
            "num_kv_heads": sizes.num_kv_heads,
            "hidden_dim": sizes.hidden_dim,
            "epsilon": sizes.epsilon,
            "num_layers": weights.num_layers,
            "first_layer": weights.layers[0],
            "count": len(weights.layers),
        }

    def pairs(self) -> Iterator[tuple[str, np.ndarray]]:
        for key, value in self._config.items():
            yield CONFIG_PREFIX + key, np.asarray(value)
        for name, array in self._weights.tensors():
            yield name, as_stored(name, array, self._dtype, self._lost)
            del array

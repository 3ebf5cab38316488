"""Weight selection: a small iLLaMA begins with every so many-th row and column of a LLaMA.

    select_weights("LLaMA-2-7B-hf", "illama_ws_tiny.pdparams", model="iLLaMA_tiny_patch16_224")

Block ``i`` of the model is made of block ``i`` of the checkpoint, so of its first blocks.  Every
axis of every tensor is thinned out uniformly; query, key and value as one matrix of three times
the rows.  Biases, patch and position embedding, class token, last norm and head are not in the
result.

Source: Xu et al. 2024, "Initializing Models with Larger Ones" (arXiv 2311.18823), for uniform
selection; iLLaMA's released script for which tensor becomes which.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Optional, Union

import numpy as np

from passl.checkpoint.convert.casting import ArraysInOrder, BecameZero, as_stored
from passl.checkpoint.convert.record import provenance_path
from passl.checkpoint.disk import atomic_file, os_errors_become_sentences
from passl.checkpoint.files import write_arrays
from passl.checkpoint.llama import LlamaWeights
from passl.checkpoint.llama_layouts import Layout, open_layout
from passl.errors import CheckpointError, ConfigError
from passl.layers.llama_block import LlamaSizes

__all__ = ["NOT_SELECTED", "RopeLayout", "Selection", "select_weights", "uniform_indices"]

RopeLayout = Literal["as-is", "meta"]
#: For ``Global.allow_missing``: what a selection leaves to chance.
NOT_SELECTED = (r"\.bias$", "^cls_token$", "^pos_embed$", r"^patch_embed\.", r"^norm\.", r"^head\.")

#: LLaMA's tensor -> iLLaMA's; ``wq``, ``wk`` and ``wv`` become one.
_NAMES = {
    "attention.wo.weight": "attn.proj.weight",
    "feed_forward.w1.weight": "mlp.fc1.weight",
    "feed_forward.w2.weight": "mlp.fc2.weight",
    "feed_forward.w3.weight": "mlp.fc3.weight",
    "attention_norm.weight": "norm1.weight",
    "ffn_norm.weight": "norm2.weight",
}
_QKV = ("attention.wq.weight", "attention.wk.weight", "attention.wv.weight")
_Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Selection:
    """What was selected.

    Attributes:
        model: name of the model.
        path: the checkpoint.
        sizes: of its blocks.
        num_layers: blocks it has.
        depth: of which the first so many were used.
        num_tensors: tensors written.
        missing: parameters of the model that are not among them.
    """

    model: str
    path: Path
    sizes: LlamaSizes
    num_layers: int
    depth: int
    num_tensors: int
    missing: list[str]


def select_weights(
    path: Union[str, Path],
    dst: Union[str, Path],
    *,
    model: str,
    arguments: Optional[Mapping[str, Any]] = None,
    dtype: Optional[str] = None,
    rope_layout: RopeLayout = "as-is",
    lost: Optional[BecameZero] = None,
) -> Selection:
    """Write the start of an iLLaMA that a LLaMA gives; one tensor at a time is in memory.

    Args:
        path: a LLaMA checkpoint of Meta's or Hugging Face's layout.
        dst: the file to write, ``*.pdparams``.
        model: name of an iLLaMA.
        arguments: of the model, where they differ from the name's.
        dtype: ``float32``, ``float16`` or ``bfloat16``; None as stored.
        rope_layout: ``as-is`` takes the rows of query and key as they lie in the file, as the
            authors did with a file of Hugging Face's; ``meta`` first puts those into the order in
            which iLLaMA's rotary positions, like Meta's, pair them.
        lost: counts numbers that become 0.

    Raises:
        ConfigError: the model is no iLLaMA, or has no such argument.
        CheckpointError: the checkpoint cannot be used, is too small for the model, or the
            operating system refused.
    """
    path, dst = Path(path).expanduser(), Path(dst)
    if dst.suffix != ".pdparams":
        raise CheckpointError(f"{dst}: the file to write must be called *.pdparams")
    shapes = _shapes_of(model, arguments or {})
    depth = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks."))
    layout = open_layout(path)
    _refuse_unless_larger(path, layout, model, shapes, depth)
    _refuse_unless_known(path, layout, rope_layout)
    weights = LlamaWeights(path, layout.sizes, layout.num_layers, range(depth), layout.opened)
    unpermute = bool(layout.is_permuted) and rope_layout == "meta"
    arrays = _Selected(weights, shapes, dtype, unpermute, lost)
    write_arrays(dst, arrays)
    missing = [name for name in shapes if name not in arrays.written]
    selection = Selection(
        model, path, layout.sizes, layout.num_layers, depth, len(arrays.written), missing
    )
    _write_origin(dst, selection, dict(arguments or {}), rope_layout)
    return selection


def uniform_indices(length: int, count: int) -> np.ndarray:
    """Which ``count`` of ``length`` places are taken: int64, rising.

    Every so many-th from the first if ``count`` divides ``length``; else evenly from the first to
    the last, rounded, halves to even.

    The places are those of the authors' ``torch.linspace`` in float32, counted from both ends with
    one rounding each: from 12288 to 1152, one of them is not the exactly rounded one.
    """
    steps = np.arange(count)
    if length % count == 0:
        return steps * (length // count)
    step = float(np.float32(length - 1) / np.float32(count - 1))
    from_start = (step * steps).astype(np.float32)
    from_end = (length - 1 - step * steps[::-1]).astype(np.float32)
    return np.rint(np.where(steps < count // 2, from_start, from_end)).astype(np.int64)


# -- reading and writing ---------------------------------------------------------------------------


class _Selected(ArraysInOrder):
    """The arrays to be written, by iLLaMA's names, linear weights [in, out]; in order only."""

    def __init__(
        self,
        weights: LlamaWeights,
        shapes: _Shapes,
        dtype: Optional[str],
        unpermute: bool,
        lost: Optional[BecameZero],
    ) -> None:
        self._weights, self._shapes = weights, shapes
        self._dtype, self._unpermute, self._lost = dtype, unpermute, lost
        self.written: set[str] = set()

    def pairs(self) -> Iterator[tuple[str, np.ndarray]]:
        for name, array in self._selected():
            self.written.add(name)
            yield name, as_stored(name, array, self._dtype, self._lost)

    def _selected(self) -> Iterator[tuple[str, np.ndarray]]:
        parts: list[np.ndarray] = []
        for full_name, array in self._weights.tensors(final_norm=False):
            _, number, name = full_name.split(".", 2)
            if name in _QKV:
                target = f"blocks.{number}.attn.qkv.weight"
                parts.append(self._part_of_qkv(array, len(parts), self._shapes[target]))
            else:
                target = f"blocks.{number}.{_NAMES[name]}"
                yield target, self._thinned(array, self._shapes[target])
            del array  # before the next is read
            if len(parts) == len(_QKV):
                yield target, np.concatenate(parts, axis=1)
                parts.clear()

    def _thinned(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Of [in, out] or [c]."""
        indices = (uniform_indices(*sizes) for sizes in zip(array.shape, shape))
        return np.ascontiguousarray(array[np.ix_(*indices)])

    def _part_of_qkv(self, array: np.ndarray, part: int, shape: tuple[int, ...]) -> np.ndarray:
        """The columns of the joint [in, 3 out] that ``array`` [in, out], number ``part``, gives."""
        rows, columns = array.shape
        chosen = uniform_indices(len(_QKV) * columns, shape[1])
        chosen = chosen[chosen // columns == part] - part * columns
        if self._unpermute and part < 2:  # query and key
            chosen = _huggingface_place(chosen, self._weights.sizes.head_dim)
        return array[np.ix_(uniform_indices(rows, shape[0]), chosen)]


def _huggingface_place(places: np.ndarray, head_dim: int) -> np.ndarray:
    """Where Hugging Face's files have the rows that Meta's have at ``places``.

    Meta pairs neighbours, Hugging Face a head's first half with its second.
    """
    head, inside = np.divmod(places, head_dim)
    pair, member = np.divmod(inside, 2)
    return head * head_dim + member * (head_dim // 2) + pair


def _write_origin(
    dst: Path, selection: Selection, arguments: dict[str, Any], rope_layout: str
) -> None:
    content = {
        "format": 1,
        "made_by": "weight selection",
        "source": {"path": str(selection.path), "num_layers": selection.num_layers},
        "model": {"name": selection.model, "args": arguments},
        "rope_layout": rope_layout,
        "tensors": selection.num_tensors,
        "missing": selection.missing,
    }
    path = provenance_path(dst)
    with os_errors_become_sentences("write", path), atomic_file(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode("utf-8"))


# -- what is refused -------------------------------------------------------------------------------


def _shapes_of(model: str, arguments: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Of the model's parameters, without allocating them."""
    import paddle

    from passl.layers.init import no_init
    from passl.models import create_model

    with paddle.LazyGuard(), no_init():
        built = create_model(model, **arguments)
    shapes = {name: tuple(value.shape) for name, value in built.state_dict().items()}
    if "blocks.0.mlp.fc3.weight" not in shapes or "blocks.0.norm1.bias" in shapes:
        raise ConfigError(
            f"--model {model}: weights of LLaMA are selected for an iLLaMA; see "
            "passl-models 'iLLaMA*'"
        )
    return shapes


def _refuse_unless_larger(
    path: Path, layout: Layout, model: str, shapes: _Shapes, depth: int
) -> None:
    sizes = layout.sizes
    if sizes.num_kv_heads != sizes.num_heads:
        raise CheckpointError(
            f"{path}: its {sizes.num_heads} heads share {sizes.num_kv_heads} keys and values, and "
            "those of an iLLaMA share none; select from a LLaMA whose heads have their own, such "
            "as LLaMA-2 7B or 13B"
        )
    if layout.held[0] != 0 or len(layout.held) < depth:
        held = f"{layout.held[0]} to {layout.held[-1]} of {layout.num_layers}"
        raise CheckpointError(
            f"{path}: {model} has {depth} blocks, which are made of blocks 0 to {depth - 1} of the "
            f"checkpoint; it holds blocks {held}"
        )
    hidden, dim = shapes["blocks.0.mlp.fc2.weight"]
    if dim > sizes.dim or hidden > sizes.hidden_dim:
        raise CheckpointError(
            f"{path}: {model} is {dim} wide with perceptrons of {hidden}, and the checkpoint has "
            f"only {sizes.dim} and {sizes.hidden_dim} to select from"
        )


def _refuse_unless_known(path: Path, layout: Layout, rope_layout: str) -> None:
    if rope_layout == "meta" and layout.is_permuted is None:
        raise CheckpointError(
            f"{path}: an extracted block does not say in which order its rows of query and key "
            "are; select from the checkpoint it was extracted from, or use --rope-layout as-is"
        )

"""The layouts of LLaMA checkpoints: what their blocks are called, and how large they are.

* Meta's release: a folder with ``params.json``, ``consolidated.00.pth`` (more of them from 13B on:
  the parts of each matrix are put together) and ``checklist.chk``, whose MD5 sums are verified;
* Hugging Face's: a folder with ``config.json`` and safetensors or bin files, with or without an
  index;
* an extracted block: the ``.pdparams`` file that :func:`passl.checkpoint.llama.extract_llama_block`
  writes, linear weights [in, out] as Paddle keeps them.

The rows of Hugging Face's query and key matrices are permuted for its rotary embedding, the same
way in both; without rotary positions, as the blocks are used here, their product is unchanged.

Source: ``convert_llama_weights_to_hf.py`` of Hugging Face's transformers for the names;
``model.py`` of facebookresearch/llama for which axis of a matrix is spread over the files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from passl.checkpoint.disk import os_errors_become_sentences
from passl.checkpoint.sources import TensorSource, open_source
from passl.errors import CheckpointError
from passl.layers.llama_block import LlamaSizes

__all__ = [
    "BLOCK_NAMES",
    "CONFIG_PREFIX",
    "FINAL_NORM",
    "Layout",
    "Reader",
    "open_layout",
    "shapes",
]

FINAL_NORM = "norm.weight"
#: Of each block: Meta's name -> Hugging Face's.
BLOCK_NAMES = {
    "attention.wq.weight": "self_attn.q_proj.weight",
    "attention.wk.weight": "self_attn.k_proj.weight",
    "attention.wv.weight": "self_attn.v_proj.weight",
    "attention.wo.weight": "self_attn.o_proj.weight",
    "feed_forward.w1.weight": "mlp.gate_proj.weight",
    "feed_forward.w2.weight": "mlp.down_proj.weight",
    "feed_forward.w3.weight": "mlp.up_proj.weight",
    "attention_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
}
#: Matrices of which each of several ``consolidated.*.pth`` holds some columns; of the others, rows.
_SPLIT_BY_COLUMN = ("wo.weight", "w2.weight")
#: Of the numbers beside the arrays of an extracted block.
CONFIG_PREFIX = "config."
_LOOKED_FOR = (
    "consolidated.00.pth with params.json (Meta's release), config.json with *.safetensors or "
    "*.bin (Hugging Face), or a block extracted from one of them (*.pdparams, see "
    "docs/llama_models.md)"
)
#: Linear weights [out, in], whatever the file's layout, by Meta's name with the absolute index.
Reader = Callable[[str], np.ndarray]


@dataclass(frozen=True)
class Layout:
    """A checkpoint of one layout: its sizes, which blocks it has, and how to open it.

    ``is_permuted`` tells whether the rows of query and key are in Hugging Face's order for rotary
    positions and not in Meta's; None if the file does not say.
    """

    sizes: LlamaSizes
    num_layers: int
    held: range
    opened: Callable[[ExitStack], Reader]
    is_permuted: Optional[bool] = None


def open_layout(path: Path) -> Layout:
    """Recognise the checkpoint at ``path`` and read its sizes.

    Raises:
        CheckpointError: there is none, or it is damaged or of another model.
    """
    if not path.exists():
        missing = next(place for place in (path, *path.parents) if place.parent.exists())
        what = "" if missing == path else f" ({missing} does not exist)"
        raise CheckpointError(
            f"{path}: there is no LLaMA checkpoint{what}; looked for {_LOOKED_FOR}"
        )
    if path.is_file():
        return _extracted(path)
    with os_errors_become_sentences("read", path):
        names = sorted(entry.name for entry in path.iterdir())
    parts = [name for name in names if name.startswith("consolidated.") and name.endswith(".pth")]
    if parts:
        return _meta(path, [path / name for name in parts])
    if "config.json" in names:
        return _hugging_face(path)
    blocks = [name for name in names if name.endswith(".pdparams")]
    hint = f" Did you mean {path / blocks[0]}?" if blocks else ""
    raise CheckpointError(
        f"{path}: this folder holds no LLaMA checkpoint; looked for {_LOOKED_FOR}.{hint}"
    )


def shapes(sizes: LlamaSizes) -> dict[str, tuple[int, ...]]:
    """Of each tensor, linear weights [out, in]."""
    dim, hidden, shared = sizes.dim, sizes.hidden_dim, sizes.num_kv_heads * sizes.head_dim
    return {
        "attention.wq.weight": (dim, dim),
        "attention.wk.weight": (shared, dim),
        "attention.wv.weight": (shared, dim),
        "attention.wo.weight": (dim, dim),
        "feed_forward.w1.weight": (hidden, dim),
        "feed_forward.w2.weight": (dim, hidden),
        "feed_forward.w3.weight": (hidden, dim),
        "attention_norm.weight": (dim,),
        "ffn_norm.weight": (dim,),
        FINAL_NORM: (dim,),
    }


def _meta(folder: Path, parts: list[Path]) -> Layout:
    """Meta's release."""
    expected = [f"consolidated.{number:02d}.pth" for number in range(len(parts))]
    if [part.name for part in parts] != expected:
        raise CheckpointError(
            f"{folder}: of its parts {', '.join(part.name for part in parts)} one is missing; "
            f"{len(parts)} parts would be {', '.join(expected)}"
        )
    params = _read_json(folder / "params.json")
    _verify_checklist(folder, {"params.json", *expected})
    dim, heads = _whole(params, "dim", folder), _whole(params, "n_heads", folder)
    kv_heads = _whole(params, "n_kv_heads", folder) if params.get("n_kv_heads") else heads
    num_layers = _whole(params, "n_layers", folder)

    def opened(stack: ExitStack) -> Reader:
        sources = [stack.enter_context(open_source(part)) for part in parts]
        return lambda name: _joined(name, [source.read(name) for source in sources])

    with ExitStack() as stack:
        sources = [stack.enter_context(open_source(part)) for part in parts]
        held = _held(sources[0], "layers.", num_layers, folder)
        gate = f"layers.{held[-1]}.feed_forward.w1.weight"
        hidden = sum(source.shape(gate)[0] for source in sources)
    epsilon = float(params.get("norm_eps", 1e-5))
    sizes = LlamaSizes(dim, heads, kv_heads, hidden, epsilon)
    return Layout(sizes, num_layers, held, opened, is_permuted=False)


def _joined(name: str, parts: list[np.ndarray]) -> np.ndarray:
    if len(parts) == 1 or parts[0].ndim == 1:  # normalisations are whole in every file
        return parts[0]
    return np.concatenate(parts, axis=1 if name.endswith(_SPLIT_BY_COLUMN) else 0)


def _hugging_face(folder: Path) -> Layout:
    """Hugging Face's folder of a LLaMA, or of a model that has LLaMA's blocks."""
    config = _read_json(folder / "config.json")
    _refuse_other_models(config, folder)
    dim = _whole(config, "hidden_size", folder)
    heads = _whole(config, "num_attention_heads", folder)
    kv_heads = _whole(config, "num_key_value_heads", folder, heads)
    num_layers = _whole(config, "num_hidden_layers", folder)
    hidden = _whole(config, "intermediate_size", folder)
    epsilon = float(config.get("rms_norm_eps", 1e-6))
    with open_source(folder) as source:
        prefix = "model." if any(name.startswith("model.") for name in source.names()) else ""
        held = _held(source, f"{prefix}layers.", num_layers, folder)

    def opened(stack: ExitStack) -> Reader:
        source = stack.enter_context(open_source(folder))
        return lambda name: source.read(prefix + _hf_name(name))

    sizes = LlamaSizes(dim, heads, kv_heads, hidden, epsilon)
    return Layout(sizes, num_layers, held, opened, is_permuted=True)


def _hf_name(name: str) -> str:
    parts = name.split(".", 2)
    return name if name == FINAL_NORM else ".".join([*parts[:2], BLOCK_NAMES[parts[2]]])


def _refuse_other_models(config: Mapping[str, Any], folder: Path) -> None:
    kind = config.get("model_type")
    dim, heads = config.get("hidden_size"), config.get("num_attention_heads")
    width = config.get("head_dim")
    problems = []
    if kind not in ("llama", "mistral"):
        problems.append(f"its model_type is {kind!r}, not 'llama'")
    if config.get("hidden_act", "silu") != "silu":
        problems.append(f"its activation is {config['hidden_act']!r}, not 'silu'")
    problems += [f"it has {key}" for key in ("attention_bias", "mlp_bias") if config.get(key)]
    if width and dim and heads and width * heads != dim:
        problems.append(f"its heads are {width} wide, not hidden_size / num_attention_heads")
    if problems:
        raise CheckpointError(
            f"{folder}: this is no checkpoint with LLaMA's blocks: {'; '.join(problems)}"
        )


def _extracted(path: Path) -> Layout:
    """A file that :func:`extract_llama_block` wrote."""
    with open_source(path) as source:
        names = [name for name in source.names() if name.startswith(CONFIG_PREFIX)]
        config = {name[len(CONFIG_PREFIX) :]: source.read(name).item() for name in names}
    try:
        sizes = LlamaSizes(
            dim=int(config["dim"]),
            num_heads=int(config["num_heads"]),
            num_kv_heads=int(config["num_kv_heads"]),
            hidden_dim=int(config["hidden_dim"]),
            epsilon=float(config["epsilon"]),
        )
        first, count = int(config["first_layer"]), int(config["count"])
        num_layers = int(config["num_layers"])
    except KeyError as error:
        raise CheckpointError(
            f"{path}: this is no extracted LLaMA block ({CONFIG_PREFIX}{error.args[0]} is "
            f"missing); looked for {_LOOKED_FOR}"
        ) from error

    def opened(stack: ExitStack) -> Reader:
        source = stack.enter_context(open_source(path))
        return lambda name: source.read(_renumbered(name, -first)).T

    return Layout(sizes, num_layers, range(first, first + count), opened)


def _renumbered(name: str, shift: int) -> str:
    if name == FINAL_NORM:
        return name
    layers, number, rest = name.split(".", 2)
    return f"{layers}.{int(number) + shift}.{rest}"


def _held(source: TensorSource, prefix: str, num_layers: int, path: Path) -> range:
    """The blocks that are in the file: all, or an unbroken part of them."""
    starts = (name[len(prefix) :] for name in source.names() if name.startswith(prefix))
    numbers = sorted({int(rest.split(".")[0]) for rest in starts if rest.split(".")[0].isdigit()})
    if not numbers or numbers[-1] >= num_layers:
        raise CheckpointError(
            f"{path}: its weights hold no blocks called {prefix}0 to {prefix}{num_layers - 1}, of "
            f"which the settings beside them speak; its tensors are called "
            f"{', '.join(source.names()[:3])}, ..."
        )
    held = range(numbers[0], numbers[-1] + 1)
    if len(held) != len(numbers):
        raise CheckpointError(f"{path}: of its blocks {held[0]} to {held[-1]} some are missing")
    return held


def _verify_checklist(folder: Path, used: set[str]) -> None:
    """Compare the files to be used with the MD5 sums of ``checklist.chk``, where there is one."""
    checklist = folder / "checklist.chk"
    if not checklist.exists():
        return
    with os_errors_become_sentences("read", checklist):
        lines = checklist.read_text(encoding="utf-8", errors="replace").splitlines()
    sums = {words[1].lstrip("*"): words[0] for line in lines if len(words := line.split()) == 2}
    for name in sorted(used & set(sums)):
        found = _md5(folder / name)
        if found != sums[name].lower():
            raise CheckpointError(
                f"{folder / name}: its MD5 sum is {found}, and {checklist.name} says "
                f"{sums[name]}; the download was damaged or changed: fetch the file again"
            )


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with os_errors_become_sentences("read", path), open(path, "rb") as file:
        while piece := file.read(8 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise CheckpointError(
            f"{path}: there is no such file, which says the sizes of the weights beside it; copy "
            "it there from where the weights are from"
        )
    with os_errors_become_sentences("read", path):
        text = path.read_text(encoding="utf-8", errors="replace")
    try:
        content = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: this is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a mapping, found {type(content).__name__}")
    return content


def _whole(content: Mapping[str, Any], key: str, where: Path, default: Optional[int] = None) -> int:
    value = content.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(f"{where}: {key} must be a whole number of at least 1, found {value}")
    return value

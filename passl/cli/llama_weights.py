"""The modes of ``passl-convert`` that take something out of a LLaMA checkpoint."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from passl.checkpoint.convert.casting import BecameZero
from passl.checkpoint.convert.output import Destination
from passl.checkpoint.disk import human_size
from passl.errors import EXIT_OK, ConfigError

if TYPE_CHECKING:
    from passl.checkpoint.weight_selection import RopeLayout
    from passl.layers.llama_block import LlamaSizes

__all__ = ["add_llama_options", "asked_of_llama", "run_llama"]

#: Options of a conversion that mean nothing here: attribute -> as it is typed.
_FOREIGN = {
    "family": "--from", "wrapper": "--wrapper", "allow_missing": "--allow-missing",
    "allow_non_finite": "--allow-non-finite", "to": "--to", "dry_run": "--dry-run",
    "verify": "--verify", "reference": "--reference", "download": "--download",
}


def add_llama_options(parser: argparse.ArgumentParser) -> None:
    """``--extract-llama-layer``, ``--weight-selection`` and what belongs to them."""
    group = parser.add_argument_group("parts of a LLaMA checkpoint (SRC is its folder)")
    mode = group.add_mutually_exclusive_group()
    mode.add_argument(
        "--extract-llama-layer", type=int, metavar="N",
        help="write block N, counted from 0, for Model.llama_path of a ViT-LLaMA",
    )
    mode.add_argument(
        "--weight-selection", action="store_true",
        help="write the start of the iLLaMA that --model names, selected uniformly",
    )
    group.add_argument(
        "--llama-layers", type=int, metavar="K",
        help="with --extract-llama-layer: K blocks in a row, ending with N (1)",
    )
    group.add_argument(
        "--rope-layout", choices=["as-is", "meta"],
        help="with --weight-selection: order of the rows of query and key, as the file has them "
        "(as-is, as the authors did), or as iLLaMA's rotary positions pair them (meta)",
    )


def asked_of_llama(args: argparse.Namespace) -> bool:
    """Whether the command line asks for one of these modes.

    Raises:
        ConfigError: it has options of the one mode and asks for another.
    """
    extracts, selects = args.extract_llama_layer is not None, args.weight_selection
    if args.llama_layers is not None and not extracts:
        raise ConfigError("--llama-layers belongs to --extract-llama-layer N")
    if args.rope_layout is not None and not selects:
        raise ConfigError("--rope-layout belongs to --weight-selection")
    return bool(extracts or selects)


def run_llama(args: argparse.Namespace, overrides: Mapping[str, Any]) -> int:
    """Write what is asked for; returns the exit status.

    Args:
        args: the parsed command line.
        overrides: arguments of the model, of ``-o``.
    """
    mode = "--weight-selection" if args.weight_selection else "--extract-llama-layer"
    foreign = [option for name, option in _FOREIGN.items() if getattr(args, name)]
    if foreign:
        raise ConfigError(f"{', '.join(foreign)}: not with {mode}, which converts nothing")
    if args.destination is None:
        raise ConfigError("where to? give DST, a file *.pdparams")
    destination = Destination(Path(args.destination), "pdparams", "float32", args.overwrite)
    destination.refuse_if_impossible(Path(args.source))
    lost = BecameZero()
    if args.weight_selection:
        _select(args, destination.path, overrides, lost)
    else:
        _extract(args, destination.path, lost)
    print(f"wrote {destination.path} ({human_size(destination.path.stat().st_size)})")
    if sentence := lost.sentence(str(args.dtype)):
        print(f"note: {sentence}")
    return EXIT_OK


def _extract(args: argparse.Namespace, path: Path, lost: BecameZero) -> None:
    from passl.checkpoint.llama import extract_llama_block  # imports Paddle

    if args.model is not None:
        raise ConfigError("--model: a block is extracted for every model; leave it out")
    count = 1 if args.llama_layers is None else args.llama_layers
    weights = extract_llama_block(
        args.source,
        path,
        layer=args.extract_llama_layer,
        count=count,
        dtype=args.dtype,
        lost=lost,
    )
    numbers = ", ".join(map(str, weights.layers))
    print(f"read {args.source}: block {numbers} of {weights.num_layers}; {_said(weights.sizes)}")


def _select(
    args: argparse.Namespace, path: Path, overrides: Mapping[str, Any], lost: BecameZero
) -> None:
    from passl.checkpoint.weight_selection import NOT_SELECTED, select_weights  # imports Paddle

    model: Optional[str] = args.model
    if model is None:
        raise ConfigError("for which model? give --model NAME, such as iLLaMA_tiny_patch16_224")
    layout: RopeLayout = args.rope_layout or "as-is"
    selection = select_weights(
        args.source,
        path,
        model=model,
        arguments=overrides,
        dtype=args.dtype,
        rope_layout=layout,
        lost=lost,
    )
    print(
        f"read {selection.path}: blocks 0 to {selection.depth - 1} of {selection.num_layers}; "
        f"{_said(selection.sizes)}; rows of query and key: {layout}"
    )
    total = selection.num_tensors + len(selection.missing)
    print(f"selected {selection.num_tensors} of {total} tensors of {model}")
    patterns = ", ".join(f"'{pattern}'" for pattern in NOT_SELECTED)
    print(f"the others start anew: Global.allow_missing: [{patterns}]")


def _said(sizes: LlamaSizes) -> str:
    return f"width {sizes.dim}, {sizes.num_heads} heads, perceptrons of {sizes.hidden_dim}"

"""``passl-convert``: weights of other origins become ours, and ours become timm's."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, Optional

from passl.checkpoint.convert import FAMILIES, Conversion, convert_source
from passl.checkpoint.convert.casting import DTYPES, CastArrays
from passl.checkpoint.convert.download import download, is_url
from passl.checkpoint.convert.output import SUFFIXES, Destination, write_converted
from passl.checkpoint.convert.record import Record, provenance_path
from passl.checkpoint.convert.targets import Target, find_models, fit, plain_vit_options, target_of
from passl.checkpoint.convert.to_timm import notes_for_timm
from passl.checkpoint.convert.verify import refuse_unless_possible, verify
from passl.checkpoint.disk import human_size
from passl.checkpoint.provenance import read_provenance
from passl.checkpoint.resolve import resolve_checkpoint
from passl.checkpoint.sources import TensorSource, open_source
from passl.cli.common import command_parser, run_command
from passl.cli.llama_weights import add_llama_options, asked_of_llama, run_llama
from passl.config.tree import plain
from passl.config.yaml_tree import parse_yaml
from passl.errors import EXIT_FAILED, EXIT_OK, CheckpointError, ConfigError
from passl.models.known_weights import weights_at

__all__ = ["build_parser", "main"]

_EPILOG = """\
examples:
  passl-convert ViT-B_16.npz vit_b16.pdparams             recognised by its names, which model too
  passl-convert deit.pth deit.pdparams --model DeiT_tiny_patch16_224 --verify
  passl-convert latest.pdparams mine.safetensors           for timm: names and layout of torch
  passl-convert ViT-B_16.npz --dry-run                     print what would be done with each tensor
  passl-convert https://HOST/ViT-B_16.npz vit.pdparams --download
  passl-convert --extract-llama-layer 31 LLaMA/7B llama_31.pdparams
  passl-convert --weight-selection LLaMA-2-7B-hf --model iLLaMA_tiny_patch16_224 start.pdparams
  passl-models --pretrained                                which weights there are, and where

exit status: 0 done; 1 the file cannot be converted, or --verify found a difference; 2 a mistake on
the command line
"""
_REPORT_EVERY_S = 2.0
_TOLERANCE = 1e-4


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(build_parser(), _run, argv)


class _Parser(argparse.ArgumentParser):
    """Lets options stand between SRC and DST."""

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """As of the base class."""
        return self.parse_intermixed_args(*args, **kwargs)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = command_parser(
        "passl-convert",
        "Convert weights between other programs' files and ours, or ours and timm's.",
        _EPILOG,
        _Parser,
    )
    parser.add_argument("source", metavar="SRC", help="file of weights, or an address (--download)")
    parser.add_argument("destination", metavar="DST", nargs="?", help="file to write")
    parser.add_argument("--model", metavar="NAME", help="the model to fill; else it is found")
    parser.add_argument(
        "-o", "--override", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="arguments of the model, e.g. -o class_num=10 epsilon=1e-12",
    )
    parser.add_argument(
        "--from", dest="family", choices=list(FAMILIES), metavar="FAMILY",
        help=f"whose names the file has, instead of recognising it: {', '.join(FAMILIES)}",
    )
    parser.add_argument(
        "--wrapper", metavar="KEY",
        help="which part of the file holds the weights, e.g. model_ema; else it is found",
    )
    parser.add_argument(
        "--allow-missing", nargs="+", action="extend", default=[], metavar="PATTERN",
        help="regular expressions of tensors, of either side, that need not fit",
    )
    parser.add_argument(
        "--allow-non-finite", action="store_true", help="convert NaN and infinity as they are"
    )
    parser.add_argument("--to", choices=list(SUFFIXES), help="what to write; else by DST's suffix")
    parser.add_argument(
        "--dtype", choices=list(DTYPES),
        help="type of the numbers written (float32; as stored for parts of a LLaMA)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace DST if it exists")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the table and write nothing"
    )
    parser.add_argument(
        "--verify", action="store_true",
        help="compare with timm (torch and timm must be installed) or --reference before writing",
    )
    parser.add_argument(
        "--reference", metavar="FILE.npz",
        help="for --verify: stored outputs, with arrays x, logits and perhaps features",
    )
    parser.add_argument(
        "--tolerance", type=float, default=_TOLERANCE, metavar="T",
        help=f"for --verify: largest difference, relative to values above 1 ({_TOLERANCE:g})",
    )
    parser.add_argument(
        "--download", action="store_true", help="fetch SRC, an address, into DST's folder first"
    )
    add_llama_options(parser)
    return parser


def _run(args: argparse.Namespace) -> int:
    # ccache speeds up compiling custom C++ operators, which nobody who converts does.
    warnings.filterwarnings("ignore", message="No ccache found", category=UserWarning)
    overrides = _overrides(args)
    if asked_of_llama(args):
        return run_llama(args, overrides)
    args.dtype = args.dtype or "float32"
    destination = _destination(args)
    reference = Path(args.reference) if args.reference else None
    if args.verify:
        refuse_unless_possible(reference)
    path, url = _source_path(args, destination)
    if destination is not None:
        destination.refuse_if_impossible(path)
    with open_source(path, wrapper=args.wrapper) as source:
        conversion = convert_source(
            source, args.family, allow=args.allow_missing, allow_non_finite=args.allow_non_finite
        )
        conversion, target, missing = _for_model(args, overrides, source, conversion)
        if destination is not None and destination.format == "safetensors":
            conversion.notes.extend(notes_for_timm(conversion.used))
        _describe(source, conversion, target, missing)
        if args.dry_run:
            _print_table(conversion)
            return EXIT_OK
        assert destination is not None
        record = Record(source, conversion, target, missing, destination.dtype, url)
        record.learned = _learned(path, conversion, missing)
        if args.verify and not _verified(args, record, reference):
            return EXIT_FAILED
        digest = write_converted(record, destination, _Progress(conversion, destination))
    print(f"wrote {destination.path} ({human_size(digest.size)}, sha256 {digest.sha256[:16]}...)")
    print(f"wrote {provenance_path(destination.path)}")
    if lost := record.became_zero.sentence(destination.dtype):
        print(f"note: {lost}")
    return EXIT_OK


# -- the command line ------------------------------------------------------------------------------


def _overrides(args: argparse.Namespace) -> dict[str, Any]:
    if args.override and args.model is None:
        raise ConfigError("-o sets arguments of a model; give it with --model NAME")
    values: dict[str, Any] = {}
    for item in args.override:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"-o {item!r}: write KEY=VALUE, for example -o class_num=10")
        problems: list[str] = []
        node = parse_yaml(text, lambda _line, item=item: f"-o {item}", problems)  # type: ignore[misc]
        if problems:
            raise ConfigError(problems)
        values[key] = None if node is None else plain(node)
    return values


def _destination(args: argparse.Namespace) -> Optional[Destination]:
    if args.dry_run:
        return None
    if args.destination is None:
        raise ConfigError("where to? give DST, or --dry-run to see what would be done")
    path = Path(args.destination)
    by_suffix = {suffix: name for name, suffix in SUFFIXES.items()}
    return Destination(
        path, args.to or by_suffix.get(path.suffix, "pdparams"), args.dtype, args.overwrite
    )


def _source_path(
    args: argparse.Namespace, destination: Optional[Destination]
) -> tuple[Path, str]:
    """The file to read and the address it came from; fetches it if that was asked for."""
    if not is_url(args.source):
        if args.download:
            raise ConfigError(f"--download: {args.source} is a path, not an address")
        return Path(args.source), ""
    if not args.download:
        raise ConfigError(
            f"{args.source} is an address, and nothing is fetched unasked. Add --download, or "
            "fetch the file yourself and give its path."
        )
    folder = destination.path.parent if destination is not None else Path()
    if not folder.is_dir():
        raise CheckpointError(f"the folder {folder} does not exist; make it.")
    known = weights_at(args.source)
    started = time.monotonic()
    last = started

    def report(done: int, total: Optional[int]) -> None:
        nonlocal last
        if time.monotonic() - last > _REPORT_EVERY_S:
            last = time.monotonic()
            of = f" of {human_size(total)}" if total else ""
            print(f"fetched {human_size(done)}{of}", file=sys.stderr)

    path = download(
        args.source,
        folder,
        size=known.size if known else None,
        sha256=known.sha256 if known else "",
        progress=report,
    )
    print(f"fetched {path} ({human_size(path.stat().st_size)})")
    return path, args.source


# -- the model -------------------------------------------------------------------------------------


def _for_model(
    args: argparse.Namespace,
    overrides: dict[str, Any],
    source: TensorSource,
    conversion: Conversion,
) -> tuple[Conversion, Optional[Target], list[str]]:
    """The conversion for the model that was named or found."""
    if args.model is not None:
        target = target_of(args.model, overrides, conversion)
        try:
            fitted, missing = fit(conversion, target, args.allow_missing)
        except CheckpointError as error:
            raise CheckpointError(f"{source.path}: {error}") from error
        return fitted, target, missing
    found = find_models(conversion, source.path.name)
    if not found:
        raise CheckpointError(
            f"{source.path}: no registered model has these tensors ({_sizes(conversion)}). Name "
            "the nearest with --model and give what differs with -o, for example --model "
            f"{_example(conversion)}."
        )
    if len(found) > 1:
        print(f"fits {', '.join(str(target) for target in found)}; taken as the first")
    fitted, missing = fit(conversion, found[0])
    return fitted, found[0], missing


def _example(conversion: Conversion) -> str:
    """Model and arguments of the kind of the file."""
    sizes = "embed_dim=48 depth=2 num_heads=4 patch_size=8"
    if "llama.norm.weight" in conversion.shapes:
        return f"ViT_LLaMA -o {sizes} llama_dim=64 llama_num_heads=4 llama_hidden_dim=192"
    if "blocks.0.mlp.fc3.weight" in conversion.shapes:
        return f"iLLaMA -o {sizes}"
    return (
        f"VisionTransformer -o {plain_vit_options(conversion)} (the sizes of this file; it does "
        "not always show the number of heads)"
    )


def _sizes(conversion: Conversion) -> str:
    shapes = conversion.shapes
    blocks = {name.split(".")[1] for name in shapes if name.startswith("blocks.")}
    kernel = shapes.get("patch_embed.proj.weight", ())
    return ", ".join([
        f"width {shapes['pos_embed'][-1] if 'pos_embed' in shapes else 'unknown'}",
        f"{len(blocks)} blocks",
        f"patch kernel {list(kernel)}",
        f"{len(shapes)} tensors",
    ])


def _learned(path: Path, conversion: Conversion, missing: Sequence[str]) -> Mapping[str, Any]:
    """What is known beside a file of ours: its classes go along with the classifier."""
    head = conversion.shapes.get("head.weight")
    is_whole = head is not None and not any(name.startswith("head") for name in missing)
    known = read_provenance(resolve_checkpoint(path))
    return known.with_classes_of(head[-1] if head is not None and is_whole else None)


# -- text ------------------------------------------------------------------------------------------


def _describe(
    source: TensorSource, conversion: Conversion, target: Optional[Target], missing: list[str]
) -> None:
    wrapper = f", from its entry {source.wrapper!r}" if source.wrapper else ""
    family = FAMILIES[conversion.family].title
    print(f"read {source.path}: {len(source.names())} tensors ({source.format}{wrapper})")
    print(f"recognised as {conversion.family} ({family}); table {conversion.table_version}")
    print(f"fills {target}: {len(conversion.used)} tensors")
    for name, reason in conversion.dropped.items():
        print(f"dropped {name}: {reason}")
    for name, kind in source.ignored.items():
        print(f"left out: {name} ({kind})")
    for name in missing:
        print(f"stays as initialised: {name}")
    for note in conversion.notes:
        print(f"note: {note}")


def _print_table(conversion: Conversion) -> None:
    width = max(map(len, conversion.used))
    for name, use in conversion.used.items():
        print(f"{name:{width}}  {list(conversion.shapes[name])!s:18} {use}")


class _Progress:
    """Says how far a long conversion is, every few seconds, on standard error."""

    def __init__(self, conversion: Conversion, destination: Destination) -> None:
        num_values = sum(prod(shape) for shape in conversion.shapes.values())
        passes = 2 if destination.format == "safetensors" else 1
        self._total, self._done = passes * num_values * DTYPES[destination.dtype], 0
        self._last = time.monotonic()

    def __call__(self, num_bytes: int) -> None:
        self._done += num_bytes
        if time.monotonic() - self._last > _REPORT_EVERY_S:
            self._last = time.monotonic()
            print(f"converted {100 * self._done // self._total} %", file=sys.stderr)


def _verified(args: argparse.Namespace, record: Record, reference: Optional[Path]) -> bool:
    """Print the comparison, and note it in the record."""
    if record.missing:
        raise CheckpointError(
            f"--verify: {len(record.missing)} tensors stay as initialised, so there is nothing to "
            "compare; leave --verify out or convert without --allow-missing."
        )
    assert record.target is not None
    dtype = args.dtype if args.dtype != "bfloat16" else "float32"
    comparison = verify(
        record.source,
        record.conversion,
        CastArrays(record.conversion.arrays, dtype),
        record.target,
        reference=reference,
        tolerance=args.tolerance,
    )
    print(comparison)
    record.verified = comparison.as_json()
    if not comparison.is_equal:
        print("nothing was written", file=sys.stderr)
    return comparison.is_equal


if __name__ == "__main__":
    raise SystemExit(main())

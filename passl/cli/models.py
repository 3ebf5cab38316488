"""``passl-models``: which models there are, how large they are, and what they can be told.

Reads the models' source only: neither Paddle nor a weight is loaded.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Sequence
from typing import Any, Optional

from passl.cli.common import command_parser, run_command
from passl.cli.weights import print_weights_of, show_weights, weights_table
from passl.errors import EXIT_OK, ConfigError
from passl.models import list_models, model_spec, nearest_models
from passl.models.summary import cost, image_size
from passl.registry import import_user_modules
from passl.signatures import ParamSpec

__all__ = ["build_parser", "main"]

_EPILOG = """\
examples:
  passl-models                                      every model
  passl-models 'ViT*_384'                           by name or alias, in any case
  passl-models show ViT_base_patch16_224            its arguments, defaults, what they mean
  passl-models 'vit_base*' --json                   for programs
  passl-models 'My*' --imports my_project.models    those of your own as well
  passl-models --pretrained 'deit*'                 public weights by name, model or file
  passl-models show deit_tiny_patch16_224-a1311bcf.pth
                                                    how to fetch and convert them
"""


def main(argv: Optional[Sequence[str]] = None) -> int:
    """List models or show one; returns the exit status."""
    return run_command(build_parser(), _run, argv)


def _run(args: argparse.Namespace) -> int:
    import_user_modules(args.imports)
    if args.pattern == "show":
        return _show(args)
    if args.pretrained and args.name is None:
        return weights_table(args.pattern, as_json=args.json)
    if args.name is not None:
        raise ConfigError(
            f"one pattern at a time, please (in quotes, so that the shell leaves it alone): "
            f"passl-models '{args.pattern}'"
        )
    return _list(args)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = command_parser(
        "passl-models",
        "List the models a config can name in Model.name, or show one of them.",
        _EPILOG,
    )
    parser.add_argument(
        "pattern", nargs="?", default="*", help="shell wildcards; or the word 'show' and a NAME"
    )
    parser.add_argument("name", nargs="?", help="with 'show': the model")
    parser.add_argument(
        "--pretrained", action="store_true", help="list public weights instead of models"
    )
    parser.add_argument(
        "--imports", nargs="+", default=[], metavar="MODULE", help="modules with models of yours"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


# -- the table -------------------------------------------------------------------------------------


def _list(args: argparse.Namespace) -> int:
    names = list_models(args.pattern)
    if not names:
        raise ConfigError(f"no model matches {args.pattern!r}; {_suggestion(args.pattern)}")
    rows = [_row(name) for name in names]
    if args.json:
        print(json.dumps(rows, indent=2))
        return EXIT_OK
    table = [("name", "image", "patch", "params", "GMACs", "aliases")]
    table += [
        (
            row["name"],
            _size(row["image"]),
            str(row["patch_size"] or "-"),
            _millions(row["parameters"]),
            "-" if row["macs"] is None else f"{row['macs'] / 1e9:.2f}",
            ", ".join(row["aliases"]),
        )
        for row in rows
    ]
    print(_aligned(table, right={3, 4}))
    return EXIT_OK


def _row(name: str) -> dict[str, Any]:
    spec = model_spec(name)
    size = cost(name)
    patch = spec.param("patch_size")
    return {
        "name": name,
        "aliases": list(spec.aliases),
        "image": image_size(name),
        "patch_size": patch.default if patch is not None and not patch.required else None,
        "parameters": size.parameters if size is not None else None,
        "macs": size.macs if size is not None else None,
    }


# -- one model -------------------------------------------------------------------------------------


def _show(args: argparse.Namespace) -> int:
    if args.name is None:
        raise ConfigError("which model? for example: passl-models show ViT_base_patch16_224")
    if not list_models(args.name):
        status = show_weights(args.name, as_json=args.json)
        if status is not None:
            return status
    spec = model_spec(args.name)
    row = _row(spec.name)
    if args.json:
        params = [_described(param) for param in spec.configurable]
        print(json.dumps({**row, "class": spec.qualname, "arguments": params}, indent=2))
        return EXIT_OK
    print(f"{spec.name}  ({spec.defined_in}.{spec.qualname})")
    if spec.aliases:
        print(f"also called {', '.join(spec.aliases)}")
    if row["parameters"] is not None:
        print(
            f"{row['parameters']:,} parameters; {row['macs'] / 1e9:.2f} billion multiply-adds for "
            f"an image of {_size(row['image'])} pixels"
        )
    print(f"\n{spec.doc.partition('Args:')[0].strip()}\n\narguments:")
    for param in spec.configurable:
        known = _described(param)
        value = "required" if param.required else f"= {json.dumps(known['default'])}"
        print(f"  {param.name} {value}  ({known['type']})")
        if param.doc:
            print(textwrap.fill(param.doc, 96, initial_indent=" " * 6, subsequent_indent=" " * 6))
    print_weights_of(spec.name)
    return EXIT_OK


def _described(param: ParamSpec) -> dict[str, Any]:
    return {
        "name": param.name,
        "type": param.type.describe(),
        "required": param.required,
        "default": None if param.required else param.default,
        "doc": param.doc,
    }


# -- text ------------------------------------------------------------------------------------------


def _suggestion(pattern: str) -> str:
    near = nearest_models(pattern)
    return f"the nearest names are {', '.join(near)}" if near else "passl-models lists all of them"


def _aligned(rows: Sequence[Sequence[str]], right: set[int]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    lines = (
        "  ".join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    )
    return "\n".join(lines)


def _millions(count: Optional[int]) -> str:
    return "-" if count is None else f"{count / 1e6:,.2f}M"


def _size(size: Optional[Sequence[int]]) -> str:
    if size is None:
        return "-"
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"


if __name__ == "__main__":
    raise SystemExit(main())

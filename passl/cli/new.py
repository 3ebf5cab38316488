"""``passl new``: a small config to start from."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from passl.cli.common import command_parser, run_command
from passl.config.starter import write_starter
from passl.errors import EXIT_OK, ConfigError

__all__ = ["build_parser", "main"]

_EPILOG = """examples:
  passl new my_run --from ViT_base_patch16_224
  passl new runs/digits --from quickstart/ViT_micro_digits --set Global.epochs=5 Model.depth=3
  passl new fine --from ViT_base_patch16_384_ft --set Global.pretrained_model=vit_b.pdparams

The file names its base and repeats the keys that are changed first, each with what it means; its
run has a folder of its own, output/NAME. passl-config list shows what there is to start from.
"""


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(build_parser(), _new, argv)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = command_parser(
        "passl new", "Write a small config that begins with another one.", _EPILOG
    )
    parser.add_argument("name", metavar="NAME", help="NAME.yaml is written, and nothing else")
    parser.add_argument(
        "--from",
        dest="base",
        required=True,
        metavar="CONFIG",
        help="a config that ships, by name, or a YAML file",
    )
    parser.add_argument(
        "--set",
        dest="override",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="values to begin with, as after -o",
    )
    return parser


def _new(arguments: argparse.Namespace) -> int:
    path = Path(arguments.name)
    if not path.name:
        raise ConfigError(f"NAME {arguments.name!r}: give the file a name, such as my_run")
    if path.suffix not in (".yaml", ".yml"):
        path = path.with_name(f"{path.name}.yaml")
    config = write_starter(path, arguments.base, arguments.override)
    print(f"{path}: begins with {arguments.base}; files go to {config.Global.output_dir}")
    typed = shlex.quote(str(path))
    print(f"next: edit it, then passl-check -c {typed}; passl-train -c {typed}")
    return EXIT_OK


if __name__ == "__main__":
    raise SystemExit(main())

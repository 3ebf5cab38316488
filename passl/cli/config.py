"""``passl-config``: what is in a config, what its keys mean, and configs of other systems."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from passl.cli.common import command_parser, examples_of_subcommands, run_command
from passl.cli.config_views import add_diff, add_list, add_show
from passl.cli.explain import add_explain
from passl.config import load_config
from passl.config.myrtle import import_myrtle
from passl.errors import EXIT_OK, ConfigError

__all__ = ["build_parser", "main"]

_EPILOG = """examples:
  passl-config list 'ViT*'
  passl-config show -c ViT_base_patch16_224
  passl-config show Optimizer Global.epochs -c ViT_base_patch16_224 -o Global.epochs=10
  passl-config diff ViT_base_patch16_224 ViT_base_patch16_384_ft
  passl-config diff ViT_base_patch16_224 output/ViT_base_patch16_224
  passl-config explain Global.epochs Optimizer.AdamW
  passl-config explain Optimizer.weight_decay -c ViT_base_patch16_224
  passl-config explain 'Global.*interval'
  passl-config import-myrtle train_configs/vit_tiny.json --out vit_tiny.yaml
  passl-config import-myrtle train_configs/deit_tiny.json > deit_tiny.yaml
"""


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(build_parser(), lambda arguments: int(arguments.act(arguments)), argv)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = command_parser(
        "passl-config",
        "Show, compare and explain configs, and make them of other systems' files.",
        _EPILOG,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_list(commands)
    add_show(commands)
    add_diff(commands)
    add_explain(commands)
    _add_import_myrtle(commands)
    examples_of_subcommands(parser)
    return parser


def _add_import_myrtle(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "import-myrtle",
        help="a JSON config of myrtle-vision's classification",
        description="Write a training config of myrtle-vision, and the data config that it names, "
        "as one YAML file, whose first lines say what became of every key.",
    )
    parser.add_argument("file", metavar="FILE", help="such as train_configs/vit_tiny.json")
    parser.add_argument(
        "--data", metavar="FILE", help="data config (default: what data_config_path names)"
    )
    parser.add_argument("--out", metavar="FILE", help="YAML to write (default: print it)")
    parser.set_defaults(act=_import_myrtle)


def _import_myrtle(arguments: argparse.Namespace) -> int:
    source = Path(arguments.file)
    imported = import_myrtle(source, Path(arguments.data) if arguments.data else None)
    text = imported.to_yaml(source.name)
    _check(text)
    if arguments.out is None:
        print(text, end="")
        return EXIT_OK
    out = Path(arguments.out)
    if out.exists():
        raise ConfigError(f"{out} is there already; remove it, or give another --out")
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror}") from error
    for key, why in imported.unmapped.items():
        print(f"not mapped: {key}: {why}", file=sys.stderr)
    print(f"{out}: {len(imported.mapped)} keys mapped, {len(imported.unmapped)} not")
    print(f"next: passl-check -c {out}; passl-train -c {out}")
    return EXIT_OK


def _check(text: str) -> None:
    """Refuse to hand out a config that no run would take.

    Raises:
        ConfigError: what is wrong with it.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "imported.yaml"
        path.write_text(text, encoding="utf-8")
        load_config(path, mode="train")


if __name__ == "__main__":
    raise SystemExit(main())

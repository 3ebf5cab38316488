"""``passl-check``: is this config right, and is the data whole, before anything is trained."""

from __future__ import annotations

import argparse
import difflib
import textwrap
from collections.abc import Sequence
from typing import Optional

from passl.cli.check_data import add_data_options, check_data
from passl.cli.check_dist import add_dist_options, check_dist
from passl.cli.common import config_parser, load_from_args, run_command
from passl.config import Config, plan_batches
from passl.distributed.world import read_world
from passl.engine.reports.writers import check_writers
from passl.errors import EXIT_OK, ConfigError
from passl.registry import BATCH_TRANSFORMS, REGISTRIES, TRANSFORMS, import_user_modules
from passl.signatures import MISSING, ComponentSpec, ParamSpec

__all__ = ["build_parser", "check_transforms", "main"]

_EPILOG = """examples:
  passl-check -c ViT_base_patch16_224                          the config alone, in about a second
  passl-check -c ViT_base_patch16_224 --data                   every file of the data sets as well
  passl-check -c ViT_base_patch16_224 --data --workers 16 --report data.json
  passl-check --list                                           all components by kind
  passl-check --list losses
  passl-check --explain AdamW                                  arguments, types, defaults, meaning
  passl-check --explain FocalLoss --imports my_project.losses
  python -m paddle.distributed.launch --nnodes 2 --master HOST:PORT tools/check.py --dist -c FILE
                                                               do all processes find each other?

Paddle is not imported, but for --dist. exit status: 0 all is well; 1 the processes do not find
each other or differ; 2 mistakes were found
"""


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(build_parser(), _check, argv)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = config_parser(
        "passl-check", "Check a config, and on request the data it names.", _EPILOG, required=False
    )
    parser.add_argument(
        "--mode", choices=("train", "eval"), default="train", help="for which command"
    )
    parser.add_argument("--data", action="store_true", help="read every sample of the data sets")
    add_data_options(parser)
    parser.add_argument(
        "--list",
        nargs="?",
        const="",
        metavar="KIND",
        choices=["", *REGISTRIES],
        help="list components",
    )
    parser.add_argument("--explain", metavar="NAME", help="what a component's arguments mean")
    parser.add_argument(
        "--imports",
        nargs="+",
        default=[],
        metavar="MODULE",
        help="your modules, for --list and --explain",
    )
    add_dist_options(parser)
    return parser


def _check(arguments: argparse.Namespace) -> int:
    import_user_modules(arguments.imports)
    if arguments.list is not None:
        return _list_components(arguments.list)
    if arguments.explain is not None:
        return _explain(arguments.explain)
    if arguments.dist:
        return check_dist(arguments)
    if arguments.config is None:
        raise ConfigError("give a config to check with -c FILE, or --list, or --explain NAME")
    config = load_from_args(arguments, arguments.mode)
    if arguments.print_config:
        print(config.to_yaml(origins=True), end="")
        return EXIT_OK
    for note in config.notes:
        print(f"note: {note}")
    check_transforms(config, arguments.mode)
    if arguments.mode == "train":
        check_writers(config)
        print(plan_batches(config, read_world().size).describe())
    where = f" ({config.source_path})" if config.source_name else ""
    print(f"{arguments.config}{where}: the config is right")
    if arguments.data:
        return check_data(config, arguments)
    print("its data was not read; --data reads every sample")
    return EXIT_OK


def check_transforms(config: Config, mode: str) -> None:
    """Build the transforms, which know more of their arguments than a type says.

    Those of a user's module are left alone: to check a config is not to run it.

    Args:
        config: checked already.
        mode: ``train`` or ``eval``.

    Raises:
        ConfigError: what is wrong, with the place of each.
    """
    problems = []
    for name in ("Train", "Eval") if mode == "train" else ("Eval",):
        section = getattr(config.DataLoader, name)
        if section is None:
            continue
        places = [
            ("dataset.transform_ops", TRANSFORMS, section.dataset.get("transform_ops") or ()),
            ("batch_transform", BATCH_TRANSFORMS, section.batch_transform),
        ]
        for key, registry, items in places:
            for number, item in enumerate(items):
                spec = registry.spec(item["name"])
                if spec is None or not spec.module.startswith("passl."):
                    continue
                try:
                    registry.build(item, model_class_num=config.Model.get("class_num", 1000))
                except ConfigError as error:
                    path = f"DataLoader.{name}.{key}.{number}"
                    problems.append(f"{config.origin(path)}: {path}: {error}")
    if problems:
        raise ConfigError(problems)


# -- components --------------------------------------------------------------------------------


def _list_components(kind: str) -> int:
    for name, registry in REGISTRIES.items():
        if kind in ("", name):
            print(f"{name}:")
            for component in registry.names():
                spec = registry.spec(component)
                summary = spec.doc.splitlines()[0] if spec is not None and spec.doc else ""
                print(f"  {component:<30} {summary}")
    return EXIT_OK


def _explain(name: str) -> int:
    found = [spec for registry in REGISTRIES.values() if (spec := registry.spec(name)) is not None]
    if not found:
        known = [entry for registry in REGISTRIES.values() for entry in registry.all_names()]
        near = difflib.get_close_matches(name, known, n=3)
        hint = (
            f"; did you mean {' or '.join(map(repr, near))}?"
            if near
            else "; see passl-check --list"
        )
        raise ConfigError(f"no component is called {name!r}{hint}")
    for spec in found:
        print(_manual(spec))
    return EXIT_OK


def _manual(spec: ComponentSpec) -> str:
    head = f"{spec.name}  ({REGISTRIES[spec.kind].singular}, {spec.defined_in}.{spec.qualname})"
    aliases = f"\naliases: {', '.join(spec.aliases)}" if spec.aliases else ""
    body = spec.doc.split("\nArgs:\n")[0].strip()
    arguments = "\n".join(_argument(param) for param in spec.configurable) or "  none"
    return f"{head}{aliases}\n\n{body}\n\narguments:\n{arguments}\n"


def _argument(param: ParamSpec) -> str:
    default = "required" if param.default is MISSING else f"default {param.default!r}"
    head = f"  {param.name}: {param.type.describe()} ({default})"
    text = textwrap.fill(param.doc, 96, initial_indent="      ", subsequent_indent="      ")
    return f"{head}\n{text}" if param.doc else head


if __name__ == "__main__":
    raise SystemExit(main())

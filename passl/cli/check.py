"""``passl-check``: is this config right, and is the data whole, before anything is trained."""

from __future__ import annotations

import argparse
import difflib
import textwrap
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional

from passl.cli.check_dist import add_dist_options, check_dist
from passl.cli.common import config_parser, load_from_args, run_command
from passl.config import Config, plan_batches
from passl.distributed.world import read_world
from passl.errors import EXIT_CONFIG, EXIT_OK, ConfigError, DataError
from passl.registry import REGISTRIES, import_user_modules
from passl.signatures import MISSING, ComponentSpec, ParamSpec

if TYPE_CHECKING:
    from passl.logs.progress import ProgressBar

__all__ = ["main"]

_EPILOG = """examples:
  passl-check -c configs/ViT_base_patch16_224.yaml             the config alone, in about a second
  passl-check -c configs/ViT_base_patch16_224.yaml --data      every file of the data sets as well
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
    parser = config_parser(
        "passl-check", "Check a config, and on request the data it names.", _EPILOG, required=False
    )
    parser.add_argument(
        "--mode", choices=("train", "eval"), default="train", help="for which command"
    )
    parser.add_argument("--data", action="store_true", help="read every sample of the data sets")
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="threads for --data")
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
    return run_command(parser, _check, argv)


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
    if arguments.mode == "train":
        print(plan_batches(config, read_world().size).describe())
    print(f"{arguments.config}: the config is right")
    return _check_data(config, arguments) if arguments.data else EXIT_OK


# -- data --------------------------------------------------------------------------------------


def _check_data(config: Config, arguments: argparse.Namespace) -> int:
    from passl.data.scan import scan_dataset
    from passl.logs.progress import ProgressBar
    from passl.registry import DATASETS

    healthy = True
    for name in ("Train", "Eval") if arguments.mode == "train" else ("Eval",):
        section = getattr(config.DataLoader, name)
        if section is None:
            continue
        try:
            dataset = DATASETS.build(section.dataset)
        except DataError as error:
            where = config.origin(f"DataLoader.{name}.dataset")
            raise ConfigError(f"{where}: DataLoader.{name}.dataset: {error}") from error
        with ProgressBar() as bar:
            show = _Progress(bar, f"DataLoader.{name}")
            report = scan_dataset(dataset, num_workers=arguments.workers, progress=show)
        print(f"DataLoader.{name}: {report.describe()}")
        for warning in report.warnings:
            print(f"DataLoader.{name}: warning: {warning}")
        healthy = healthy and report.ok
    return EXIT_OK if healthy else EXIT_CONFIG


class _Progress:
    """Samples done, for the live bar, with the time left."""

    def __init__(self, bar: ProgressBar, label: str) -> None:
        self._bar, self._label, self._started = bar, label, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        speed = done / max(time.monotonic() - self._started, 1e-9)
        eta = (total - done) / max(speed, 1e-9)
        self._bar.update(label=self._label, done=done, total=total, ips=speed, eta_s=eta)


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
    head = f"{spec.name}  ({REGISTRIES[spec.kind].singular}, {spec.module}.{spec.qualname})"
    aliases = f"\naliases: {', '.join(spec.aliases)}" if spec.aliases else ""
    body = spec.doc.split("\nArgs:\n")[0].strip()
    arguments = "\n".join(_argument(param) for param in spec.configurable) or "  none"
    return f"{head}{aliases}\n\n{body}\n\narguments:\n{arguments}\n"


def _argument(param: ParamSpec) -> str:
    default = "required" if param.default is MISSING else f"default {param.default!r}"
    head = f"  {param.name}: {param.type.describe()} ({default})"
    text = textwrap.fill(param.doc, 96, initial_indent="      ", subsequent_indent="      ")
    return f"{head}\n{text}" if param.doc else head

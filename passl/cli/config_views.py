"""``passl-config list``, ``show`` and ``diff``: configs as they are once everything is resolved."""

from __future__ import annotations

import argparse
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from passl.cli.common import add_config_options
from passl.config import Config, load_config
from passl.config.dump import emit
from passl.config.flat import ABSENT, Difference, differences
from passl.config.shipped import shipped_configs
from passl.config.suggest import did_you_mean, nearest, one_of
from passl.errors import EXIT_FAILED, EXIT_OK, ConfigError

__all__ = ["add_diff", "add_list", "add_show"]


def add_list(commands: Any) -> None:
    """``passl-config list``."""
    parser = commands.add_parser(
        "list",
        help="the configs that ship with PASSL",
        description="List the configs that ship with PASSL; -c takes their names in any folder.",
    )
    parser.add_argument("pattern", nargs="?", default="*", help="shell wildcards, in quotes")
    parser.add_argument("--paths", action="store_true", help="print the files instead")
    parser.set_defaults(act=_list)


def _list(arguments: argparse.Namespace) -> int:
    wanted = arguments.pattern.lower()
    found = {
        name: path
        for name, path in shipped_configs().items()
        if fnmatchcase(name.lower(), wanted) or fnmatchcase(path.stem.lower(), wanted)
    }
    if not found:
        close = nearest(arguments.pattern, shipped_configs())
        hint = f"; did you mean {one_of([repr(name) for name in close])}?" if close else ""
        raise ConfigError(f"no config that ships is called {arguments.pattern!r}{hint}")
    width = max(map(len, found))
    for name, path in found.items():
        print(path if arguments.paths else f"{name:<{width}}  {_first_line(path)}")
    return EXIT_OK


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").strip()


# -- show ------------------------------------------------------------------------------------------


def add_show(commands: Any) -> None:
    """``passl-config show``."""
    parser = commands.add_parser(
        "show",
        help="a config with its bases, overrides and defaults, and where each value is from",
        description="Print the resolved config, or some of it, with the origin of every value.",
    )
    parser.add_argument("keys", nargs="*", metavar="KEY", help="e.g. Optimizer, Model.drop_rate")
    add_config_options(parser)
    parser.add_argument("--no-origins", action="store_true", help="without the comments")
    parser.set_defaults(act=_show)


def _show(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config, arguments.override)
    if not arguments.keys:
        print(config.to_yaml(origins=not arguments.no_origins), end="")
        return EXIT_OK
    data = config.to_dict()
    origin = None if arguments.no_origins else config.origin
    parts = [_part(data, key) for key in arguments.keys]
    for key, value in zip(arguments.keys, parts):
        print(_as_section(key, value, origin), end="")
    return EXIT_OK


def _part(data: Any, key: str) -> Any:
    """The value at a dotted path.

    Raises:
        ConfigError: there is none.
    """
    seen: list[str] = []
    for segment in key.split("."):
        if isinstance(data, dict) and segment in data:
            data = data[segment]
        elif isinstance(data, list) and segment.isdecimal() and int(segment) < len(data):
            data = data[int(segment)]
        else:
            where = ".".join(seen) or "the config"
            names = list(map(str, data)) if isinstance(data, dict) else []
            count = f"; it is a list of {len(data)}" if isinstance(data, list) else ""
            raise ConfigError(f"{where} has no {segment!r}{count}{did_you_mean(segment, names)}")
        seen.append(segment)
    return data


def _as_section(key: str, value: Any, origin: Any) -> str:
    """YAML of a part, below its whole path; the origins are asked for with that path too."""
    return emit({key: value}, origin)


# -- diff ------------------------------------------------------------------------------------------


def add_diff(commands: Any) -> None:
    """``passl-config diff``."""
    parser = commands.add_parser(
        "diff",
        help="what differs between two configs, or a config and a run",
        description="Compare two configs by the values that they resolve to: every key that "
        "differs, with both values and where each is written. A and B are files, names of configs "
        "that ship, or folders of runs.",
    )
    parser.add_argument("first", metavar="A", help="file, name, or folder of a run")
    parser.add_argument("second", metavar="B", help="what it is compared with, likewise")
    parser.add_argument(
        "-o", "--override", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="set keys of B",
    )
    parser.add_argument("--exit-code", action="store_true", help="end with 1 where they differ")
    parser.set_defaults(act=_diff)


def _diff(arguments: argparse.Namespace) -> int:
    first = _config_or_run(arguments.first, ())
    second = _config_or_run(arguments.second, tuple(arguments.override))
    found = differences(first, second)
    if not found:
        print(f"{arguments.first} and {arguments.second} resolve to the same values")
        return EXIT_OK
    print(f"- {first.argument}\n+ {' -o '.join([second.argument, *second.overrides])}")
    for difference in found:
        print(_both(difference))
    return EXIT_FAILED if arguments.exit_code else EXIT_OK


def _config_or_run(text: str, overrides: tuple[str, ...]) -> Config:
    run = Path(text) / "config.yaml"
    return load_config(run if run.is_file() else text, overrides)


def _both(difference: Difference) -> str:
    lines = [difference.path]
    for sign, value, origin in zip("-+", difference.values, difference.origins):
        if value is not ABSENT:
            text = emit({"x": value})[3:-1]
            lines.append(f"  {sign} {text:<40}  # {origin}".rstrip())
    return "\n".join(lines)

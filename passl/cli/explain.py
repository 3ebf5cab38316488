"""``passl-config explain``: what a key means, from the docstrings and signatures that check it."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from typing import Any

from passl.cli.common import add_config_options
from passl.config import Config, load_config
from passl.config.dump import emit
from passl.config.keys import Key
from passl.config.lookup import look_up, written_in
from passl.config.places import DEFAULT_NAMES
from passl.errors import EXIT_OK, ConfigError
from passl.registry import import_user_modules

__all__ = ["add_explain"]

#: Keys of one meaning that are explained in full; more of them are listed, a line each.
_FEW = 6
_WIDTH = 96


def add_explain(commands: Any) -> None:
    """The subcommand."""
    parser = commands.add_parser(
        "explain",
        help="what a key means, takes, and is where nothing is written",
        description="Say what keys mean: the meaning, admitted values, default, and with -c where "
        "a config sets it. KEY is a path, a part of one, a component, a pattern, or PASSL's name.",
    )
    parser.add_argument("keys", nargs="+", metavar="KEY", help="e.g. Global.epochs, AdamW, '*.lr*'")
    add_config_options(parser, required=False)
    parser.add_argument(
        "--imports", nargs="+", default=[], metavar="MODULE", help="modules with your components"
    )
    parser.set_defaults(act=_explain)


def _explain(arguments: argparse.Namespace) -> int:
    import_user_modules(arguments.imports)
    config = None
    if arguments.config is not None:  # first: its imports make components known
        config = load_config(arguments.config, arguments.override)
    texts, unknown = [], []
    for name in arguments.keys:
        try:
            texts.append(_one(name, config))
        except ConfigError as error:
            unknown.append(str(error))
    if texts:
        print("\n\n".join(texts))
    if unknown:
        raise ConfigError(unknown)
    return EXIT_OK


def _one(text: str, config: Config | None) -> str:
    found = look_up(text)
    blocks = [f"PASSL's {rule.path}: {rule.here}\n{_filled(rule.why)}" for rule in found.rules]
    if found.note:
        blocks.insert(0, found.note)
    groups = _groups(_of_config(found.keys, config))
    if len(groups) > _FEW:
        blocks.append(_table([group[0] for group in groups]))
    else:
        blocks += [_described(group, config) for group in groups]
    if found.below:
        head = "arguments" if found.keys[0].kind == "component" else "keys"
        blocks.append(f"{head}:\n{_table(found.below, short=True)}")
    return "\n\n".join(blocks)


def _of_config(keys: list[Key], config: Config | None) -> list[Key]:
    """Of keys of several components those that the config has, if it has one."""
    if config is None or len(keys) == 1:
        return keys
    there = [key for key in keys if written_in(config, key)]
    return there or keys


def _groups(keys: Sequence[Key]) -> list[list[Key]]:
    """Keys of several components that say the same, together."""
    groups: dict[tuple[str, ...], list[Key]] = {}
    for key in keys:
        same = (key.path,) if key.kind == "component" else (key.written, key.takes, key.doc)
        groups.setdefault(same, []).append(key)
    return list(groups.values())


def _described(group: list[Key], config: Config | None) -> str:
    key = group[0]
    lines = [key.path if len(group) == 1 else key.written]
    if key.doc:
        lines.append(_filled(key.doc))
    if len(group) > 1:
        more = f" and {len(group) - 8} more" if len(group) > 8 else ""
        lines.append(_filled(f"of {', '.join(other.owner for other in group[:8])}{more}"))
    if key.kind != "component":
        lines.append(f"    takes     {key.takes}")
    if key.default or len(group) > 1:
        lines.append(f"    default   {_default(group)}")
    if key.kind == "component":
        lines.append(f"    write     {_component_example(key)}")
    elif key.kind == "value" and key.default not in ("", "required") and len(group) == 1:
        value = "VALUE" if key.default == "null" else _for_shell(key.default)
        lines.append(f"    write     -o {_named_first(key)}{key.written}={value}")
    if config is not None:
        lines += _in_config(group, config)
    return "\n".join(lines)


def _named_first(key: Key) -> str:
    """Where a place has a component unless another is named: the name, and a space."""
    place = key.written.rpartition(".")[0]
    usual = DEFAULT_NAMES.get(place)
    return f"{place}.name={key.owner} " if key.owner and usual not in (None, key.owner) else ""


def _default(group: list[Key]) -> str:
    values = list(dict.fromkeys(key.default for key in group))
    if len(values) == 1:
        return values[0]
    return "by component: " + ", ".join(values[:8]) + (", ..." if len(values) > 8 else "")


def _in_config(group: list[Key], config: Config) -> list[str]:
    name = config.argument
    written = [one for key in group for one in written_in(config, key)]
    if not written and group[0].kind == "section":
        return []
    if not written:
        owners = " or ".join(key.owner for key in group[:3] if key.owner)
        return [f"    in {name}: nowhere{f'; it has no {owners} there' if owners else ''}"]
    return [
        f"    in {name}: {one.path} = {emit({'x': one.value})[3:-1]}   # {one.origin}"
        for one in written
    ]


def _component_example(key: Key) -> str:
    home = key.written.removesuffix(".name")
    return f"{home}: {{name: {key.owner}, ...}}   or  -o {home}.name={key.owner}"


def _for_shell(value: str) -> str:
    return value if value.replace(".", "").replace("-", "").isalnum() else f"'{value}'"


def _filled(text: str, indent: str = "    ") -> str:
    """Paragraphs as they are if they are laid out, else filled."""
    parts = []
    for paragraph in text.replace("``", "`").split("\n\n"):
        if any(line.startswith(" ") for line in paragraph.splitlines()):
            parts.append(textwrap.indent(paragraph, indent))
        else:
            parts.append(
                textwrap.fill(paragraph, _WIDTH, initial_indent=indent, subsequent_indent=indent)
            )
    return "\n\n".join(parts)


def _table(keys: Sequence[Key], *, short: bool = False) -> str:
    """A line a key: name, default, first sentence."""
    rows = [
        (
            key.path.rpartition(".")[2] if short else key.path,
            key.default or ("..." if key.kind == "section" else ""),
            _cut(key.doc.split("\n")[0], 100),
        )
        for key in keys
    ]
    name = max(len(row[0]) for row in rows)
    value = min(max(len(row[1]) for row in rows), 24)
    return "\n".join(
        f"  {row[0]:<{name}}  {_cut(row[1], value):<{value}}  {row[2]}".rstrip() for row in rows
    )


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."

"""``passl``: all commands under one name, and which versions are at work."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from importlib import metadata, util
from typing import Optional

import passl
from passl.cli.commands import COMMANDS
from passl.cli.help_text import laid_out
from passl.config.suggest import did_you_mean
from passl.errors import EXIT_CONFIG, EXIT_OK

__all__ = ["main", "overview", "versions"]

_PADDLES = ("paddlepaddle", "paddlepaddle-gpu", "paddlepaddle-xpu", "paddlepaddle-dcu")

_EPILOG = """examples:
  passl train -c quickstart/ViT_micro_digits      the same as passl-train -c ...
  passl config list                               configs that ship; -c takes their names anywhere
  passl new my_run --from ViT_base_patch16_224    a small config to start from
  passl train --help                              every command has examples

exit status: 0 done; 1 failed; 2 a mistake in a config or on the command line; 75 stopped with the
state saved
"""


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run ``passl COMMAND ...``; returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    first = arguments[0] if arguments else "--help"
    if first in ("-h", "--help", "help"):
        return _help(arguments[1:])
    if first in ("-V", "--version", "version"):
        print(versions())
        return EXIT_OK
    command = COMMANDS.get(first)
    if command is None:
        return _unknown(first)
    if argv is not None:
        return command.main()(arguments[1:])
    # As if it had been started by its own name: what it writes of its command line holds, too.
    sys.argv = [command.prog, *arguments[1:]] if command.script else sys.argv
    return command.main()(None if command.script else arguments[1:])


def overview() -> str:
    """The text of ``passl --help``."""
    width = max(map(len, COMMANDS))
    lines = [f"  {command.name:<{width}}  {command.summary}" for command in COMMANDS.values()]
    return "\n".join(
        [
            "usage: passl COMMAND ...",
            "",
            "Train vision transformers on PaddlePaddle from one YAML file.",
            "",
            "commands (passl train is passl-train; COMMAND --help says more of each):",
            *lines,
            "",
            "options:",
            "  -h, --help     show this",
            "  -V, --version  versions of PASSL and of what it stands on",
            "",
            laid_out(_EPILOG),
            "",
        ]
    )


def versions() -> str:
    """``passl 3.0.0 (Python 3.11.7, paddlepaddle 3.3.1, numpy 2.3.5)``; imports neither."""
    numpy = _version("numpy")
    parts = [
        f"Python {platform.python_version()}",
        _paddle(),
        f"numpy {numpy}" if numpy else "no numpy",
    ]
    return f"passl {passl.__version__} ({', '.join(parts)})"


def _help(names: list[str]) -> int:
    """``passl help``, and ``passl help train``."""
    if not names:
        print(overview(), end="")
    elif names[0] not in COMMANDS:
        return _unknown(names[0])
    else:
        COMMANDS[names[0]].build_parser().print_help()
    return EXIT_OK


def _unknown(text: str) -> int:
    what = "option" if text.startswith("-") else "command"
    hint = did_you_mean(text, COMMANDS) or "; passl --help lists them"
    print(f"passl: there is no {what} {text!r}{hint}", file=sys.stderr)
    return EXIT_CONFIG


def _paddle() -> str:
    for name in _PADDLES:
        version = _version(name)
        if version:
            return f"{name} {version}"
    return "no Paddle" if util.find_spec("paddle") is None else "Paddle of unknown version"


def _version(package: str) -> Optional[str]:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

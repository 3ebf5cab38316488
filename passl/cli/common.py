"""What the commands share: options, and how an error reaches a person."""

from __future__ import annotations

import argparse
import codecs
import errno
import io
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Callable, Optional

from passl.cli.help_text import HelpFormatter
from passl.config import Config, load_config
from passl.config.cross import Mode
from passl.engine.faults.attempt import noting_the_end
from passl.engine.stopping import (
    StopRequest,
    catching_signals,
    process_age_s,
    stop_with_launcher,
)
from passl.errors import EXIT_FAILED, EXIT_OK, ConfigError, PasslError
from passl.logs.logger import warnings_of_command
from passl.logs.streams import give_up_broken_streams, lead_to_nowhere, open_closed_streams
from passl.logs.terminal import columns_of, is_terminal, wrapped

__all__ = [
    "add_config_options",
    "command_parser",
    "config_parser",
    "examples_of_subcommands",
    "load_from_args",
    "run_command",
    "run_stoppable",
]

#: A disk that is full, a quota that is used up, rights that are missing: no defect of ours.
_OF_THE_SYSTEM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM)


def command_parser(
    prog: str,
    description: str,
    epilog: str,
    kind: type[argparse.ArgumentParser] = argparse.ArgumentParser,
) -> argparse.ArgumentParser:
    """A parser with ``--traceback``, which :func:`run_command` asks every command for.

    Args:
        prog: the command as it is typed.
        description: what it does, in a sentence.
        epilog: examples, as they are to be pasted.
        kind: for a command whose words come in an order of its own.
    """
    parser = kind(
        prog=prog,
        description=description,
        epilog=epilog,
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "--traceback", action="store_true", help="show where in the program an error was raised"
    )
    return parser


def config_parser(
    prog: str, description: str, epilog: str, *, required: bool = True
) -> argparse.ArgumentParser:
    """:func:`command_parser` with ``-c``, ``-o`` and ``--print-config``."""
    parser = command_parser(prog, description, epilog)
    add_config_options(parser, required=required)
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="print the resolved config with the origin of every value, and stop",
    )
    return parser


def add_config_options(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """``-c`` and ``-o``."""
    parser.add_argument(
        "-c",
        "--config",
        required=required,
        metavar="CONFIG",
        help="YAML file of the run, or the name of one that ships: passl-config list",
    )
    parser.add_argument(
        "-o",
        "--override",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="set a key, e.g. -o Global.epochs=10 Model.drop_rate=0.0; ~KEY removes it; repeatable",
    )


def examples_of_subcommands(parser: argparse.ArgumentParser) -> None:
    """Show each subcommand's help those examples of the command that are about it."""
    lines = (parser.epilog or "").splitlines()
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        for name, inner in action.choices.items():
            own = _examples_with(lines, f"{parser.prog} {name}")
            if own and not inner.epilog:
                inner.epilog = "\n".join(["examples:", *own])
                inner.formatter_class = HelpFormatter


def _examples_with(lines: list[str], start: str) -> list[str]:
    """The lines of an epilog that begin with a command, and those that continue one."""
    own: list[str] = []
    inside = False
    for line in lines:
        begins = line.startswith("  ") and not line.startswith("   ")
        inside = line.strip().startswith(f"{start} ") if begins else inside and bool(line.strip())
        if inside:
            own.append(line)
    return own


def load_from_args(arguments: argparse.Namespace, mode: Mode) -> Config:
    """The checked config that the options name."""
    return load_config(arguments.config, arguments.override, mode=mode)


def run_command(
    parser: argparse.ArgumentParser,
    action: Callable[[argparse.Namespace], int],
    argv: Optional[Sequence[str]],
) -> int:
    """Parse, run, and turn errors for people into a message and an exit status.

    Returns:
        0 done, 1 failed, 2 a mistake in the config or on the command line, 75 stopped with the
        state saved, 130 interrupted.
    """
    open_closed_streams()
    _accept_all_letters()
    lost: Optional[OSError] = None
    try:
        status = _run(parser, action, parser.parse_args(argv))
    finally:
        lost = give_up_broken_streams()
    if lost is not None and status == EXIT_OK:
        _explain(parser.prog, PasslError(f"stdout could not be written: {lost.strerror}"))
        return EXIT_FAILED
    return status


def _run(
    parser: argparse.ArgumentParser,
    action: Callable[[argparse.Namespace], int],
    arguments: argparse.Namespace,
) -> int:
    try:
        with warnings_of_command(parser.prog):
            return action(arguments)
    except PasslError as error:
        if arguments.traceback:
            traceback.print_exc()
        _explain(parser.prog, error)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output, such as head, has left
        lead_to_nowhere(sys.stdout)
        return EXIT_OK
    except OSError as error:
        if arguments.traceback or error.errno not in _OF_THE_SYSTEM:
            raise
        # What the program expects is told where it happens; print, and rights, are everywhere.
        what = error.filename or "what the command has to say"
        verb = "use" if isinstance(error, PermissionError) else "write"
        _explain(parser.prog, PasslError(f"cannot {verb} {what}: {error.strerror}"))
        return EXIT_FAILED
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return 130


def _accept_all_letters() -> None:
    r"""Let no name of a file or class end a command because stdout cannot show it.

    Where stdout says it is ASCII it gets UTF-8, as Python itself does for the locale C; elsewhere
    ``\u0438`` stands for what is lacking.
    """
    stdout = sys.stdout
    if isinstance(stdout, io.TextIOWrapper) and stdout.errors == "strict":
        is_ascii = codecs.lookup(stdout.encoding).name == "ascii"
        encoding = "utf-8" if is_ascii else stdout.encoding
        stdout.reconfigure(encoding=encoding, errors="backslashreplace")


def run_stoppable(
    parser: argparse.ArgumentParser,
    action: Callable[[argparse.Namespace, StopRequest], int],
    argv: Optional[Sequence[str]],
) -> int:
    """:func:`run_command` for a command that the signals of a stop end neatly.

    Args:
        action: obeys the request; one that does not is ended only by SIGKILL.
        argv: None: the arguments of this process, which ends after the command.
    """
    open_closed_streams()
    is_process = argv is None
    request = StopRequest(process_age_s() if is_process else 0.0)

    def act(arguments: argparse.Namespace) -> int:
        with noting_the_end():
            return action(arguments, request)

    with catching_signals(request, ends_process=is_process):
        if is_process:
            stop_with_launcher()
        return run_command(parser, act, argv)


def _explain(prog: str, error: PasslError) -> None:
    problems = error.problems if isinstance(error, ConfigError) else [str(error)]
    if len(problems) > 1:
        texts = [f"{prog}: {len(problems)} mistakes:", *(f"  {each}" for each in problems)]
    else:
        texts = [f"{prog}: {problems[0] if problems else EXIT_FAILED}"]
    for text in texts:
        if is_terminal(sys.stderr):  # not in the middle of a word
            hanging = "    " if text.startswith("  ") else ""  # one of several
            text = "\n".join(wrapped(text, columns_of(sys.stderr), hanging))
        with suppress(OSError):  # a terminal that was closed; the exit status still tells
            print(text, file=sys.stderr)

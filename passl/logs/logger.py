"""The ``passl`` logger: on screen and in a file, each line once.

    [2026/01/31 12:00:00] passl INFO: [Train][Epoch 1/300][Iter: 0/1251] lr: ...

That is a line in a file or a pipe; on a terminal it is shorter, as wide as the terminal, and in
colours.  Rank 0 speaks; the other ranks write everything to ``rank_N.log`` and put only warnings
and errors on screen. Never imports Paddle, so that errors before its import look the same.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Optional, Protocol, TextIO, Union

from passl.errors import PasslError
from passl.logs.log_file import LogFile
from passl.logs.streams import lead_to_nowhere
from passl.logs.terminal import columns_of, is_terminal, paint, wants_colours, wrapped

__all__ = [
    "ConsoleHandler",
    "LiveLine",
    "get_logger",
    "release_log",
    "setup_logging",
    "warnings_of_command",
]

_NAME = "passl"
_FORMAT = "[%(asctime)s] passl %(levelname)s: %(message)s"
_DATE_FORMAT = "%Y/%m/%d %H:%M:%S"
#: ANSI colours of the level names: yellow and red.
_COLOURS = {"WARNING": "\033[33m", "ERROR": "\033[31m", "CRITICAL": "\033[31m"}
_DIM, _GREEN = "\033[2m", "\033[32m"


class LiveLine(Protocol):
    """A line on the terminal that is redrawn, and makes room for log lines."""

    def clear(self) -> None:
        """Take the line off the screen."""

    def redraw(self) -> None:
        """Put it back below what was printed."""


def get_logger() -> logging.Logger:
    """The logger of this software; silent below warnings until :func:`setup_logging` was called."""
    return logging.getLogger(_NAME)


def setup_logging(
    run_dir: Optional[Union[str, Path]],
    rank: int = 0,
    mode: str = "train",
    *,
    held_back: bool = False,
) -> logging.Logger:
    """Send the ``passl`` logger to the screen (stdout) and to a file of the run; again replaces it.

    Args:
        run_dir: folder of the run, made if need be; None: screen only.
        rank: this process among all.
        mode: names the file: ``train.log`` and ``rank_N.log``, ``eval.log`` and
            ``eval_rank_N.log``.  A file that is there is continued.
        held_back: the folder may be another job's: nothing is written there before
            :func:`release_log`.

    Raises:
        PasslError: the file cannot be written.
    """
    logger = get_logger()
    close_logging()
    logger.setLevel(logging.INFO)
    logger.propagate = (
        False  # Paddle 2.6 puts a handler on the root logger: every line would appear twice
    )
    console = ConsoleHandler(rank)
    console.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    logger.addHandler(console)
    if run_dir is not None:
        prefix = "" if mode == "train" else f"{mode}_"
        path = Path(run_dir) / (f"{mode}.log" if rank == 0 else f"{prefix}rank_{rank}.log")
        logger.addHandler(_HeldBack(path) if held_back else _file_handler(path))
    return logger


def release_log() -> None:
    """Write what was held back, and from now on everything at once.

    Raises:
        PasslError: the file cannot be written.
    """
    logger = get_logger()
    for handler in list(logger.handlers):
        if isinstance(handler, _HeldBack):
            logger.removeHandler(handler)
            file = _file_handler(handler.path)
            logger.addHandler(file)
            handler.setTarget(file)
            handler.close()


def close_logging() -> None:
    """Take the handlers off the ``passl`` logger and close its file."""
    logger = get_logger()
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


class _HeldBack(logging.handlers.MemoryHandler):
    """Keeps the records for a file that must not be touched yet."""

    def __init__(self, path: Path) -> None:
        super().__init__(capacity=10_000, flushLevel=logging.CRITICAL + 1)
        self.path = path

    def shouldFlush(self, _record: logging.LogRecord) -> bool:
        """Never by itself."""
        return False


class ConsoleHandler(logging.StreamHandler):
    """Prints to what ``sys.stdout`` is at that moment.

    On a terminal a record may say less: with ``extra={"fields": [...]}`` as many of these texts are
    printed instead of its message as there is room for, and with ``extra={"is_detail": True}`` it
    is left to the files.  ``is_good`` makes it green.

    Args:
        rank: above 0 it is told in each line.
    """

    def __init__(self, rank: int = 0) -> None:
        super().__init__(sys.stdout)
        self.setFormatter(_ConsoleFormatter(self, rank))
        #: The live line to move out of the way; a progress bar puts itself here.
        self.live: Optional[LiveLine] = None

    def screen(self) -> Optional[TextIO]:
        """Where it prints: what has the name at that moment, which may be nothing."""
        return sys.stdout

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record, above the live line if there is one."""
        stream = self.screen()
        if stream is None:  # a program without a screen, which calls the library
            return
        self.stream = stream
        if getattr(record, "is_detail", False) and is_terminal(self.stream):
            return
        if self.live is None:
            super().emit(record)
            return
        self.live.clear()
        super().emit(record)
        self.live.redraw()

    def handleError(self, record: logging.LogRecord) -> None:
        """A reader that left, such as ``| head`` or a closed terminal, costs the screen only."""
        error = sys.exc_info()[1]
        if isinstance(error, UnicodeEncodeError):  # letters that the screen lacks
            text = self.format(record) + self.terminator
            self.stream.write(text.encode("ascii", "backslashreplace").decode("ascii"))
            return
        if not isinstance(error, (OSError, ValueError)):
            super().handleError(record)
            return
        get_logger().removeHandler(self)
        lead_to_nowhere(sys.stdout)  # or Python itself fails on it at its end
        get_logger().warning("the screen is gone; the run goes on and its log is in the file")


@contextlib.contextmanager
def warnings_of_command(prog: str) -> Iterator[None]:
    """Print warnings on stderr as a command's errors are, until :func:`setup_logging` takes over.

    Args:
        prog: the command as it is typed.
    """
    logger, handler = get_logger(), _CommandHandler(prog)
    before, logger.propagate = logger.propagate, False  # or Paddle's handler prints them, too
    logger.addHandler(handler)
    try:
        yield
    finally:
        if handler in logger.handlers:
            logger.removeHandler(handler)
            logger.propagate = before


class _CommandHandler(ConsoleHandler):
    """``passl-visualize: what is odd``, in the lines of the terminal, above its live line."""

    def __init__(self, prog: str) -> None:
        super().__init__()
        self._prog = prog
        self.setLevel(logging.WARNING)

    def screen(self) -> Optional[TextIO]:
        return sys.stderr

    def format(self, record: logging.LogRecord) -> str:
        text = f"{self._prog}: {record.getMessage()}"
        stream = self.stream
        return "\n".join(wrapped(text, columns_of(stream))) if is_terminal(stream) else text

    def handleError(self, record: logging.LogRecord) -> None:
        """Nobody reads it any more; the exit status still tells."""
        if not isinstance(sys.exc_info()[1], (OSError, ValueError)):
            super().handleError(record)


class _ConsoleFormatter(logging.Formatter):
    """Whole lines for files and pipes; on a terminal short ones, which fit its width."""

    def __init__(self, handler: ConsoleHandler, rank: int) -> None:
        super().__init__(_FORMAT, _DATE_FORMAT)
        self._handler = handler
        self._where = f"[rank {rank}] " if rank else ""

    def format(self, record: logging.LogRecord) -> str:
        stream = self._handler.stream
        colours = wants_colours(stream)
        if is_terminal(stream):
            return self._short(record, columns_of(stream), colours)
        line = super().format(record)
        plain = f"passl {record.levelname}: "
        colour = _COLOURS.get(record.levelname) if colours else None
        level = f"passl {paint(record.levelname, colour)}: " if colour else plain
        line = line.replace(plain, level + self._where, 1)
        return paint(line, _GREEN) if colours and getattr(record, "is_good", False) else line

    def _short(self, record: logging.LogRecord, columns: int, colours: bool) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = record.levelname if record.levelno >= logging.WARNING else ""
        width = columns - len(clock) - 2
        text = f"{f'{level}: ' if level else ''}{self._where}{_fitting(record, width)}"
        if text.startswith("  "):  # a command to copy: in one piece, and nothing before it
            return text
        lines = wrapped(text, width)
        if colours:
            clock = paint(clock, _DIM)
            if level:
                lines[0] = lines[0].replace(level, paint(level, _COLOURS[level]), 1)
            elif getattr(record, "is_good", False):
                lines = [paint(line, _GREEN) for line in lines]
        indent = " " * (columns - width - 1)
        return f"{clock} " + f"\n{indent}".join(lines)


def _fitting(record: logging.LogRecord, width: int) -> str:
    """As many fields as there is room for, where the record has fields; else its message."""
    fields = getattr(record, "fields", None)
    if fields is None:
        return record.getMessage()
    while len(fields) > 1 and len("  ".join(fields)) > width:
        fields = fields[:-1]
    return "  ".join(fields)


def _file_handler(path: Path) -> logging.Handler:
    try:
        handler = LogFile(path)
    except OSError as error:
        raise PasslError(
            f"cannot write the log {path}: {error.strerror}. "
            "Change the rights of the folder or choose another Global.output_dir."
        ) from error
    handler.setFormatter(logging.Formatter(_FORMAT, _DATE_FORMAT))
    return handler

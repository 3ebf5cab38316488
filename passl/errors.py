"""Errors that are meant for people, and the exit status of a command.

An error of this module carries a whole sentence: what was found, where, and what to do.  The
command line prints it without a traceback (``--traceback`` shows one).  Everything else that
escapes is a defect of this software, or of a user's own component, and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "EXIT_CONFIG",
    "EXIT_FAILED",
    "EXIT_OK",
    "EXIT_STOPPED",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "PasslError",
]

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_CONFIG = 2
#: Stopped by a signal with the state saved: run the same command again (EX_TEMPFAIL of sysexits.h).
EXIT_STOPPED = 75


class PasslError(Exception):
    """A mistake that a person can mend; its text is all they need to read."""

    exit_code: int = EXIT_FAILED


class ConfigError(PasslError):
    """One or more mistakes in a config file, its bases or its overrides.

    Args:
        problems: one sentence a mistake, each with the place it was found.
    """

    exit_code = EXIT_CONFIG

    def __init__(self, problems: Sequence[str] | str) -> None:
        self.problems: list[str] = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class CheckpointError(PasslError):
    """A file of weights or training state that is missing, damaged, unsafe or of another model."""


class DataError(PasslError):
    """A data set, list file, image or sample that cannot be used."""

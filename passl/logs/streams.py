"""stdin, stdout and stderr of a command, whatever the caller has made of them.

A daemon or ``2>&-`` closes them.  Python then has None in their place, and the next file that is
opened gets their number: a line for the screen would be written into a checkpoint.  A stream on a
full disk fails at each write, and once more at the end of the process, where Python turns any
status into 120.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import Optional, TextIO

__all__ = ["give_up_broken_streams", "lead_to_nowhere", "open_closed_streams"]

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_closed_streams() -> None:
    """Let those that are closed lead to nowhere; call it before any file is opened."""
    for number in range(len(_STREAMS)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
            os.set_inheritable(number, True)
    for name, mode in _STREAMS:
        if getattr(sys, name) is None:
            # Kept open to the end of the process, as the stream is that it stands for.
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def give_up_broken_streams() -> Optional[OSError]:
    """Let Python not fail at the end on what stdout and stderr could not write.

    Returns:
        Why stdout is not complete; None too if its reader has left, such as ``head``.
    """
    lost = None
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError) as error:  # ValueError: somebody has closed it
            if stream is sys.stdout and isinstance(error, OSError) and error.errno != errno.EPIPE:
                lost = error
            lead_to_nowhere(stream)
    return lost


def lead_to_nowhere(stream: TextIO) -> None:
    """What is still written to it, what it holds back included, is lost without an error."""
    with suppress(OSError, ValueError):
        handle = os.open(os.devnull, os.O_WRONLY)
        os.dup2(handle, stream.fileno())
        os.close(handle)

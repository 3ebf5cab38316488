"""A pseudo terminal to run code on, and a small model of what its screen shows."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios


class Screen:
    r"""What a terminal shows after \r, \n and 'erase to the end of the line'."""

    def __init__(self, data: bytes, columns: int, may_wrap: bool = False) -> None:
        self.may_wrap = may_wrap
        self.lines, self.column, self.columns = [""], 0, columns
        for part in re.findall(r"\033\[\d*[A-Za-z]|[\s\S]", data.decode()):
            self.put(part)

    def put(self, part: str) -> None:
        line = self.lines[-1]
        if part == "\033[K":
            self.lines[-1] = line[: self.column]
        elif part.startswith("\033"):
            assert part.endswith("m"), f"{part!r} is not understood by this screen"
        elif part == "\r":
            self.column = 0
        elif part == "\n":
            self.lines.append("")
            self.column = 0
        else:
            if self.column >= self.columns and self.may_wrap:
                self.put("\n")
                line = self.lines[-1]
            assert self.column < self.columns, "the line wrapped: clearing it would leave rests"
            self.lines[-1] = line[: self.column].ljust(self.column) + part + line[self.column + 1 :]
            self.column += 1


def on_terminal(
    code: str, *, columns: int = 100, term: str = "xterm", may_wrap: bool = False
) -> tuple[Screen, bytes]:
    """Run Python code with stdout and stderr on one pseudo terminal.

    Args:
        code: what to run.
        columns: width of the terminal.
        term: what it calls itself.
        may_wrap: lines longer than it are no error: a long path, a command to copy.
    """
    main, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=child,
        stderr=child,
        env={**os.environ, "TERM": term},
    )
    os.close(child)
    data = b""
    try:
        while piece := os.read(main, 65536):
            data += piece
    except OSError:
        pass  # how Linux reports that the other side is closed
    os.close(main)
    assert process.wait() == 0, data
    return Screen(data, columns, may_wrap), data

"""Ports of this machine for the tests.

Below those that Linux gives to outgoing connections (32768 and above), one of which could get a
port between the look at it and its use; and each test process has some of its own.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import socket

__all__ = ["LAUNCHER_PORTS", "free_port", "ports_of_another_launcher"]

_WORKER = re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or os.getpid()
_FIRST = 12000 + int(_WORKER) % 10 * 2000


def _ports(first: int, last: int) -> dict[str, str]:
    return {"PORT_RANGE": f"{_FIRST + first}:{_FIRST + last}"}


#: Where ``paddle.distributed.launch`` looks for ports: a variable for its environment.
LAUNCHER_PORTS = _ports(500, 1499)

_OTHERS = itertools.cycle([_ports(first, first + 99) for first in range(1500, 2000, 100)])
_START = random.randrange(500)
_OURS = itertools.cycle(_FIRST + (_START + number) % 500 for number in range(500))


def ports_of_another_launcher() -> dict[str, str]:
    """As :data:`LAUNCHER_PORTS`, for launchers that run at the same time."""
    return next(_OTHERS)


def free_port() -> int:
    """A port of the loopback that nobody uses now, another one at each call."""
    for port in itertools.islice(_OURS, 500):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"ports {_FIRST} to {_FIRST + 499} are all in use")

"""A worker of the preflight's tests: ``passl-check --dist``, with one rank that misbehaves.

preflight_worker.py sleeps|dies|dies-later|terminated TIMEOUT
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

from passl.cli import check
from passl.distributed import preflight


def await_rank_0() -> None:
    """Return when rank 0 has opened its store, so that it is waiting for this rank."""
    host, _, port = os.environ["PADDLE_TRAINER_ENDPOINTS"].split(",")[0].rpartition(":")
    end = time.monotonic() + 300
    while time.monotonic() < end:
        try:
            with socket.create_connection((host, int(port)), timeout=1):
                return
        except OSError:
            time.sleep(0.1)


def misbehave(how: str) -> None:
    """What rank 1 does instead of coming."""
    if how == "sleeps":
        time.sleep(500)
    elif how == "dies":
        await_rank_0()
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "dies-later":  # it came, and dies before the group is formed
        preflight._GroupProcess.go = lambda _: os.kill(os.getpid(), signal.SIGKILL)


def terminate_the_group_process_first() -> None:
    """The launcher's SIGTERM goes to rank 0 and its child; here only the child has had it yet."""
    preflight._GroupProcess.go = lambda group: group._process.terminate()


if __name__ == "__main__":
    if os.environ["PADDLE_TRAINER_ID"] == "1":
        misbehave(sys.argv[1])
    elif sys.argv[1] == "terminated":
        terminate_the_group_process_first()
    sys.exit(check.main(["--dist", "--timeout", sys.argv[2]]))

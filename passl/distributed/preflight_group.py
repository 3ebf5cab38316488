"""The group that training uses, formed and tried in a process of its own.

The preflight starts :func:`main` in a Python of its own on every rank.  While that
connects, Paddle may neither return nor let another Python thread run; a process can be ended, and
the preflight still says who is missing.  It says that it is ready, waits for a line on stdin, and
writes one line of JSON on stdout before and after each step.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from passl.distributed.world import read_world
from passl.runtime import import_paddle, prepare

__all__ = ["main"]

_ALL_REDUCE_NUMEL = 2**20  # 4 MiB of fp32


def main() -> int:
    """Form the group, run a barrier and an all-reduce; 0 if all went well."""
    prepare()
    paddle = import_paddle()
    world = read_world()
    _say(ready=True)
    if not sys.stdin.readline():  # the preflight has ended: not all ranks came
        return 1
    tensors: dict[str, Any] = {}

    def reduce() -> None:
        paddle.distributed.all_reduce(tensors["sum"])
        total = world.size * (world.size + 1) / 2
        sums = {float(tensors["sum"].min().item()), float(tensors["sum"].max().item())}
        if sums != {total}:
            raise ArithmeticError(f"the sum over the ranks should be {total:g} and is {sums}")

    try:
        _timed("forming the group", paddle.distributed.init_parallel_env)
        tensors["sum"] = paddle.full([_ALL_REDUCE_NUMEL], world.rank + 1.0, dtype="float32")
        _timed("barrier", paddle.distributed.barrier)
        _timed("all-reduce of 4 MiB", reduce)
    except (RuntimeError, SystemError, OSError, ValueError, ArithmeticError) as error:
        _say(error=(str(error).strip().splitlines() or [type(error).__name__])[-1])
        return 1
    _say(done=True)
    return 0


def _timed(step: str, action: Callable[[], Any]) -> None:
    _say(step=step)
    started = time.monotonic()
    action()
    _say(step=step, seconds=time.monotonic() - started)


def _say(**values: Any) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()

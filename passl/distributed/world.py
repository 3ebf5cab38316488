"""Where this process stands in the job: rank, world size, node.

Read from the environment that ``paddle.distributed.launch`` gives its workers, without importing
Paddle, so that data can be split and configs checked before it is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

from passl.errors import ConfigError

__all__ = ["World", "read_world"]


@dataclass(frozen=True)
class World:
    """This process among all processes of the job.

    Attributes:
        rank: number of this process, 0 to ``size - 1``.
        size: number of processes (one a device).
        local_rank: number of this process on its node.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """The process that writes files and talks to the terminal."""
        return self.rank == 0

    @property
    def is_distributed(self) -> bool:
        """There are other processes to talk to."""
        return self.size > 1


def read_world(environ: Optional[Mapping[str, str]] = None) -> World:
    """The world of this process.

    Raises:
        ConfigError: the launcher's variables are not numbers or contradict each other.
    """
    environ = os.environ if environ is None else environ
    values = []
    for name, default in (
        ("PADDLE_TRAINER_ID", "0"),
        ("PADDLE_TRAINERS_NUM", "1"),
        ("PADDLE_RANK_IN_NODE", "0"),
    ):
        text = environ.get(name) or default
        if not text.isdigit():
            raise ConfigError(
                f"environment variable {name} is {text!r}, which is no rank or count; unset it, or "
                "start the processes with python -m paddle.distributed.launch"
            )
        values.append(int(text))
    rank, size, local_rank = values
    if rank >= max(size, 1) or size < 1:
        raise ConfigError(
            f"PADDLE_TRAINER_ID={rank} does not fit PADDLE_TRAINERS_NUM={size}; unset both, or "
            "start the processes with python -m paddle.distributed.launch"
        )
    return World(rank, size, local_rank)

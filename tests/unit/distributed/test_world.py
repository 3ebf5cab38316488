"""Rank and world size from the launcher's environment."""

from __future__ import annotations

import pytest

from passl.distributed.world import World, read_world
from passl.errors import ConfigError


def test_alone_without_a_launcher():
    assert read_world({}) == World(0, 1, 0)
    assert not read_world({}).is_distributed


def test_reads_what_paddles_launcher_sets():
    environ = {"PADDLE_TRAINER_ID": "9", "PADDLE_TRAINERS_NUM": "16", "PADDLE_RANK_IN_NODE": "1"}
    assert read_world(environ) == World(9, 16, 1)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"PADDLE_TRAINER_ID": "x"},
            "environment variable PADDLE_TRAINER_ID is 'x', which is no rank or count",
        ),
        (
            {"PADDLE_TRAINER_ID": "2", "PADDLE_TRAINERS_NUM": "2"},
            "PADDLE_TRAINER_ID=2 does not fit PADDLE_TRAINERS_NUM=2",
        ),
    ],
)
def test_a_broken_environment_is_named(environ, message):
    with pytest.raises(ConfigError, match=message):
        read_world(environ)

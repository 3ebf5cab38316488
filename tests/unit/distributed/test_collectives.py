"""Meeting the other processes."""

from __future__ import annotations

import signal

import paddle
import pytest

from passl.distributed.collectives import init_world
from passl.distributed.world import World
from passl.engine.stopping import StopRequest, catching_signals


@pytest.mark.parametrize("is_nohup", [False, True])
def test_who_waits_for_the_others_can_be_ended(monkeypatch, is_nohup):
    """Paddle waits in C++, where a handler of Python would only be noted."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    seen = []
    monkeypatch.setattr(
        paddle.distributed,
        "init_parallel_env",
        lambda: seen.extend(signal.getsignal(number) for number in numbers),
    )
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if is_nohup else signal.SIG_DFL)
    try:
        with catching_signals(StopRequest()):
            handlers = [signal.getsignal(number) for number in numbers]
            init_world(World(0, 2, 0))
            assert [signal.getsignal(number) for number in numbers] == handlers
    finally:
        signal.signal(signal.SIGHUP, before)
    hung_up = signal.SIG_IGN if is_nohup else signal.SIG_DFL
    assert seen == [signal.SIG_DFL, signal.SIG_DFL, hung_up]

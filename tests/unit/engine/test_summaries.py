"""The last words of a run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from passl.engine.summaries import results


@pytest.mark.parametrize(
    ("seconds", "taken"), [(0.9, "0.9 s in all"), (123.4, "0:02:03 (123.4 s) in all")]
)
def test_a_short_run_is_not_said_to_take_no_time(seconds, taken):
    state = SimpleNamespace(step=44, train_time_s=seconds, best=None, best_ema=None)
    plan = SimpleNamespace(epoch_of=lambda step: 2)
    assert results(state, plan, 824.2, "top1") == [
        f"done: 44 steps, 2 epochs, {taken} at 824.2 images/sec"
    ]

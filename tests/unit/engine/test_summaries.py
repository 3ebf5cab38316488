"""The last words of a run give each figure for what it is."""

from __future__ import annotations

from passl.engine.plan import plan_run
from passl.engine.reports.summaries import results
from passl.engine.state import TrainState

PLAN = plan_run(
    seed=1, global_batch_size=64, micro_batch_size=64, steps_per_epoch=22, epochs=14,
    max_train_step=None, log_every=11, eval_interval=1, eval_unit="epoch", save_interval=1,
    save_unit="epoch",
)


def test_the_speed_of_the_steps_is_not_said_of_the_time_of_the_run():
    """308 steps of 64 images at 636.3 a second take 31.0 s; the run also evaluated and saved."""
    state = TrainState(step=308, train_time_s=34.6)
    assert results(state, PLAN, 636.3, "top1") == [
        "done: 308 steps, 14 epochs, 34.6 s; 636.3 images/sec in steps"
    ]
    state.train_time_s = 93784.0
    assert results(state, PLAN, None, "top1") == ["done: 308 steps, 14 epochs, 26:03:04"]

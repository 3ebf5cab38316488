"""What a run says of the time that it will take."""

from __future__ import annotations

import pytest
import yaml
from small_run import digits_config

from passl.config import load_config
from passl.distributed.world import World
from passl.engine.evaluator import EvalResult
from passl.engine.plan import plan_run
from passl.engine.reports.reporting import Reporter
from passl.engine.state import TrainState
from passl.logs.logger import close_logging
from passl.logs.meters import Throughput


@pytest.fixture
def reporter(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(digits_config(tmp_path / "out")))
    config = load_config(str(file), mode="train")
    yield Reporter(tmp_path, config, "train", World())
    close_logging()


def test_the_time_left_counts_the_evaluations_to_come(reporter):
    """Steps of 2 s, 10 an epoch, 3 epochs; the newest evaluation took 7 s, its average 5 s."""
    now = iter(range(0, 1000, 2))
    reporter._speed = Throughput(warm_up=0, clock=lambda: float(next(now)))
    reporter._plan = plan_run(
        seed=0, global_batch_size=1, micro_batch_size=1, steps_per_epoch=10, epochs=3,
        max_train_step=None, log_every=1, eval_interval=1, eval_unit="epoch", save_interval=1,
        save_unit="epoch",
    )
    reporter._speed.restart()
    reporter._speed.step_done(1)
    assert reporter._eta_s(10) == 40  # nothing is known of evaluations yet

    state = TrainState()
    state.step = 10
    result, averaged = EvalResult({"top1": 0.5}, 9, 7.0), EvalResult({"top1": 0.5}, 9, 5.0)
    reporter.eval_average(state, result, 1, {}, averaged)
    assert reporter._eta_s(11) == 19 * 2 + 2 * 12
    assert reporter._eta_s(30) == 12  # all steps are done, the last evaluation is not

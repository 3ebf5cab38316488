"""Averages of what steps report, and the steps that must end a run."""

from __future__ import annotations

import math

import numpy as np
import paddle
import pytest

from passl.distributed.world import World
from passl.engine import meters
from passl.engine.meters import StepMeter
from passl.errors import PasslError


def add(meter: StepMeter, loss: float, samples: int = 2, norm: float = 1.0, applied: bool = True):
    sums = {"loss": paddle.to_tensor(loss * samples), "top1": paddle.to_tensor(1)}
    meter.add(sums, samples, paddle.to_tensor(norm), applied)


@pytest.fixture
def meter() -> StepMeter:
    return StepMeter(["loss", "top1"], World())


def test_means_are_per_sample_and_norms_per_step(meter):
    add(meter, 1.0, samples=6, norm=1.0)
    add(meter, 3.0, samples=2, norm=5.0)
    meter.flush(2)
    assert meter.window_means() == {"loss": 1.5, "top1": 0.25, "grad_norm": 3.0}
    add(meter, 8.0, samples=8)
    meter.flush(3)
    assert meter.window_means()["loss"] == 8.0
    assert meter.epoch_means()["loss"] == 76.0 / 16.0


@pytest.mark.parametrize(
    ("loss", "norm", "sentence"),
    [
        (math.nan, 1.0, "the loss became nan at step 12"),
        (math.inf, math.nan, "the loss became inf at step 12"),
        (1.0, math.nan, "the norm of the gradients became nan at step 12"),
        (1.0, math.inf, "the norm of the gradients became inf at step 12"),
    ],
)
def test_an_update_with_figures_that_are_not_finite_ends_the_run(meter, loss, norm, sentence):
    add(meter, 1.0)
    add(meter, loss, norm=norm)
    add(meter, 1.0)
    with pytest.raises(PasslError, match=sentence):
        meter.flush(13)


def test_a_step_that_the_loss_scale_skipped_is_left_out_of_the_averages(meter):
    add(meter, 1.0, samples=4, norm=2.0)
    add(meter, math.nan, samples=4, norm=math.nan, applied=False)
    add(meter, 3.0, samples=4, norm=math.inf, applied=False)  # only the gradients overflowed
    meter.flush(3)
    assert meter.window_means() == {"loss": 2.0, "top1": 0.25, "grad_norm": 2.0}


def test_a_window_without_any_figure_is_not_a_zero(meter):
    add(meter, math.inf, norm=math.nan, applied=False)
    meter.flush(1)
    assert all(math.isnan(value) for value in meter.window_means().values())


def test_all_ranks_end_together_when_one_meets_a_loss_that_is_not_finite(monkeypatch):
    meter = StepMeter(["loss", "top1"], World(rank=1, size=2))
    monkeypatch.setattr(meters, "sum_over_ranks", lambda values, world: values + 1.0)
    add(meter, 1.0)
    with pytest.raises(PasslError, match="another process met a loss that is not finite after"):
        meter.flush(1)


def test_sums_continue_after_a_resume(meter):
    add(meter, 1.0, samples=4, norm=2.0)
    meter.flush(1)
    other = StepMeter(["loss", "top1"], World())
    other.restore(*meter.state())
    for each in (meter, other):
        add(each, 2.0, samples=1, norm=3.0)
        each.flush(2)
    assert other.window_means() == meter.window_means() != {}
    assert np.isclose(other.epoch_means()["loss"], 6.0 / 5.0)

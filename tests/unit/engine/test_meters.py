"""Averages of what steps report."""

from __future__ import annotations

import math

import numpy as np
import paddle
import pytest

from passl.distributed.world import World
from passl.engine.meters import StepMeter


def add(meter: StepMeter, loss: float, samples: int = 2, norm: float = 1.0):
    sums = {"loss": paddle.to_tensor(loss * samples), "top1": paddle.to_tensor(1)}
    meter.add(sums, samples, paddle.to_tensor(norm))


@pytest.fixture
def meter() -> StepMeter:
    return StepMeter(["loss", "top1"], World())


def test_means_are_per_sample_and_norms_per_step(meter):
    add(meter, 1.0, samples=6, norm=1.0)
    add(meter, 3.0, samples=2, norm=5.0)
    meter.flush()
    assert meter.window_means() == {"loss": 1.5, "top1": 0.25, "grad_norm": 3.0}
    add(meter, 8.0, samples=8)
    meter.flush()
    assert meter.window_means()["loss"] == 8.0
    assert meter.epoch_means()["loss"] == 76.0 / 16.0


def test_reading_gives_the_figures_of_each_step_as_they_are(meter):
    add(meter, 1.0)
    add(meter, math.inf, samples=3, norm=math.nan)
    first, second = meter.flush()
    assert first == {"loss": 2.0, "top1": 1.0, "grad_norm": 1.0, "samples": 2.0}
    assert second["loss"] == math.inf
    assert math.isnan(second["grad_norm"])
    assert meter.flush() == []


def test_what_is_not_finite_is_left_out_of_the_averages(meter):
    add(meter, 1.0, samples=4, norm=2.0)
    add(meter, math.nan, samples=4, norm=math.nan)
    add(meter, 3.0, samples=4, norm=math.inf)  # only the gradients overflowed
    meter.flush()
    assert meter.window_means() == {"loss": 2.0, "top1": 0.25, "grad_norm": 2.0}


def test_a_window_without_any_figure_is_not_a_zero(meter):
    add(meter, math.inf, norm=math.nan)
    meter.flush()
    assert all(math.isnan(value) for value in meter.window_means().values())


def test_sums_continue_after_a_resume(meter):
    add(meter, 1.0, samples=4, norm=2.0)
    meter.flush()
    other = StepMeter(["loss", "top1"], World())
    other.restore(*meter.state())
    for each in (meter, other):
        add(each, 2.0, samples=1, norm=3.0)
        each.flush()
    assert other.window_means() == meter.window_means() != {}
    assert np.isclose(other.epoch_means()["loss"], 6.0 / 5.0)


def test_the_sums_of_all_processes_continue_in_one(meter):
    add(meter, 1.0, samples=2, norm=3.0)
    meter.flush()
    other = StepMeter(["loss", "top1"], World(rank=1))
    other.restore(*meter.state())
    window, epoch = other.state()
    assert window == epoch == {
        "loss": 0.0, "top1": 0.0, "samples": 0.0, "grad_norm": 3.0, "steps": 1.0,
    }  # fmt: skip

"""Speed of the loop, from a clock that the test moves."""

from __future__ import annotations

import pytest

from passl.logs.meters import Throughput


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def run_steps(speed, clock, steps):
    for reader_s, work_s, images in steps:
        clock.now += reader_s
        speed.data_ready()
        clock.now += work_s
        speed.step_done(images)


@pytest.fixture
def clock():
    return Clock()


def test_costs_are_means_over_the_window(clock):
    speed = Throughput(window=2, warm_up=0, clock=clock)
    run_steps(speed, clock, [(9.0, 9.0, 1), (0.1, 0.3, 8), (0.3, 0.3, 12)])
    assert speed.reader_cost_s == pytest.approx(0.2)
    assert speed.batch_cost_s == pytest.approx(0.5)
    assert speed.ips == pytest.approx(20.0)
    assert speed.eta_s(100) == pytest.approx(50.0)


def test_the_average_is_over_the_whole_run(clock):
    speed = Throughput(window=1, warm_up=0, clock=clock)
    run_steps(speed, clock, [(0.0, 1.0, 10), (0.0, 3.0, 30), (0.0, 1.0, 10)])
    assert speed.average_ips == pytest.approx(10.0)
    assert (speed.num_steps, speed.total_images) == (3, 50)


def test_warm_up_is_not_counted_but_shown_while_there_is_nothing_else(clock):
    speed = Throughput(window=10, warm_up=2, clock=clock)
    run_steps(speed, clock, [(1.0, 9.0, 5), (1.0, 4.0, 5)])
    assert speed.batch_cost_s == pytest.approx(5.0)
    assert speed.average_ips == 0.0
    run_steps(speed, clock, [(0.0, 0.5, 5)])
    assert speed.batch_cost_s == pytest.approx(0.5)
    assert speed.average_ips == pytest.approx(10.0)


def test_a_pause_is_not_counted(clock):
    speed = Throughput(warm_up=0, clock=clock)
    run_steps(speed, clock, [(0.0, 1.0, 4)])
    clock.now += 3600  # an evaluation
    speed.restart()
    run_steps(speed, clock, [(0.0, 1.0, 4)])
    assert speed.batch_cost_s == pytest.approx(1.0)
    assert speed.total_s == pytest.approx(2.0)


def test_before_the_first_step_everything_is_zero(clock):
    speed = Throughput(clock=clock)
    figures = (
        speed.batch_cost_s,
        speed.reader_cost_s,
        speed.ips,
        speed.average_ips,
        speed.eta_s(9),
    )
    assert figures == (0.0,) * 5

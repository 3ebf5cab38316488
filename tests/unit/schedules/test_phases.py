"""Soft masks and dropout for a part of a run, against means that published logs show."""

from __future__ import annotations

import numpy as np
import pytest

from passl.schedules.phases import cutoff_in_steps, early_rate, late_rate

STEPS = 312  # of an epoch of ImageNet in batches of 4096


def _mean_of_epoch(epoch: int, cutoff_epochs: int) -> float:
    cutoff = cutoff_in_steps(cutoff_epochs, 0, STEPS)
    steps = range(epoch * STEPS, (epoch + 1) * STEPS)
    values = [early_rate(step, rate=1.0, schedule="linear", cutoff=cutoff) for step in steps]
    return float(np.mean(values))


@pytest.mark.parametrize(
    ("cutoff_epochs", "epoch", "mean"),
    [
        (25, 0, 0.9800615463520972), (25, 1, 0.940056417489422),
        (50, 0, 0.9900314122700176), (50, 49, 0.009968587729982704), (50, 50, 0.0),
    ],
)
def test_linear_rates_average_to_those_of_the_published_logs(cutoff_epochs, epoch, mean):
    assert _mean_of_epoch(epoch, cutoff_epochs) == pytest.approx(mean, rel=1e-13)


@pytest.mark.parametrize(("rate", "cutoff"), [(1.0, 7), (0.37, 15600), (0.1, 2), (1.0, 1)])
def test_linear_rates_are_numpys(rate: float, cutoff: int):
    expected = np.linspace(rate, 0.0, cutoff)
    found = [early_rate(s, rate=rate, schedule="linear", cutoff=cutoff) for s in range(cutoff)]
    assert found == expected.tolist()
    assert early_rate(cutoff, rate=rate, schedule="linear", cutoff=cutoff) == 0.0


def test_constant_rates_hold_until_the_cutoff():
    values = [early_rate(step, rate=0.4, schedule="constant", cutoff=3) for step in range(5)]
    assert values == [0.4, 0.4, 0.4, 0.0, 0.0]
    assert early_rate(0, rate=1.0, schedule="constant", cutoff=0) == 0.0


def test_late_rates_begin_at_the_cutoff():
    assert [late_rate(step, rate=0.4, cutoff=3) for step in range(5)] == [0, 0, 0, 0.4, 0.4]


@pytest.mark.parametrize(
    ("epochs", "steps", "expected"), [(50, 0, 15600), (0.5, 0, 156), (0, 70, 70), (0, 0, 0)]
)
def test_cutoff_in_epochs_or_steps(epochs: float, steps: int, expected: int):
    assert cutoff_in_steps(epochs, steps, STEPS) == expected

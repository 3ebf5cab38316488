"""Sums of losses: exact, whatever the order and the shares."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from passl.engine.exact_sum import ExactSum


def total(*parts: np.ndarray) -> float:
    """The sum of several processes' parts."""
    whole = ExactSum()
    for part in parts:
        one = ExactSum()
        one.add(part)
        whole.counters = whole.counters + one.counters
    return whole.value()


def hard_numbers() -> np.ndarray:
    """Every size that float32 has, both signs, subnormal and largest ones, and what cancels."""
    draw = np.random.default_rng(0)
    powers = draw.integers(-149, 128, 4000)
    numbers = np.ldexp(draw.uniform(-1, 1, 4000), powers).astype(np.float32)
    ends = np.array([2**-149, -(2**-149), 3.4028235e38, 3.4028235e38, -1.0, 0.0], np.float32)
    return np.concatenate([numbers, -numbers[:1000], ends])


def test_the_sum_is_that_of_the_fractions_rounded_once():
    values = hard_numbers()
    expected = float(sum(map(Fraction, values.tolist()), Fraction(0)))
    assert total(values) == expected
    assert total(values) == math.fsum(values.tolist())


def test_order_and_shares_change_nothing():
    values = hard_numbers()
    expected = total(values)
    shuffled = np.random.default_rng(1).permutation(values)
    for shares in (2, 3, 7, 64):
        assert total(*np.array_split(shuffled, shares)) == expected
    # Plain addition does not manage it, even in double precision.
    assert values.sum(dtype=np.float64) != shuffled.sum(dtype=np.float64)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, math.inf], math.inf),
        ([-math.inf, 2.0], -math.inf),
        ([math.inf, -math.inf], math.nan),
        ([math.nan, 1.0], math.nan),
        ([], 0.0),
        ([-0.5, 0.5], 0.0),
    ],
)
def test_numbers_that_are_not_finite_are_not_lost(values, expected):
    assert total(np.array(values)) == pytest.approx(expected, nan_ok=True)


def test_more_samples_than_a_counter_of_32_bits_could_hold():
    one = ExactSum()
    one.add(np.full(1000, 1.9999999, np.float32))
    one.counters = one.counters * (5 * 10**8)
    expected = Fraction(float(np.float32(1.9999999))) * 1000 * 5 * 10**8
    assert one.value() == float(expected)

"""Lengths of time as people write them."""

from __future__ import annotations

import pytest

from passl.config.durations import parse_duration


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (90, 90.0),
        (0.5, 0.5),
        ("90s", 90.0),
        ("45m", 2700.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("2d 12h", 216000.0),
        ("1H 1M 1S", 3661.0),
    ],
)
def test_a_length_of_time_is_understood(value, seconds):
    assert parse_duration(value) == seconds


@pytest.mark.parametrize(
    "value", ["", "h", "90", "30m1h", "1h30", "-1h", "0s", 0, -5, float("inf"), float("nan")]
)
def test_anything_else_is_refused_with_an_example(value):
    with pytest.raises(ValueError, match="write seconds, or 45m, 1h30m, 2d"):
        parse_duration(value)

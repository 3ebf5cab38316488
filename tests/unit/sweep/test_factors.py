"""What is typed after --grid and --random means one thing, and a mistake in it is said."""

from __future__ import annotations

import math

import pytest

from passl.errors import ConfigError
from passl.sweep.factors import parse_grid, parse_random, split_values


def grid(text: str) -> list[str]:
    (factor,) = parse_grid([text])
    return [value.label for value in factor.values]


def test_a_list_is_split_at_its_own_commas_only():
    assert split_values("1e-3,3e-3") == ["1e-3", "3e-3"]
    assert split_values("[0.9, 0.99], [0.9, 0.95]") == ["[0.9, 0.99]", "[0.9, 0.95]"]
    assert split_values("{a: 1, b: [1,2]},null") == ["{a: 1, b: [1,2]}", "null"]
    assert split_values("'a,b',\"c\"") == ["'a,b'", '"c"']
    assert split_values("it's,here") == ["it's", "here"]


@pytest.mark.parametrize("text", ["[1,2", "1]", "'a,b"])
def test_a_bracket_or_quote_without_its_other_half_is_refused(text):
    with pytest.raises(ConfigError):
        split_values(text)


def test_values_mean_what_they_mean_after_o():
    (factor,) = parse_grid(["K.k=1e-3,true,null,text,(0.9,0.95),1/4"])
    values = [value.data for value in factor.values]
    assert values == [0.001, True, None, "text", (0.9, 0.95), 0.25]
    assert [value.text for value in factor.values][-1] == "1/4"


def test_the_label_is_the_same_however_a_number_is_written():
    assert grid("K.k=1e-3,0.002") == ["0.001", "0.002"]
    with pytest.raises(ConfigError, match=r"0\.001 is listed twice"):
        parse_grid(["K.k=1e-3,0.001"])


def test_spaced_values_include_both_ends_and_have_equal_ratios_or_steps():
    assert grid("K.k=log(1e-4,1e-2,5)") == ["0.0001", "0.0003162", "0.001", "0.003162", "0.01"]
    assert grid("K.k=linear(0,0.3,4)") == ["0.0", "0.1", "0.2", "0.3"]


def test_draws_stay_within_their_bounds_and_have_few_digits():
    drawn = parse_random(["A.a=log(1e-4,1e-2)", "A.b=uniform(-1,0.3)", "A.c=int(1,3)", "A.d=x,y"])
    for trial in range(200):
        log, uniform, whole, choice = (factor.value(7, trial).data for factor in drawn)
        assert 1e-4 <= log <= 1e-2
        assert log == float(f"{log:.4g}")
        assert -1 <= uniform <= 0.3
        assert whole in (1, 2, 3)
        assert isinstance(whole, int)
        assert choice in ("x", "y")


def test_log_draws_are_even_in_the_logarithm():
    (factor,) = parse_random(["A.a=log(1e-4,1e-2)"])
    logs = [math.log10(factor.value(0, trial).data) for trial in range(2000)]
    below = sum(log < -3 for log in logs) / len(logs)
    assert abs(below - 0.5) < 5 * 0.5 / math.sqrt(len(logs))  # five standard errors


def test_a_draw_depends_on_its_seed_key_and_trial_alone():
    one = parse_random(["A.a=log(1e-4,1e-2)"])[0]
    other = parse_random(["A.b=int(1,9)", "A.a=log(1e-4,1e-2)"])[1]
    assert [one.value(0, n) for n in range(5)] == [other.value(0, n) for n in range(5)]
    assert one.value(0, 0) != one.value(1, 0)
    assert one.value(0, 0) != one.value(0, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("K.k", "write KEY=VALUE,VALUE"),
        ("K.k=", "write KEY=VALUE,VALUE"),
        ("~K.k=1", "belongs to -o"),
        ("K..k=1", "an empty name"),
        ("K.k=1,,2", "a value is empty"),
        ("K.k=exp(1,2)", r"--grid does not know exp\(...\)"),
        ("K.k=uniform(1,2)", r"--grid does not know uniform"),
        ("K.k=log(1,2)", "log takes 3 numbers after --grid"),
        ("K.k=log(0,2,3)", "numbers above 0"),
        ("K.k=log(1,2,2.5)", "whole number from 2"),
        ("K.k=log(1,1,3)", "are the same"),
        ("K.k=log(1,x,3)", "'x' is not a number"),
        ("K.k=log(1,1/0,3)", "--grid K.k"),
        ("K.k={a: 1", "a bracket is never closed"),
    ],
)
def test_a_mistake_in_a_grid_is_a_sentence(text, said):
    with pytest.raises(ConfigError, match=said):
        parse_grid([text])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("K.k=log(1e-2,1e-4)", "0.01 must be less than 0.0001"),
        ("K.k=log(-1,1)", "numbers above 0"),
        ("K.k=int(0.5,3)", "two whole numbers"),
        ("K.k=__import__('os')", "does not know __import__"),
        ("K.k=log(1,2,3)", "log takes 2 numbers after --random"),
    ],
)
def test_a_mistake_in_a_draw_is_a_sentence(text, said):
    with pytest.raises(ConfigError, match=said):
        parse_random([text])


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        parse_grid(["A.a", "B.b=1,,2", "C.c=1"])
    assert len(caught.value.problems) == 2

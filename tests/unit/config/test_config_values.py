"""What unquoted words mean, and how values meet the types they are wanted as."""

from __future__ import annotations

import math

import pytest

from passl.config.numeric import NumberError, parse_plain, ratio_giving


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-3", 0.003), ("1e-8", 1e-8), ("1E5", 1e5), (".5", 0.5), ("5.", 5.0), ("-3", -3),
        ("+4", 4),
        ("1.0/255.0", 1.0 / 255.0), ("2**16", 65536), ("2**-1", 0.5), ("-2**2", -4),
        ("2**3**2", 512),
        ("4096/8", 512.0), ("3*5e-4", 3 * 5e-4), ("(1 + 2) * 3", 9), ("1 - 1", 0),
        ("1+1", 2), ("-(1/4)", -0.25),
        ("10_000", 10000), ("0x10", 16), ("0o17", 15), ("017", 17),
        ("(0.9, 0.999)", (0.9, 0.999)), ("(224,)", (224,)), ("( 1/2 , -3e-4, )", (0.5, -3e-4)),
        ("((1), (2))", (1, 2)),
        (".inf", math.inf), ("-.inf", -math.inf),
        ("true", True), ("False", False), ("null", None), ("~", None), ("None", None), ("", None),
    ],
)  # fmt: skip
def test_numbers_people_write_become_numbers(text, value):
    parsed = parse_plain(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "on", "off", "yes", "no", "y", "tRUE", "nil", "2021-11-12", "12:30:45", "05/06",
        "rand-m9-mstd0.5", "1.2.3",
        "3e-", "e5", "-", ".", "...", "()", "(,)", "(1 2)", "1 2", "((1, 2), 3)", "(1, 2",
        "1 +", "__import__('os')",
        "1_", "0x", "2(3)", "1//2", "1e5e5", "4%2", "(1)(2)", "1-1", "ViT_base_patch16_224",
    ],
)  # fmt: skip
def test_everything_else_stays_text(text):
    assert parse_plain(text) == text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1/0", "'1/0' divides by zero"),
        ("0**-1", "'0**-1' divides by zero"),
        ("9**9**9", "'9**9**9' is too large a number"),
        ("2**2000", "'2**2000' is too large a number"),
        ("10.0**400", "'10.0**400' is too large a number"),
        ("(1e308*10, 1)", "'(1e308*10, 1)' is too large a number"),
        ("1e999", "'1e999' is too large a number"),
        ("(-8)**0.5", "'(-8)**0.5' is too large a number"),
        ("9" * 5000, "a number of 5000 digits is too large"),
    ],
)
def test_arithmetic_without_a_usable_result_is_refused(text, sentence):
    with pytest.raises(NumberError) as error:
        parse_plain(text)
    assert str(error.value) == sentence


def test_hostile_arithmetic_is_answered_at_once():
    deep = "(" * 90 + "1" + ")" * 90
    assert parse_plain(deep) == deep
    assert parse_plain("-" * 150 + "1") == "-" * 150 + "1"
    long = "1*" * 5000 + "1"
    assert parse_plain(long) == long


HEAD = "Global: {imports: [fake_parts]}\n"


def test_numbers_in_lists_and_inside_flow_mappings_are_read_too(load):
    config = load(
        HEAD + "Model: {name: ToyNet, dims: [2**3, 1e1], anything: [1.0/4, {a: 3e-3}, None, on]}\n"
    )
    assert config.Model["dims"] == (8, 10)
    assert config.Model["anything"] == [0.25, {"a": 0.003}, None, "on"]


def test_a_whole_float_is_a_whole_number_where_one_is_wanted(load):
    config = load(HEAD + "Model: {name: ToyNet, width: 1e3, drop_rate: 0}\n")
    assert (config.Model["width"], type(config.Model["width"])) == (1000, int)
    assert (config.Model["drop_rate"], type(config.Model["drop_rate"])) == (0.0, float)


@pytest.mark.parametrize("text", [".inf", "-.inf", ".nan"])
def test_a_number_is_finite_where_one_is_wanted(load, problems, text):
    found = problems(HEAD + f"Optimizer: {{name: ToyOpt, grad_clip: {{clip_norm: {text}}}}}\n")
    finite = "" if text == ".nan" else "finite "
    assert f"clip_norm: expected a {finite}number above 0, found" in "".join(found)
    config = load(HEAD + f"Model: {{name: ToyNet, anything: [{text}]}}\n")
    assert not math.isfinite(config.Model["anything"][0])


def test_quotes_make_text(load, problems):
    assert (
        load(HEAD + "Model: {name: ToyNet, note: '1/2', anything: '3e-3'}\n").Model["anything"]
        == "3e-3"
    )
    assert problems(HEAD + "Model: {name: ToyNet, width: '3'}\n") == [
        "x.yaml:2: Model.width: expected a whole number of at least 1, found '3' (text); remove "
        "the quotes"
    ]


@pytest.mark.parametrize("text", ["1/2", "10_000", "2**16", "(1, 2)"])
def test_arithmetic_is_text_where_text_is_wanted(load, text):
    """YAML calls it text, so only a place that wants a number makes one of it."""
    config = load(HEAD + f"Model:\n  name: ToyNet\n  note: {text}\n")
    assert config.Model["note"] == text


def test_a_plain_number_is_not_text(problems):
    assert problems(HEAD + "Model: {name: ToyNet, note: 12}\n") == [
        "x.yaml:2: Model.note: expected text, found 12; put it in quotes"
    ]


def test_a_ratio_gives_back_the_width_it_is_of_also_with_the_digits_that_are_shown():
    """``int(704 * (1920 / 704))`` is 1919, and ``3.73611``, as ``:g`` has it, 4303 of 1152."""
    assert ratio_giving(3072, 768) == 4.0
    for factor in range(32, 2049, 32):
        for product in (*range(1, 9000, 37), 1920, 4304):
            ratio = ratio_giving(product, factor)
            assert int(factor * ratio) == product
            assert int(factor * float(f"{ratio:g}")) == product

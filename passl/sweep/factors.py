"""What varies in a sweep: ``KEY=VALUES`` as typed, read by a small grammar and never evaluated.

    factor  := KEY "=" (list | spaced | drawn)
    list    := value ("," value)*          each is YAML, as after -o; commas in brackets or quotes
                                           belong to the value: [0.9,0.99],[0.9,0.95]
    spaced  := "log(" a "," b "," n ")"    n values from a to b, equal ratios         (grid only)
             | "linear(" a "," b "," n ")" n values from a to b, equal steps          (grid only)
    drawn   := "log(" a "," b ")"          between a and b, evenly in the logarithm   (random only)
             | "uniform(" a "," b ")"      between a and b, evenly                    (random only)
             | "int(" a "," b ")"          a whole number from a to b, both included  (random only)

A list after ``--random`` is drawn from, each value as likely as another.  Drawn and spaced numbers
have four significant digits, so that names stay readable and repeat exactly what was run.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

from passl.config.numeric import NumberError, parse_plain
from passl.config.tree import plain
from passl.config.yaml_tree import parse_yaml
from passl.errors import ConfigError

__all__ = ["Drawn", "Factor", "Value", "parse_grid", "parse_random", "split_values"]

_CALL = re.compile(r"(?P<name>[A-Za-z_]+)\((?P<inside>.*)\)\Z", re.DOTALL)
_OPENING, _CLOSING = "([{", ")]}"
_DIGITS = 4  # significant ones of numbers that are computed here
_MOST_VALUES = 1000  # of one factor


@dataclass(frozen=True)
class Value:
    """One value of a factor.

    Attributes:
        text: what goes behind ``KEY=`` of an override.
        data: what the text means, plain Python data.
    """

    text: str
    data: Any

    @property
    def label(self) -> str:
        """The same for all ways to write the value: ``1e-3`` and ``0.001`` are ``0.001``."""
        return _label(self.data)


@dataclass(frozen=True)
class Factor:
    """A key and the values it takes one after the other."""

    key: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Drawn:
    """A key and how its values are drawn.

    Attributes:
        key: dotted path.
        text: as typed.
        draw: random numbers -> a value.
    """

    key: str
    text: str
    draw: Callable[[random.Random], Value]

    def value(self, seed: int, trial: int) -> Value:
        """The value of a trial: the same however many trials and factors there are."""
        return self.draw(random.Random(f"{seed}/{self.key}/{trial}"))


def parse_grid(texts: Sequence[str]) -> list[Factor]:
    """The factors after ``--grid``.

    Raises:
        ConfigError: every mistake.
    """
    return _parse_all("--grid", texts, _grid_factor)


def parse_random(texts: Sequence[str]) -> list[Drawn]:
    """The factors after ``--random``.

    Raises:
        ConfigError: every mistake.
    """
    return _parse_all("--random", texts, _drawn_factor)


def split_values(text: str) -> list[str]:
    """``text`` at its commas, without those inside brackets and quotes.

    Raises:
        ConfigError: a bracket or a quote is never closed.
    """
    parts, start, depth, quote = [], 0, 0, ""
    for position, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'" and not text[start:position].strip():
            quote = letter  # only at the beginning of a value: it's may stand inside one
        elif letter in _OPENING:
            depth += 1
        elif letter in _CLOSING:
            depth -= 1
            if depth < 0:
                raise ConfigError(f"a {letter!r} without its opening bracket")
        elif letter == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    if quote or depth:
        raise ConfigError("a quote is never closed" if quote else "a bracket is never closed")
    return [part.strip() for part in (*parts, text[start:])]


# -- inside ------------------------------------------------------------------------------------


def _parse_all(option: str, texts: Sequence[str], parse: Callable[[str, str], Any]) -> list[Any]:
    found, problems = [], []
    for text in texts:
        try:
            found.append(parse(*_key_and_values(text)))
        except ConfigError as error:
            problems += [f"{option} {text}: {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(problems)
    return found


def _key_and_values(text: str) -> tuple[str, str]:
    key, equals, values = text.partition("=")
    key = key.strip()
    if not equals or not values.strip():
        raise ConfigError("write KEY=VALUE,VALUE, such as LRScheduler.learning_rate=1e-3,3e-3")
    if key[:1] in ("~", "+"):
        raise ConfigError(f"a sweep sets keys; {key[0]!r} belongs to -o, which holds for all runs")
    if not all(part.strip() for part in key.split(".")):
        raise ConfigError("an empty name in the key; write Section.key=VALUE,VALUE")
    return key, values.strip()


def _grid_factor(key: str, text: str) -> Factor:
    called = _call(text, {"log": 3, "linear": 3}, "--grid")
    if called is None:
        values = [_value(part) for part in split_values(text)]
    else:
        values = [_number(number) for number in _spaced(*called)]
    labels = [value.label for value in values]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ConfigError(f"{', '.join(twice)} is listed twice; each value makes one run")
    return Factor(key, tuple(values))


def _drawn_factor(key: str, text: str) -> Drawn:
    called = _call(text, {"log": 2, "uniform": 2, "int": 2}, "--random")
    if called is None:
        values = tuple(_value(part) for part in split_values(text))
        return Drawn(key, text, lambda numbers: values[numbers.randrange(len(values))])
    name, (low, high) = called
    if not low < high:
        raise ConfigError(f"{low:g} must be less than {high:g}")
    if name == "int":
        if not (low.is_integer() and high.is_integer()):
            raise ConfigError("int takes two whole numbers")
        first, last = int(low), int(high)
        return Drawn(key, text, lambda numbers: _number(numbers.randint(first, last)))
    if name == "uniform":
        return Drawn(key, text, lambda n: _number(_within(n.uniform(low, high), low, high)))
    _demand_positive(low, high)
    logs = math.log(low), math.log(high)
    return Drawn(key, text, lambda n: _number(_within(math.exp(n.uniform(*logs)), low, high)))


def _call(
    text: str, arguments: dict[str, int], option: str
) -> Optional[tuple[str, tuple[float, ...]]]:
    """Name and numbers of ``log(1e-4, 1e-2)``; None if the text is a list of values.

    Raises:
        ConfigError: it is no such call, or its arguments are wrong.
    """
    match = _CALL.match(text)
    if match is None or len(split_values(text)) > 1:
        return None
    name, inside = match["name"], split_values(match["inside"])
    known = {
        "log": {2: "log(LOW,HIGH)", 3: "log(FIRST,LAST,COUNT)"},
        "linear": {3: "linear(FIRST,LAST,COUNT)"},
        "uniform": {2: "uniform(LOW,HIGH)"},
        "int": {2: "int(LOW,HIGH)"},
    }
    forms = [known[each][count] for each, count in arguments.items()]
    if name not in arguments:
        raise ConfigError(
            f"{option} does not know {name}(...); write values, or {', '.join(forms)}"
        )
    if len(inside) != arguments[name]:
        raise ConfigError(
            f"{name} takes {arguments[name]} numbers after {option}: "
            f"{known[name][arguments[name]]}; found {len(inside)}"
        )
    return name, tuple(_argument(part) for part in inside)


def _argument(text: str) -> float:
    try:
        value = parse_plain(text)
    except NumberError as error:
        raise ConfigError(str(error)) from error
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f"{text!r} is not a number")
    return float(value)


def _spaced(name: str, numbers: tuple[float, ...]) -> list[float]:
    first, last, count = numbers
    if not count.is_integer() or not 2 <= count <= _MOST_VALUES:
        raise ConfigError(f"the count must be a whole number from 2 to {_MOST_VALUES}")
    if first == last:
        raise ConfigError("the first and the last value are the same")
    parts = [step / (int(count) - 1) for step in range(int(count))]
    if name == "log":
        _demand_positive(first, last)
        values = [first * (last / first) ** part for part in parts]
    else:
        values = [first + (last - first) * part for part in parts]
    return [_within(value, min(first, last), max(first, last)) for value in values]


def _demand_positive(*bounds: float) -> None:
    if min(bounds) <= 0:
        raise ConfigError("log needs numbers above 0")


def _within(value: float, low: float, high: float) -> float:
    """``value`` with few digits, and not beyond the bounds by rounding."""
    return min(max(float(f"{value:.{_DIGITS}g}"), low), high)


def _number(value: float) -> Value:
    return Value(repr(value), value)


def _value(text: str) -> Value:
    if not text:
        raise ConfigError("a value is empty (two commas in a row?); write null for none")
    problems: list[str] = []
    node = parse_yaml(text, lambda _line: text, problems)
    if problems:
        raise ConfigError(problems)
    return Value(text, None if node is None else plain(node))


def _label(data: Any) -> str:
    if data is None or isinstance(data, bool):
        return {None: "null", True: "true", False: "false"}[data]
    if isinstance(data, (list, tuple)):
        return f"[{','.join(map(_label, data))}]"
    if isinstance(data, dict):
        return "{" + ",".join(f"{key}:{_label(value)}" for key, value in data.items()) + "}"
    return repr(data) if isinstance(data, float) else str(data)

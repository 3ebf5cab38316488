"""What an unquoted word of YAML means: null, true, a number, or text.

YAML 1.1, which PyYAML follows, takes ``3e-3`` for text, ``on`` for true and ``010`` for eight.
Here the core schema of YAML 1.2 holds (only ``true`` and ``false`` are bools), plus what people who
train models write: ``None``, ``1.0/255.0``, ``2**16``, ``(0.9, 0.999)``.  Such arithmetic is
computed by the small parser below; nothing is ever evaluated as Python.

    value  := tuple | sum
    tuple  := "(" [sum ("," sum)* [","]] ")"      with at least one comma, or empty
    sum    := term (("+" | " - ") term)*          minus between blanks: 2021-11-12 stays text
    term   := factor (("*" | "/") factor)*
    factor := ("+" | "-") factor | power
    power  := atom ["**" factor]
    atom   := number | "(" sum ")"

Source: YAML 1.2.2, section 10.3 (core schema).
"""

from __future__ import annotations

import math
import re
from typing import Any, Optional, Union

__all__ = ["NumberError", "is_extension", "parse_number", "parse_plain", "ratio_giving"]

_NULLS = {"", "~", "null", "Null", "NULL", "None"}
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_SPECIAL = {
    "inf": math.inf,
    "Inf": math.inf,
    "INF": math.inf,
    "nan": math.nan,
    "NaN": math.nan,
    "NAN": math.nan,
}
_INT = re.compile(r"[-+]?[0-9]+\Z")
_BASED = re.compile(r"0(?:o[0-7]+|x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_SPECIAL_FLOAT = re.compile(r"([-+]?)\.(inf|Inf|INF|nan|NaN|NAN)\Z")

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+(?:_\d+)*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)|(?P<op>\*\*|[-+*/(),]))"
)
_EXPRESSION = re.compile(r"[\s0-9eE_.+\-*/(),]*\d[\s0-9eE_.+\-*/(),]*\Z")
_MAX_LENGTH = 200
_MAX_DEPTH = 20
_MAX_EXPONENT = 1024.0
_MAX_BITS = 1024

_Number = Union[int, float]
Value = Union[_Number, tuple[_Number, ...]]


class NumberError(ValueError):
    """Arithmetic that is well formed but has no usable result; the text is a sentence."""


def parse_plain(text: str) -> Any:
    """The value of an unquoted scalar.

    Raises:
        NumberError: it is arithmetic without a result, such as ``1/0``.
    """
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if _INT.match(text):
        return _whole(text)
    if _BASED.match(text):
        return int(text, 0)
    if _FLOAT.match(text):
        return _finite(text)
    special = _SPECIAL_FLOAT.match(text)
    if special:
        return (
            -_SPECIAL[special.group(2)] if special.group(1) == "-" else _SPECIAL[special.group(2)]
        )
    number = parse_number(text)
    return text if number is None else number


def ratio_giving(product: int, factor: int) -> float:
    """The number with the fewest digits of which ``int(factor * number)`` is ``product``.

    ``product / factor`` itself may be a last bit too small: ``int(704 * (1920 / 704))`` is 1919.

    Args:
        product, factor: at least 1.
    """
    inside = (product + 0.25) / factor  # clear of both ends of what gives the product
    rounded = (float(f"{inside:.{digits}g}") for digits in range(1, 17))
    return next((number for number in rounded if int(factor * number) == product), inside)


def is_extension(text: str, value: Any) -> bool:
    """YAML 1.2 would call ``text`` text, although ``value`` was made of it."""
    return (
        isinstance(value, (int, float, tuple))
        and not isinstance(value, bool)
        and not any(pattern.match(text) for pattern in (_INT, _BASED, _FLOAT, _SPECIAL_FLOAT))
    )


def parse_number(text: str) -> Optional[Value]:
    """The result of an arithmetic expression or tuple; None if ``text`` is not one.

    Raises:
        NumberError: a division by zero, or a result too large to be meant.
    """
    if len(text) > _MAX_LENGTH or not _EXPRESSION.match(text):
        return None
    tokens = _tokens(text)
    if tokens is None:
        return None
    parser = _Parser(tokens)
    try:
        value = parser.value()
    except _SyntaxError:
        return None
    except ZeroDivisionError:
        raise NumberError(f"{text!r} divides by zero") from None
    except OverflowError:
        raise NumberError(f"{text!r} is too large a number") from None
    return value


class _SyntaxError(Exception):
    """The text is not of the grammar, so it is just text."""


def _whole(text: str) -> int:
    if len(text) > 300:  # Python refuses some thousand digits; nobody means such a number
        raise NumberError(f"a number of {len(text)} digits is too large")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise NumberError(f"{text!r} is too large a number")
    return number


def _tokens(text: str) -> Optional[list[tuple[str, bool]]]:
    """``(token, blanks on both sides)`` of the text; None if it has other characters."""
    text = text.strip()
    found, position = [], 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return None
        start, end = match.start(match.lastgroup or 0), match.end()
        spaced = text[start - 1 : start].isspace() and text[end : end + 1].isspace()
        found.append((text[start:end], spaced))
        position = end
    return found


class _Parser:
    """Recursive descent over the tokens of one expression; raises :class:`_SyntaxError`."""

    def __init__(self, tokens: list[tuple[str, bool]]) -> None:
        self.tokens = tokens
        self.position = 0
        self.depth = 0

    def value(self) -> Value:
        result = self._tuple() if self._is_tuple() else self._sum()
        if self.position != len(self.tokens):
            raise _SyntaxError
        return result

    def _is_tuple(self) -> bool:
        words = [token for token, _ in self.tokens]
        if words[0] != "(" or words[-1] != ")":
            return False
        depth = 0
        for word in words:  # a comma between the outermost parentheses
            depth += (word == "(") - (word == ")")
            if word == "," and depth == 1:
                return True
        return False

    def _tuple(self) -> tuple[_Number, ...]:
        self._take()
        items = [self._sum()]
        while self._next() == ",":
            self._take()
            if self._next() == ")":
                break
            items.append(self._sum())
        self._expect(")")
        return tuple(items)

    def _sum(self) -> _Number:
        result = self._term()
        while self._next() in ("+", "-"):
            operator, spaced = self.tokens[self.position]
            if operator == "-" and not spaced:
                raise _SyntaxError
            self._take()
            right = self._term()
            result = result + right if operator == "+" else result - right
        return _bounded(result)

    def _term(self) -> _Number:
        result = self._factor()
        while self._next() in ("*", "/"):
            operator = self._take()
            right = self._factor()
            result = _bounded(result * right if operator == "*" else result / right)
        return result

    def _factor(self) -> _Number:
        if self._next() in ("+", "-"):
            self._deeper()
            sign = self._take()
            value = self._factor()
            return value if sign == "+" else -value
        return self._power()

    def _power(self) -> _Number:
        base = self._atom()
        if self._next() != "**":
            return base
        self._take()
        self._deeper()
        exponent = self._factor()
        if abs(exponent) > _MAX_EXPONENT or (base < 0 and not float(exponent).is_integer()):
            raise OverflowError
        if (
            isinstance(base, int)
            and isinstance(exponent, int)
            and base.bit_length() * exponent > _MAX_BITS
        ):
            raise OverflowError
        return _bounded(base**exponent)

    def _atom(self) -> _Number:
        word = self._take()
        if word == "(":
            self._deeper()
            result = self._sum()
            self._expect(")")
            return result
        if not word[0].isdigit() and word[0] != ".":
            raise _SyntaxError
        if re.match(r"0\d", word):  # 05 is a date's or a name's part, not arithmetic
            raise _SyntaxError
        digits = word.replace("_", "")
        return int(digits) if digits.isdigit() else _bounded(float(digits))

    def _next(self) -> str:
        return self.tokens[self.position][0] if self.position < len(self.tokens) else ""

    def _take(self) -> str:
        token = self._next()
        if not token:
            raise _SyntaxError
        self.position += 1
        return token

    def _expect(self, token: str) -> None:
        if self._take() != token:
            raise _SyntaxError

    def _deeper(self) -> None:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise _SyntaxError


def _bounded(number: _Number) -> _Number:
    too_large = math.isinf(number) if isinstance(number, float) else number.bit_length() > _MAX_BITS
    if too_large:
        raise OverflowError
    return number

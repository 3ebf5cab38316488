"""The words of the checker: what was found, what was expected, what to type instead."""

from __future__ import annotations

from passl.config.numeric import NumberError, parse_plain
from passl.config.places import nested_section
from passl.config.suggest import did_you_mean, nearest
from passl.config.tree import Leaf, ListNode, MapNode, Node
from passl.registry import REGISTRIES
from passl.typespec import Problem, TypeSpec

__all__ = ["article", "expectation", "shown", "value_hint"]

_YES_NO = {
    "on": "true",
    "yes": "true",
    "y": "true",
    "true": "true",
    "off": "false",
    "no": "false",
    "n": "false",
    "false": "false",
}


def value_hint(problem: Problem, node: Node) -> str:
    """What to type instead, where that can be known."""
    found = problem.found
    if problem.choices:
        words = [str(word) for word in problem.choices]
        return did_you_mean(str(found), words) if nearest(str(found), words) else ""
    if isinstance(found, str) and found.startswith("(") and not found.endswith(")"):
        return "; between braces write [a, b] instead of (a, b)"
    message = problem.message
    if isinstance(found, str) and "number" in message and _reads_as_number(found):
        return "; remove the quotes"
    if "true or false" in message and str(found).lower() in _YES_NO:
        return f"; write {_YES_NO[str(found).lower()]}"
    if "true or false" in message and found in (0, 1) and not isinstance(found, bool):
        return f"; write {'true' if found else 'false'}"
    if (
        message.startswith("expected text,")
        and isinstance(node, Leaf)
        and isinstance(found, (bool, int, float))
    ):
        return "; put it in quotes"
    return ""


def expectation(spec: TypeSpec) -> str:
    """What a key of this type takes, in words."""
    if nested_section(spec) is not None:
        return "a mapping"
    if spec.component is not None:
        noun = REGISTRIES[spec.component].singular
        return (
            f"a list of {noun}s"
            if spec.kind == "list"
            else f"{article(noun)} ('name: X' and its arguments)"
        )
    return spec.describe()


def shown(node: Node) -> str:
    """A found value, in words."""
    if isinstance(node, MapNode):
        return "a mapping"
    if isinstance(node, ListNode):
        return "a list"
    if node.value is None:
        return "null"
    if isinstance(node.value, bool):
        return str(node.value).lower()
    return repr(node.value) + (" (text)" if isinstance(node.value, str) else "")


def article(noun: str) -> str:
    """``a loss``, ``an optimizer``."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _reads_as_number(text: str) -> bool:
    """Text that, without quotes, would have been a number."""
    try:
        return isinstance(parse_plain(text), (int, float))
    except NumberError:
        return False

"""A converter as data: which tensor becomes which, and by what operation.

    Rule("blocks.{i}.attn.qkv.weight", ("encoder.{i}.q", "encoder.{i}.k", "encoder.{i}.v"),
         "concat_qkv_transposed")
    Drop("pooler.*", "the pooler is no part of a classifier")

``{i}``, ``{s}``, ... stand for a number and mean the same number on both sides; ``*`` is only for
:class:`Drop` and stands for anything.  A :class:`Family` is a list of such rows with what else is
known of the files of one origin.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, Optional, Union

from passl.checkpoint.convert.operations import OPERATIONS

__all__ = ["Drop", "Family", "PosEmbedMethod", "Rule", "linear", "matcher", "norm", "numbered"]

#: How a position embedding of this origin is resized for another image size.
PosEmbedMethod = Literal["bicubic", "bicubic_antialias", "bilinear", "zoom"]

_PLACEHOLDER = re.compile(r"\{(\w)([+-]\d+)?\}")


@dataclass(frozen=True)
class Rule:
    """One row: ``target`` is made of ``sources`` by ``operation``.

    Args:
        target: our name.
        sources: names in the file, as many as the operation takes.
        operation: a key of :data:`~passl.checkpoint.convert.operations.OPERATIONS`.
        stacked: the sources hold all layers along a first axis, which becomes ``{i}``.
        when: the rule is left out where the file has no tensor of this name.
        unless: the rule is left out where the file has a tensor of this name.
        alternative: another operation of which a model computes the same, taken where the model's
            tensor has the shape of its result.
        if_absent: the reason to give for leaving the tensor out where the model has none such;
            empty where that is a mistake.
    """

    target: str
    sources: tuple[str, ...]
    operation: str = "copy"
    stacked: bool = False
    when: Optional[str] = None
    unless: Optional[str] = None
    alternative: str = ""
    if_absent: str = ""

    def __post_init__(self) -> None:
        assert OPERATIONS[self.operation].num_sources == len(self.sources), self


@dataclass(frozen=True)
class Drop:
    """One row: tensors called ``pattern`` are not used, because of ``reason``."""

    pattern: str
    reason: str


@dataclass(frozen=True)
class Family:
    """The files of one origin.

    Args:
        name: what ``--from`` takes.
        title: what it is, for people.
        rows: rules and drops; the first that matches a name counts.
        version: raised whenever a row changes what it does; stored with the result.
        layout: how the origin stores a Linear weight, where names alone do not tell.
        strip: regular expression of a prefix that names may have.
        pos_embed_method: what this origin uses for another image size.
        epsilon: of its layer normalisations; no file says it.
        notes: what a user of such weights must know.
        notes_if: likewise, of weights of which a tensor of ours begins so: (beginning, note).
        source: where the names come from.
    """

    name: str
    title: str
    rows: tuple[Union[Rule, Drop], ...]
    pos_embed_method: PosEmbedMethod
    source: str
    version: int = 1
    layout: Literal["torch", "paddle", "flax"] = "torch"
    strip: str = ""
    epsilon: float = 1e-6
    notes: tuple[str, ...] = field(default=())
    notes_if: tuple[tuple[str, str], ...] = field(default=())

    @property
    def table_version(self) -> str:
        """``"google-1"``: stored with what the table made."""
        return f"{self.name}-{self.version}"


def linear(target: str, source: str, operation: str = "transpose") -> tuple[Rule, Rule]:
    """The rows of a Linear layer: its weight by ``operation``, its bias as it is."""
    return (
        Rule(f"{target}.weight", (f"{source}.weight",), operation),
        Rule(f"{target}.bias", (f"{source}.bias",)),
    )


def norm(target: str, source: str) -> tuple[Rule, Rule]:
    """The rows of a normalisation or of a convolution that is stored as ours."""
    return linear(target, source, "copy")


@cache
def matcher(pattern: str) -> re.Pattern[str]:
    """The regular expression of a pattern of a row; placeholders are its groups by name."""
    text, position, seen = "", 0, set()
    for found in _PLACEHOLDER.finditer(pattern):
        text += _literal(pattern[position : found.start()])
        letter = found[1]
        text += f"(?P={letter})" if letter in seen else rf"(?P<{letter}>0|[1-9]\d*)"
        seen.add(letter)
        position = found.end()
    return re.compile(text + _literal(pattern[position:]))


def numbered(pattern: str, numbers: dict[str, int]) -> str:
    """``pattern`` with its placeholders filled in; ``{i+1}`` is one more."""
    return _PLACEHOLDER.sub(
        lambda found: str(numbers[found[1]] + int(found[2] or 0)), pattern
    )


def _literal(text: str) -> str:
    return ".*".join(re.escape(part) for part in text.split("*"))

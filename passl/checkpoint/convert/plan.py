"""Applying a family's table to the names and shapes of a file; nothing is read yet."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Optional

from passl.checkpoint.convert.operations import OPERATIONS, Shape
from passl.checkpoint.convert.rules import Drop, Family, Rule, matcher, numbered
from passl.errors import CheckpointError

__all__ = ["TORCH_PREFIXES", "Names", "Plan", "Use", "make_plan", "num_known"]

_MASTER = "master_weights/"
#: What torch's data-parallel and compiled models and Lightning's modules put before every name.
TORCH_PREFIXES = r"(?:module\.|_orig_mod\.|model\.|net\.|backbone\.)*"
_NUM_LISTED = 10
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Use:
    """How one tensor of ours is made.

    Attributes:
        sources: names in the file.
        operation: a key of :data:`~passl.checkpoint.convert.operations.OPERATIONS`.
        layer: index into the first axis of sources that hold all layers; None for others.
    """

    sources: tuple[str, ...]
    operation: str
    layer: Optional[int] = None

    def __str__(self) -> str:
        index = "" if self.layer is None else f"[{self.layer}]"
        return f"{self.operation}({', '.join(name + index for name in self.sources)})"


@dataclass
class Names:
    """Names of a file as a table knows them: without prefixes, masters in place of halves.

    Attributes:
        stored: name as the table knows it -> name in the file.
        dropped: name in the file -> why it is not used.
    """

    stored: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Sequence[str], family: Family) -> Names:
        """The names of a file.

        Args:
            names: as they are in the file.
            family: its :attr:`Family.strip` is taken off.
        """
        result = cls()
        masters = {name[len(_MASTER):]: name for name in names if name.startswith(_MASTER)}
        for name in names:
            if name.startswith(_MASTER):
                continue
            known = _stripped(name, family)
            if known in result.stored:
                raise CheckpointError(
                    f"two tensors are called {known} once their prefixes are taken off: "
                    f"{result.stored[known]} and {name}. The file holds two models; keep one."
                )
            master = masters.pop(name, None)
            result.stored[known] = master or name
            if master:
                result.dropped[name] = f"its float32 master {master} is used"
        for name in masters.values():
            result.dropped[name] = "a master copy of a tensor that is not in the file by this name"
        return result


@dataclass
class Plan:
    """What a conversion will do.

    Attributes:
        uses: our name -> how it is made, in the order it is written.
        shapes: our name -> shape.
        dropped: name in the file -> why it is not used.
        alternatives: our name -> another way to make it, and its shape.
        if_absent: our name -> why it may be left out for a model that has no such tensor.
        unknown: names in the file that no row knows.
    """

    uses: dict[str, Use] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    alternatives: dict[str, tuple[Use, Shape]] = field(default_factory=dict)
    if_absent: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


def make_plan(
    family: Family,
    names: Names,
    shapes: Mapping[str, Shape],
    may_be_missing: Sequence[re.Pattern[str]] = (),
) -> Plan:
    """Apply the rows of ``family``.

    Args:
        family: the table.
        names: of the file.
        shapes: name in the file -> shape.
        may_be_missing: our names which a block of the file need not have, though others do.

    Raises:
        CheckpointError: a row has some of its sources and not all, or a shape it is not for.
    """
    plan = Plan(dropped=dict(names.dropped))
    for row in family.rows:
        if isinstance(row, Rule) and _applies(row, names):
            for numbers in _bindings(row, names, shapes):
                _add(plan, row, numbers, names, shapes)
    used = {source for use in plan.uses.values() for source in use.sources}
    for known, stored in names.stored.items():
        if stored in used:
            continue
        reason = next((row.reason for row in _drops(family) if _fits(row.pattern, known)), None)
        if reason is None:
            plan.unknown.append(stored)
        else:
            plan.dropped[stored] = reason
    _refuse_gaps(plan, may_be_missing)
    return plan


def num_known(family: Family, names: Sequence[str]) -> int:
    """How many of the names a row of the table knows."""
    patterns = [
        matcher(pattern)
        for row in family.rows
        for pattern in (row.sources if isinstance(row, Rule) else (row.pattern,))
    ]
    stripped = [_stripped(name, family) for name in names]
    return sum(any(pattern.fullmatch(name) for pattern in patterns) for name in stripped)


# -- inside ----------------------------------------------------------------------------------------


def _stripped(name: str, family: Family) -> str:
    return re.sub(f"^{TORCH_PREFIXES}(?:{family.strip})?", "", name)


def _applies(rule: Rule, names: Names) -> bool:
    if rule.unless is not None and rule.unless in names.stored:
        return False
    return rule.when is None or rule.when in names.stored


def _bindings(rule: Rule, names: Names, shapes: Mapping[str, Shape]) -> list[dict[str, int]]:
    """The numbers for which the file has at least one source of the rule, in order."""
    if rule.stacked:
        if rule.sources[0] not in names.stored:
            return []
        shape = shapes[names.stored[rule.sources[0]]]
        return [{"i": layer} for layer in range(shape[0] if shape else 0)]
    found: dict[tuple[tuple[str, int], ...], None] = {}
    for pattern in rule.sources:
        for known in names.stored:
            match = matcher(pattern).fullmatch(known)
            if match is not None:
                numbers = {key: int(value) for key, value in match.groupdict().items()}
                found[tuple(sorted(numbers.items()))] = None
    return [dict(numbers) for numbers in sorted(found)]


def _add(
    plan: Plan, rule: Rule, numbers: dict[str, int], names: Names, shapes: Mapping[str, Shape]
) -> None:
    target = numbered(rule.target, numbers)
    if target in plan.uses:
        return
    wanted = [source if rule.stacked else numbered(source, numbers) for source in rule.sources]
    absent = [name for name in wanted if name not in names.stored]
    if absent:
        raise CheckpointError(
            f"{target} is made of {', '.join(wanted)}; {', '.join(absent)} is missing in the file."
        )
    sources = tuple(names.stored[name] for name in wanted)
    source_shapes = [shapes[name] for name in sources]
    try:
        if rule.stacked:
            source_shapes = [shape[1:] for shape in source_shapes]
        plan.shapes[target] = OPERATIONS[rule.operation].shape(source_shapes)
    except ValueError as error:
        raise CheckpointError(f"{sources[0]} cannot become {target}: {error}.") from error
    plan.uses[target] = Use(sources, rule.operation, numbers["i"] if rule.stacked else None)
    if rule.alternative:
        other = OPERATIONS[rule.alternative]
        plan.alternatives[target] = (Use(sources, other.name), other.shape(source_shapes))
    if rule.if_absent:
        plan.if_absent[target] = rule.if_absent


def _drops(family: Family) -> list[Drop]:
    return [row for row in family.rows if isinstance(row, Drop)]


def _fits(pattern: str, name: str) -> bool:
    return matcher(pattern).fullmatch(name) is not None


def _refuse_gaps(plan: Plan, may_be_missing: Sequence[re.Pattern[str]]) -> None:
    """Blocks are numbered without a gap and hold the same tensors each, but for what may miss."""
    parts: dict[int, set[str]] = {}
    for target in plan.uses:
        match = _BLOCK.fullmatch(target)
        if match is not None:
            parts.setdefault(int(match[1]), set()).add(match[2])
    if not parts:
        return
    usual = set(Counter(frozenset(part) for part in parts.values()).most_common(1)[0][0])
    gaps = {
        number: [
            name
            for name in sorted(usual - parts.get(number, set()))
            if not any(each.search(f"blocks.{number}.{name}") for each in may_be_missing)
        ]
        for number in range(max(parts) + 1)
    }
    missing = [number for number, gap in gaps.items() if gap and number not in parts]
    if missing:
        raise CheckpointError(
            f"block {', '.join(map(str, missing))} is missing: the file has blocks up to "
            f"{max(parts)}. Was it saved whole?"
        )
    problems = [
        f"blocks.{number}.{name} is missing, which other blocks have"
        for number, gap in gaps.items()
        for name in gap
    ]
    if problems:
        more = len(problems) - _NUM_LISTED
        raise CheckpointError(
            "; ".join(problems[:_NUM_LISTED]) + (f"; and {more} more" if more > 0 else "") + "."
        )

"""Which parameters decay, and how fast each one learns.

Every trainable parameter ends up in exactly one group, and every rule must take hold of something:
a misspelled name in a rule would otherwise change a training in silence.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

import paddle

from passl.errors import ConfigError

__all__ = [
    "GroupRule",
    "NamedParameter",
    "ParamGroup",
    "ParamGroups",
    "align_table",
    "build_param_groups",
    "check_substrings",
    "describe_groups",
    "freeze_parameters",
]

NamedParameter = tuple[str, paddle.Tensor]


@dataclass(frozen=True)
class GroupRule:
    r"""What a config says of some parameters (an entry of ``Optimizer.param_groups``).

    Attributes:
        name: what the table and messages call the group.
        pattern: regular expression, searched for in the parameter's structured name
            (``^blocks\.0\.``; anchor it with ``^`` to match from the start).
        lr_scale: factor on the learning rate.
        weight_decay: replaces the optimizer's; None keeps it.
    """

    name: str
    pattern: str
    lr_scale: float = 1.0
    weight_decay: Optional[float] = None


@dataclass
class ParamGroup:
    """Parameters that are updated alike.

    Attributes:
        name: rule, then ``no_decay`` and the learning-rate factor where they apply.
        params: ``(structured name, parameter)`` pairs in the order of the model.
        weight_decay: strength, not yet times the learning rate.
        lr_scale: factor on the learning rate.
    """

    name: str
    params: list[NamedParameter] = field(default_factory=list)
    weight_decay: float = 0.0
    lr_scale: float = 1.0

    @property
    def num_parameters(self) -> int:
        """Scalars in the group."""
        return sum(_size(param) for _, param in self.params)


class ParamGroups(list[ParamGroup]):
    """A list of groups that also remembers what was left out.

    Attributes:
        frozen: parameters with ``stop_gradient``, which no optimizer touches.
    """

    def __init__(self, groups: Iterable[ParamGroup], frozen: Sequence[NamedParameter]) -> None:
        super().__init__(groups)
        self.frozen = list(frozen)


def build_param_groups(
    named_parameters: Iterable[NamedParameter],
    *,
    no_weight_decay_name: Sequence[str] = (),
    no_weight_decay_1d: bool = False,
    rules: Sequence[Any] = (),
    weight_decay: float = 0.0,
    layer_scales: Optional[Mapping[str, float]] = None,
) -> ParamGroups:
    """Sort the trainable parameters into groups.

    A parameter belongs to the first rule whose pattern is found in its name, or to ``default``.
    ``no_weight_decay_*`` come last and win over a rule's own weight decay.

    Args:
        named_parameters: ``model.named_parameters()``.
        no_weight_decay_name: parameters whose name contains one of these do not decay.
        no_weight_decay_1d: parameters of one dimension or none (biases, norms) do not decay.
        rules: :class:`GroupRule`, mappings with its fields, or objects with its attributes.
        weight_decay: of every parameter that nothing else is said of.
        layer_scales: learning-rate factor of each trainable parameter by name (layer-wise decay),
            times the rule's factor.

    Returns:
        Groups in the order of their first parameter; no group is empty.

    Raises:
        ConfigError: a rule or name matches nothing, a pattern is no regular expression, a name of
            ``layer_scales`` is unknown or missing, or nothing is trainable.  All at once.
    """
    parameters = _unique(named_parameters)
    trainable = [(name, param) for name, param in parameters if not param.stop_gradient]
    frozen = [(name, param) for name, param in parameters if param.stop_gradient]
    names = [name for name, _ in parameters]
    parsed = [_as_rule(rule) for rule in rules]

    problems = check_substrings("Optimizer.no_weight_decay_name", no_weight_decay_name, names)
    owner, rule_problems = _assign(parsed, names)
    problems += rule_problems
    if layer_scales is not None:
        problems += _check_scales(layer_scales, [name for name, _ in trainable], names)
    if not trainable:
        problems.append("the model has no trainable parameter: every one is frozen")
    if problems:
        raise ConfigError(problems)

    groups: dict[tuple[str, float, float], ParamGroup] = {}
    for name, param in trainable:
        rule = owner.get(name, GroupRule("default", ""))
        decay = weight_decay if rule.weight_decay is None else rule.weight_decay
        spared = any(part in name for part in no_weight_decay_name)
        if spared or (no_weight_decay_1d and len(param.shape) <= 1):
            decay = 0.0
        scale = rule.lr_scale * (1.0 if layer_scales is None else layer_scales[name])
        key = (rule.name, decay, scale)
        if key not in groups:
            groups[key] = ParamGroup(
                _group_name(rule, decay, scale, weight_decay), [], decay, scale
            )
        groups[key].params.append((name, param))
    return ParamGroups(groups.values(), frozen)


def describe_groups(groups: Sequence[ParamGroup]) -> str:
    """A table for the log: one line a group, then what decays, what does not and what is frozen."""
    rows = [("group", "tensors", "parameters", "lr x", "weight decay", "for example")]
    for group in groups:
        examples = [name for name, _ in group.params[:2]]
        more = ", ..." if len(group.params) > 2 else ""
        rows.append(
            (
                group.name,
                f"{len(group.params):,}",
                f"{group.num_parameters:,}",
                f"{group.lr_scale:.4g}",
                f"{group.weight_decay:.4g}",
                ", ".join(examples) + more,
            )
        )
    decayed = [named for group in groups if group.weight_decay for named in group.params]
    spared = [named for group in groups if not group.weight_decay for named in group.params]
    summary = f"weight decay: {_count(decayed)} decayed, {_count(spared)} not decayed"
    frozen = getattr(groups, "frozen", [])
    if frozen:
        summary += f"; {_count(frozen)} frozen"
    return f"{align_table(rows)}\n{summary}"


def align_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as text: the first column to the left, the last as it is, others right."""
    last = len(rows[0]) - 1
    widths = [max(len(row[column]) for row in rows) for column in range(last)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [row[column].rjust(widths[column]) for column in range(1, last)]
        lines.append("  ".join([*cells, row[last]]))
    return "\n".join(lines)


def freeze_parameters(
    named_parameters: Iterable[NamedParameter], patterns: Sequence[str]
) -> list[str]:
    """Stop the training of every parameter whose name matches one of ``patterns``.

    Args:
        named_parameters: ``model.named_parameters()``; their ``stop_gradient`` is set.
        patterns: regular expressions, searched for in the names.

    Returns:
        The names of what is frozen now.

    Raises:
        ConfigError: a pattern matches nothing, or is no regular expression; nothing is frozen.
    """
    parameters = list(named_parameters)
    names = [name for name, _ in parameters]
    frozen: set[str] = set()
    problems = []
    for position, pattern in enumerate(patterns):
        found, problem = _search(pattern, names)
        frozen.update(found)
        if problem:
            problems.append(f"Optimizer.freeze.{position}: {problem}")
    if problems:
        raise ConfigError(problems)
    for name, param in parameters:
        if name in frozen:
            param.stop_gradient = True
    return [name for name in names if name in frozen]


def _unique(named_parameters: Iterable[NamedParameter]) -> list[NamedParameter]:
    """The parameters once each; one shared by two layers keeps its first name."""
    seen: dict[int, NamedParameter] = {}
    for name, param in named_parameters:
        seen.setdefault(id(param), (name, param))
    return list(seen.values())


def _as_rule(rule: Any) -> GroupRule:
    if isinstance(rule, GroupRule):
        return rule
    if isinstance(rule, Mapping):
        return GroupRule(**rule)
    return GroupRule(rule.name, rule.pattern, rule.lr_scale, rule.weight_decay)


def _assign(
    rules: Sequence[GroupRule], names: Sequence[str]
) -> tuple[dict[str, GroupRule], list[str]]:
    """Which rule each name belongs to, and what is wrong with the rules."""
    owner: dict[str, GroupRule] = {}
    problems = []
    for position, rule in enumerate(rules):
        where = f"Optimizer.param_groups.{position} ({rule.name})"
        found, problem = _search(rule.pattern, names)
        if problem:
            problems.append(f"{where}: {problem}")
        elif all(name in owner for name in found):
            problems.append(
                f"{where}: everything {rule.pattern!r} matches ({found[0]}, ...) already belongs "
                f"to the group {owner[found[0]].name!r}; put the narrower rule first"
            )
        for name in found:
            owner.setdefault(name, rule)
    return owner, problems


def _search(pattern: str, names: Sequence[str]) -> tuple[list[str], str]:
    """The names that a pattern is found in, and what is wrong with it."""
    try:
        found = [name for name in names if re.search(pattern, name)]
    except re.error as error:
        return [], f"{pattern!r} is no regular expression: {error}"
    if found:
        return found, ""
    return [], f"the pattern {pattern!r} matches no parameter; {_nearest(pattern, names)}"


def check_substrings(key: str, parts: Sequence[str], names: Sequence[str]) -> list[str]:
    """What is wrong with the parts of names that ``key`` of a config lists: each must be in one."""
    return [
        f"{key}: no parameter's name contains {part!r}; "
        f"{_nearest(part, names)}"
        for part in parts
        if not any(part in name for name in names)
    ]


def _check_scales(
    scales: Mapping[str, float], trainable: Sequence[str], names: Sequence[str]
) -> list[str]:
    missing = [name for name in trainable if name not in scales]
    unknown = sorted(set(scales) - set(names))
    problems = []
    if missing:
        problems.append(
            f"layer decay: {len(missing)} of the trainable parameters have no layer: "
            f"{_some(missing)}"
        )
    if unknown:
        problems.append(f"layer decay: no such parameters: {_some(unknown)}")
    return problems


def _nearest(wanted: str, names: Sequence[str]) -> str:
    """The parameter names most like ``wanted``, by any stretch of dotted parts."""
    plain = re.sub(r"[\\^$]", "", wanted).strip(".*")

    def likeness(name: str) -> float:
        pieces = [name, *name.split(".")]
        return max(difflib.SequenceMatcher(None, plain, piece).ratio() for piece in pieces)

    best: list[str] = []
    for name in sorted(names, key=likeness, reverse=True):
        shape = re.sub(r"\d+", "N", name)
        if shape not in [re.sub(r"\d+", "N", other) for other in best]:
            best.append(name)
        if len(best) == 3:
            break
    return f"the nearest names are {', '.join(best)}" if best else "the model has no parameters"


def _group_name(rule: GroupRule, decay: float, scale: float, weight_decay: float) -> str:
    usual = weight_decay if rule.weight_decay is None else rule.weight_decay
    name = rule.name if decay == usual else f"{rule.name}/no_decay"
    return name if scale == rule.lr_scale else f"{name}/lr x{scale / rule.lr_scale:.4g}"


def _count(named: Sequence[NamedParameter]) -> str:
    total = sum(_size(param) for _, param in named)
    return f"{len(named):,} tensor{'' if len(named) == 1 else 's'} ({total:,} parameters)"


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _size(param: paddle.Tensor) -> int:
    return int(param.size)

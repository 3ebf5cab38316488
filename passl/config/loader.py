"""A config file and overrides -> a checked config, or every mistake at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional, Union

from passl.config.check import Checker
from passl.config.compat import apply_compatibility
from passl.config.config import Config
from passl.config.cross import Mode, check_together
from passl.config.merge import load_with_bases
from passl.config.overrides import apply_overrides
from passl.config.tree import MapNode, find, is_override
from passl.config.yaml_tree import display
from passl.errors import ConfigError

__all__ = ["load_config"]

_PLACE = re.compile(r"(.+?):(\d+): ")


def load_config(
    path: Union[str, Path], overrides: Sequence[str] = (), *, mode: Optional[Mode] = None
) -> Config:
    """Read, merge and check a config; Paddle is not imported.

    Args:
        path: the YAML file.
        overrides: texts such as ``Global.epochs=3``, applied in order.
        mode: ``"train"`` or ``"eval"`` also demands the sections which that needs.

    Raises:
        ConfigError: all mistakes of the file, its bases and the overrides, one line each.
    """
    file = Path(path)
    shown = display(file)
    problems: list[str] = []
    notes: list[str] = []
    tree = load_with_bases(file, problems, notes)
    if tree is None:
        raise ConfigError(problems)
    apply_overrides(tree, overrides, problems, notes)
    checker = Checker(tree, shown)
    checker.problems.extend(problems)
    checker.know_user_components()
    apply_compatibility(tree, checker.report, notes)
    sections = checker.sections()
    _shuffle_training(tree, sections)
    config = Config(
        **sections,
        notes=notes,
        source_path=Path(shown),
        overrides=tuple(overrides),
        origins=checker.origins,
    )
    check_together(config, checker, mode)
    if checker.problems:
        raise ConfigError(_in_reading_order(checker.problems))
    return config


def _shuffle_training(tree: MapNode, sections: dict[str, Any]) -> None:
    """Training data is shuffled unless the config says otherwise: PASSL's default costs a run."""
    data = sections.get("DataLoader")
    if data is None or data.Train is None:
        return
    if find(tree, ["DataLoader", "Train", "sampler", "shuffle"]) is None:
        sampler = replace(data.Train.sampler, shuffle=True)
        sections["DataLoader"] = replace(data, Train=replace(data.Train, sampler=sampler))


def _in_reading_order(problems: list[str]) -> list[str]:
    """Overrides first, then each file from top to bottom, then what is not written anywhere."""
    files: dict[str, int] = {}

    def place(problem: str) -> tuple[int, int, int]:
        if is_override(problem):
            return (0, 0, 0)
        match = _PLACE.match(problem)
        if match is None:
            return (2, 0, 0)
        return (1, files.setdefault(match.group(1), len(files)), int(match.group(2)))

    return sorted(problems, key=place)

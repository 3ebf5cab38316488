"""A config file and overrides -> a checked config, or every mistake at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Optional, Union

from passl.config.check import Checker
from passl.config.compat import apply_compatibility
from passl.config.config import Config
from passl.config.cross import Mode, check_together
from passl.config.merge import load_with_bases
from passl.config.overrides import apply_overrides
from passl.config.schema import Sections
from passl.config.shipped import find_config_file
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
        path: the YAML file, or the name of a config that ships with PASSL
            (``ViT_base_patch16_224``); a file that exists wins.
        overrides: texts such as ``Global.epochs=3``, applied in order.
        mode: ``"train"`` or ``"eval"`` also demands the sections which that needs.

    Raises:
        ConfigError: all mistakes of the file, its bases and the overrides, one line each.
    """
    found = find_config_file(path)
    shown = display(found.path)
    problems: list[str] = []
    notes: list[str] = [found.note] if found.note else []
    tree = load_with_bases(found.path, problems, notes)
    if tree is None:
        raise ConfigError(problems)
    _refuse_json(tree, shown)
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
        source_name=found.name,
        overrides=tuple(overrides),
        origins=checker.origins,
    )
    check_together(config, checker, mode)
    if checker.problems:
        raise ConfigError(_in_reading_order(checker.problems))
    return config


def _refuse_json(tree: MapNode, shown: str) -> None:
    """JSON is YAML too, so a config of another system would only be a file of unknown keys."""
    known = {item.name for item in fields(Sections)}
    if shown.endswith(".json") and not known & set(tree.entries):
        raise ConfigError(
            f"{shown}: a JSON file without any section of a config; if it is myrtle-vision's: "
            f"passl-config import-myrtle {shown} --out {Path(shown).stem}.yaml"
        )


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

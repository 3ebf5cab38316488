"""What differs between the config of a checkpoint and that of the run that continues it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

from passl.config import Config
from passl.config.flat import differing_paths, flatten
from passl.config.schema import FP16Section, GlobalSection, LoggingSection
from passl.registry import MODELS
from passl.signatures import MISSING

__all__ = ["Change", "config_changes", "is_allowed", "model_changes"]

#: Sections whose defaults an older checkpoint may lack, as it knew fewer keys.
_WITH_DEFAULTS = {"Global": GlobalSection, "FP16": FP16Section, "Logging": LoggingSection}


class _Absent:
    def __repr__(self) -> str:
        return "absent"


_ABSENT = _Absent()


@dataclass(frozen=True)
class Change:
    """One value that is another one now.

    Attributes:
        key: dotted path, such as ``LRScheduler.learning_rate``.
        was, now: the two values; where a key is in one of the configs only, its default.
        what: what the values are, where that is not the key itself.
    """

    key: str
    was: Any
    now: Any
    what: str = ""

    def __str__(self) -> str:
        return f"{self.what or self.key} was {self.was!r} and is {self.now!r}"


def config_changes(before: Mapping[str, Any], config: Config) -> list[Change]:
    """All values that differ, in the order of the config; defaults count as written.

    Args:
        before: the config of the checkpoint, as ``Config.to_dict`` gave it.
        config: the config of this run.
    """
    was = dict(flatten(_filled(before)))
    now = dict(flatten(_filled(config.to_dict())))
    # A section that was null and has keys now, or the other way round: its keys say it.
    parents = {key[:dot] for key in (*was, *now) for dot, sign in enumerate(key) if sign == "."}
    changes = [
        Change(key, was.get(key, _ABSENT), now.get(key, _ABSENT))
        for key in differing_paths(now, was)
    ]
    return [
        change
        for change in changes
        if not (change.key in parents and None in (change.was, change.now))
    ]


def model_changes(changes: Sequence[Change]) -> list[Change]:
    """Those that make another model.

    Rates of dropout change no shape, and what a path leads to is compared by its SHA-256.
    """
    return [
        change
        for change in changes
        if change.key.startswith("Model.") and not change.key.endswith(("_rate", "_path"))
    ]


def is_allowed(key: str, patterns: Sequence[str]) -> bool:
    """Whether one of ``Global.allow_config_change`` is ``key`` or a pattern of it (``Model.*``)."""
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _filled(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` with what its version did not know, or did not write down."""
    filled = dict(config)
    for name, section in _WITH_DEFAULTS.items():
        filled[name] = {**asdict(section()), **filled.get(name, {})}
    filled["Model"] = {**_model_defaults(config["Model"]["name"]), **config["Model"]}
    return dict(json.loads(json.dumps(filled)))


def _model_defaults(name: str) -> dict[str, Any]:
    spec = MODELS.spec(name)
    known = spec.configurable if spec is not None else []
    return {param.name: param.default for param in known if param.default is not MISSING}

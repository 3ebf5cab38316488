"""From factors to runs: all combinations, a name for each, and every config checked beforehand."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Optional

from passl.config import Config, load_config
from passl.errors import ConfigError
from passl.sweep.factors import Drawn, Factor, Value

__all__ = ["SEED_KEY", "Run", "Sweep", "plan_sweep", "short_names"]

#: Repeating a setting with other seeds is no setting of its own: reports take the mean over them.
SEED_KEY = "Global.seed"
#: What the sweep decides itself.
_TAKEN = {"Global.output_dir": "each run gets a folder of its own, below --out"}
_MOST_RUNS = 10_000
_MOST_PROBLEMS = 60
_LONGEST_NAME = 120  # file systems take 255 bytes
_PLAIN_PATH = re.compile(r"[\w./@+=,-]+\Z")


@dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
        name: readable, and the same whenever the same values are swept; its folder.
        values: key -> value, in the order of the factors.
        overrides: all of ``-o``: those of the user, the values, the folder.
        config: checked.
    """

    name: str
    values: Mapping[str, Value]
    overrides: tuple[str, ...]
    config: Config


@dataclass(frozen=True)
class Sweep:
    """A checked sweep.

    Attributes:
        config_file: as typed after ``-c``.
        overrides: as typed after ``-o``, for all runs.
        keys: of the factors.
        runs: in the order they are started.
        folder: where everything goes.
        notes: what the user should hear before it starts.
    """

    config_file: str
    overrides: tuple[str, ...]
    keys: tuple[str, ...]
    runs: tuple[Run, ...]
    folder: Path
    notes: tuple[str, ...] = field(default=())


def plan_sweep(
    config_file: str,
    overrides: Sequence[str],
    grid: Sequence[Factor],
    drawn: Sequence[Drawn],
    *,
    trials: int,
    seed: int,
    folder: Path,
    check: Optional[Callable[[Config], None]] = None,
) -> Sweep:
    """Every combination of the grid, ``trials`` times with drawn values, all of it checked.

    Each combination of the grid gets the same draws, so that its values are compared fairly.

    Args:
        config_file, overrides: of all runs.
        grid: factors of which every combination is run.
        drawn: factors that are drawn.
        trials: draws; not used without ``drawn``.
        seed: of the draws.
        folder: of the sweep; each run gets ``folder/<name>``.
        check: raises ConfigError for a config that is wrong in another way.

    Raises:
        ConfigError: every mistake of every run, each once.
    """
    keys = (*(factor.key for factor in grid), *(factor.key for factor in drawn))
    _check_keys(keys, overrides)
    number = trials if drawn else 1
    for factor in grid:
        number *= len(factor.values)
    if number > _MOST_RUNS:
        raise ConfigError(f"these are {number:,} runs; a sweep has at most {_MOST_RUNS:,}")
    combinations = list(_combinations(grid, drawn, trials, seed))
    different = {_settings(values): values for values in combinations}
    shorter = short_names(keys)
    runs, problems = [], _Problems(len(different))
    for values in different.values():
        name = _run_name(values, shorter)
        mine = [f"{key}={value.text}" for key, value in values.items()]
        path = _yaml_text(str(folder / name))
        everything = (*overrides, *mine, f"Global.output_dir={path}")
        try:
            config = load_config(config_file, everything, mode="train")
            if check is not None:
                check(config)
            runs.append(Run(name, values, everything, config))
        except ConfigError as error:
            problems.add(name, error.problems)
    problems.raise_if_any()
    _check_comparable(runs[0].config)
    _check_different(runs, keys)
    notes = []
    if len(different) < len(combinations):
        notes.append(
            f"{len(combinations)} trials drew {len(different)} different runs; each is run once"
        )
    return Sweep(config_file, tuple(overrides), keys, tuple(runs), folder, tuple(notes))


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The shortest end of each key that tells it from the others, and says enough by itself."""
    parts = {key: key.split(".") for key in keys}
    short = {}
    for key, words in parts.items():
        if len(words) > 1 and words[-1] == "name":  # Model.name: Model says it
            words = words[:-1]
        length = 1
        while length < len(words) and (
            words[-length].isdigit()
            or any(other[-length:] == words[-length:] for k, other in parts.items() if k != key)
        ):
            length += 1
        short[key] = ".".join(words[-length:])
    return short if len(set(short.values())) == len(keys) else {key: key for key in keys}


# -- inside ------------------------------------------------------------------------------------


def _check_keys(keys: Sequence[str], overrides: Sequence[str]) -> None:
    problems = []
    if not keys:
        problems.append("nothing varies; give --grid KEY=VALUE,VALUE or --random KEY=log(LOW,HIGH)")
    problems += [f"{key} is given twice; one factor a key" for key in _repeated(keys)]
    problems += [f"{key} cannot be swept: {_TAKEN[key]}" for key in keys if key in _TAKEN]
    for text in overrides:
        path = text.partition("=")[0].strip().lstrip("~+")
        if path in _TAKEN:
            problems.append(f"-o {text}: {_TAKEN[path]}; choose it with --out")
        if path in keys:
            problems.append(f"-o {text}: {path} varies in this sweep; leave the override out")
    if problems:
        raise ConfigError(problems)


def _repeated(keys: Sequence[str]) -> list[str]:
    return sorted({key for key in keys if keys.count(key) > 1})


def _combinations(
    grid: Sequence[Factor], drawn: Sequence[Drawn], trials: int, seed: int
) -> Iterator[dict[str, Value]]:
    grids = itertools.product(*(factor.values for factor in grid))
    for chosen in grids:
        fixed = dict(zip((factor.key for factor in grid), chosen))
        if not drawn:
            yield fixed
            continue
        for trial in range(trials):
            yield {**fixed, **{factor.key: factor.value(seed, trial) for factor in drawn}}


def _settings(values: Mapping[str, Value]) -> tuple[tuple[str, str], ...]:
    return tuple((key, value.label) for key, value in values.items())


def _run_name(values: Mapping[str, Value], shorter: Mapping[str, str]) -> str:
    """``learning_rate=0.001,weight_decay=0.05``, fit for a folder."""
    whole = ",".join(f"{shorter[key]}={value.label}" for key, value in values.items())
    safe = re.sub(r"[^\w.,=+\[\]@-]", "_", whole)
    if safe == whole and len(safe) <= _LONGEST_NAME and not safe.startswith("."):
        return safe
    digest = hashlib.sha256(json.dumps(_settings(values)).encode()).hexdigest()[:8]
    return f"{safe[:_LONGEST_NAME].lstrip('.')}-{digest}"


def _yaml_text(path: str) -> str:
    """``path`` as a YAML value, in quotes where it would mean something else."""
    return path if _PLAIN_PATH.match(path) and "/" in path else json.dumps(path)


def _check_comparable(config: Config) -> None:
    """Refuse a sweep that ends without a number to compare.

    Raises:
        ConfigError: no run would evaluate.
    """
    data = config.DataLoader
    if not config.Global.eval_during_train or data is None or data.Eval is None:
        what = (
            "Global.eval_during_train is false"
            if not config.Global.eval_during_train
            else "there is no DataLoader.Eval"
        )
        raise ConfigError(f"a sweep compares evaluations, but {what}, so its runs have none")


def _check_different(runs: Sequence[Run], keys: Sequence[str]) -> None:
    """Refuse two runs with the same config: a value that changes nothing is a mistake.

    Raises:
        ConfigError: naming the first such pair.
    """
    seen: dict[str, str] = {}
    for run in runs:
        config = run.config.to_dict()
        config["Global"] = {**config["Global"], "output_dir": ""}
        text = json.dumps(config, default=str, sort_keys=True)
        if text in seen:
            raise ConfigError(
                f"{seen[text]} and {run.name} would be the same run: with this config the values "
                f"of {' or '.join(keys)} make no difference between them"
            )
        seen[text] = run.name


class _Problems:
    """Mistakes of many runs, each listed once."""

    def __init__(self, num_runs: int) -> None:
        self._num_runs = num_runs
        self._runs: dict[str, list[str]] = {}

    def add(self, run: str, problems: Sequence[str]) -> None:
        for problem in problems:
            self._runs.setdefault(problem, []).append(run)

    def raise_if_any(self) -> None:
        if not self._runs:
            return
        lines = []
        for problem, runs in self._runs.items():
            # One value that is wrong says itself where; what several make together needs the run.
            everywhere = len(runs) == self._num_runs or problem.startswith("-o ")
            others = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
            lines.append(problem if everywhere else f"{problem} (run {runs[0]}{others})")
        hidden = len(lines) - _MOST_PROBLEMS
        if hidden > 0:
            lines = [*lines[:_MOST_PROBLEMS], f"and {hidden} more mistakes"]
        raise ConfigError(lines)

"""``passl-check --data``: every sample of a config's data sets, looked at before the training."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from passl.config import Config
from passl.errors import EXIT_CONFIG, EXIT_OK, ConfigError, DataError
from passl.logs.terminal import columns_of, is_terminal, wrapped
from passl.registry import MODELS

if TYPE_CHECKING:
    import numpy as np

    from passl.data.dataset import Dataset
    from passl.data.scan import ScanReport
    from passl.data.scan_state import ScanState

__all__ = ["add_data_options", "check_data"]


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Options that ``--data`` understands."""
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="threads for --data")
    parser.add_argument(
        "--report", metavar="FILE", help="write all that --data finds to FILE, as JSON"
    )
    parser.add_argument(
        "--picture",
        metavar="FILE",
        help="draw how evenly the classes are filled, as PNG",
    )
    parser.add_argument(
        "--state",
        metavar="FILE",
        help="where --data keeps what it has looked at while it runs, so that it can be "
        "interrupted and started again (default: check_data.state in the run's folder)",
    )


def check_data(config: Config, arguments: argparse.Namespace) -> int:
    """Scan the data sets of the mode; returns the exit status.

    Raises:
        ConfigError: a data set cannot be built, or the report cannot be written.
    """
    from passl.data.duplicates import find_duplicates
    from passl.data.scan_state import ScanState
    from passl.engine.build import run_dir_of

    _check_writable("--report", arguments.report)
    _check_writable("--picture", arguments.picture)
    state = ScanState(Path(arguments.state or run_dir_of(config) / "check_data.state"))
    reports: dict[str, ScanReport] = {}
    parts: dict[str, tuple[Dataset, np.ndarray]] = {}
    try:
        for name in ("Train", "Eval") if arguments.mode == "train" else ("Eval",):
            if getattr(config.DataLoader, name) is None:
                continue
            dataset = _build(config, name)
            report = _scan(dataset, name, config, arguments, state)
            reports[name], parts[name] = report, (dataset, report.digests)
            _say(f"DataLoader.{name}: {report.describe()}")
            for warning in report.warnings:
                _say(f"DataLoader.{name}: warning: {warning}")
    except BaseException:
        state.flush()
        if state.path.exists():
            print(
                f"passl-check: not finished; the same command continues from {state.path}",
                file=sys.stderr,
            )
        raise
    duplicates = find_duplicates(parts)
    _say(f"duplicates: {duplicates.describe()}")
    healthy = all(report.ok for report in reports.values())
    if arguments.report is not None:
        content = {
            "config": str(arguments.config),
            "ok": healthy,
            "data": {name: report.to_dict() for name, report in reports.items()},
            "duplicates": duplicates.to_dict(),
        }
        _write_report(Path(arguments.report), content)
        print(f"the whole report is in {arguments.report}")
    if arguments.picture is not None:
        _draw(Path(arguments.picture), reports)
    state.remove()
    return EXIT_OK if healthy else EXIT_CONFIG


def _say(text: str) -> None:
    """Print what belongs to the first line indented below it; a terminal gets no broken words."""
    first, *rest = text.split("\n")
    width = columns_of(sys.stdout) - 5 if is_terminal(sys.stdout) else len(text)
    for line in (first, *(f"  {line}" for line in rest)):
        start, *more = wrapped(line, width)
        print("\n".join([start, *(f"    {part}" for part in more)]))


def _build(config: Config, name: str) -> Dataset:
    from passl.data.build import build_dataset

    section = getattr(config.DataLoader, name)
    try:
        # All files are looked at below: a missing one is no reason not to look at the others.
        return build_dataset(section, class_num=_class_num(config), check_files=False)
    except DataError as error:
        where = config.origin(f"DataLoader.{name}.dataset")
        raise ConfigError(f"{where}: DataLoader.{name}.dataset: {error}") from error


def _scan(
    dataset: Dataset, name: str, config: Config, arguments: argparse.Namespace, state: ScanState
) -> ScanReport:
    from passl.data.scan import scan_dataset
    from passl.data.scan_state import fingerprint
    from passl.logs.progress import CountProgress

    print_of_data = fingerprint(dataset)
    known = state.section(name, print_of_data) if print_of_data is not None else None
    if known is not None and known.known_samples:
        print(
            f"DataLoader.{name}: {known.known_samples} of {len(dataset)} samples were checked "
            f"before ({state.path}); only changed files are read again"
        )
    before = known.known_samples if known is not None else 0
    with CountProgress(f"DataLoader.{name}", before) as progress:
        return scan_dataset(
            dataset,
            num_workers=arguments.workers,
            class_num=_class_num(config),
            hashes=True,
            state=known,
            progress=progress,
        )


def _class_num(config: Config) -> Optional[int]:
    """Classes of the model: what labels must be below."""
    if "class_num" in config.Model:
        return int(config.Model["class_num"])
    spec = MODELS.spec(config.Model["name"]) if config.Model else None
    param = spec.param("class_num") if spec is not None else None
    return int(param.default) if param is not None and isinstance(param.default, int) else None


def _draw(path: Path, reports: dict[str, ScanReport]) -> None:
    from passl.data.label_statistics import draw_balance

    counts = {
        f"DataLoader.{name}": report.class_counts
        for name, report in reports.items()
        if len(report.class_counts)
    }
    try:
        draw_balance(path, counts)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--picture {path}: cannot be written ({error})") from error
    print(f"the picture of the classes is in {path}")


def _check_writable(option: str, file: Optional[str]) -> None:
    """Better now than after hours of reading."""
    if file is None:
        return
    folder = Path(file).absolute().parent
    if Path(file).is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(
            f"{option} {file}: a file cannot be written there; name one in a folder that exists"
        )


def _write_report(path: Path, content: dict[str, Any]) -> None:
    beside = path.with_name(f"{path.name}.tmp")
    try:
        beside.write_text(json.dumps(content, indent=1), encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise ConfigError(f"--report {path}: cannot be written ({error.strerror})") from error

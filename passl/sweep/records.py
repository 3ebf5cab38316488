"""How far each run of a sweep is: ``run.json`` in its folder, and what the run itself wrote.

    <sweep>/sweep.json                     the last plan: config, overrides, keys, names of its runs
    <sweep>/<run>/run.json                 values, overrides, config and state of one run
    <sweep>/<run>/notes/                   how its last start went (passl.engine.faults.attempt)
    <sweep>/<run>/output.txt               what it printed, over all starts
    <sweep>/<run>/<Model.name>/            the run's own folder, as passl-train writes it
"""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Optional

from passl.checkpoint.disk import atomic_file
from passl.checkpoint.lock import RunLock
from passl.engine.changes import config_changes
from passl.errors import EXIT_OK, EXIT_STOPPED, CheckpointError, ConfigError
from passl.json_text import from_json
from passl.sweep.plan import Run, Sweep

__all__ = [
    "Record",
    "State",
    "begin_start",
    "end_start",
    "prepare_records",
    "read_record",
    "read_sweep",
    "repeat_command",
    "train_command",
    "write_sweep",
]

State = Literal["new", "running", "done", "stopped", "failed"]
_FORMAT = 1
_NAME, _SWEEP_NAME = "run.json", "sweep.json"
#: Keys that change how a run is made, saved or told of, not what comes out of it.
_HARMLESS = (
    "Global.output_dir", "Global.num_threads", "Global.print_batch_step", "Global.use_visualdl",
    "Global.save_", "Global.max_num_latest_checkpoint", "Global.max_time", "Global.device",
    "Global.allow_config_change", "Global.recompute",
)


@dataclass
class Record:
    """What is known of a run.

    Attributes:
        name: of the run.
        values: key -> the text after ``KEY=``.
        data: key -> what that text means.
        config_file: as typed.
        overrides: all of ``-o``.
        config: resolved, as ``Config.to_dict`` gives it.
        state: ``running`` also for a run whose sweep was killed.
        exit: status of its last start.
        error: of a failed run, in a sentence.
        starts: how often it was started.
        seconds: of all its starts.
        began: seconds since 1970 of the last start.
    """

    name: str
    values: dict[str, str]
    data: dict[str, Any]
    config_file: str
    overrides: list[str]
    config: dict[str, Any]
    state: State = "new"
    exit: Optional[int] = None
    error: str = ""
    starts: int = 0
    seconds: float = 0.0
    began: float = 0.0
    folder: Path = field(default=Path(), compare=False)

    @property
    def run_dir(self) -> Path:
        """Where ``passl-train`` writes."""
        return self.folder / str(self.config["Model"]["name"])

    @property
    def notes(self) -> Path:
        """Where the run notes its steps and its end."""
        return self.folder / "notes"

    @property
    def output(self) -> Path:
        """What it printed."""
        return self.folder / "output.txt"

    def write(self) -> None:
        """Replace ``run.json`` as a whole."""
        kept = {key: value for key, value in asdict(self).items() if key != "folder"}
        _write_json(self.folder / _NAME, {"format": _FORMAT, **kept})


def prepare_records(sweep: Sweep) -> list[Record]:
    """The record of every run of the sweep, new or from an earlier start; nothing is written.

    Raises:
        ConfigError: a run was made with another config than it would be now, or somebody else
            trains it at this moment.
    """
    records, problems, changed = [], [], False
    for run in sweep.runs:
        old = read_record(sweep.folder / run.name)
        if old is not None and old.state == "running":
            if _is_in_use(old.run_dir):
                problems.append(
                    f"{run.name} is being trained by another process; wait for its end, or stop it "
                    f"with: touch {old.run_dir / 'STOP'}"
                )
            else:
                _settle(old)
        changes = _real_changes(old, run) if old is not None and _has_results(old) else []
        if changes:
            changed = True
            problems.append(f"{run.name} was begun with another config: {'; '.join(changes[:5])}")
        records.append(_record(sweep, run, old))
    if changed:
        problems.append(
            "results of several configs cannot be compared: sweep into another folder with --out, "
            "set the keys back, or remove the folders of these runs"
        )
    if problems:
        raise ConfigError(problems)
    return records


def write_sweep(sweep: Sweep, records: Sequence[Record]) -> None:
    """Write the plan, and the record of every run.

    Raises:
        ConfigError: the folder cannot be written.
    """
    plan = {
        "format": _FORMAT,
        "config_file": sweep.config_file,
        "overrides": list(sweep.overrides),
        "keys": list(sweep.keys),
        "runs": [run.name for run in sweep.runs],
    }
    try:
        for record in records:
            record.folder.mkdir(parents=True, exist_ok=True)
            record.write()
        _write_json(sweep.folder / _SWEEP_NAME, plan)
    except OSError as error:
        raise ConfigError(f"{sweep.folder} cannot be written: {error}") from error


def read_sweep(folder: Path) -> tuple[list[str], list[Record]]:
    """The keys and runs of the sweep that was last planned in ``folder``.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    try:
        plan = from_json((folder / _SWEEP_NAME).read_text(encoding="utf-8"))
        keys, names = [str(key) for key in plan["keys"]], [str(name) for name in plan["runs"]]
    except FileNotFoundError as error:
        raise ConfigError(f"{folder}: no {_SWEEP_NAME} there; no sweep was begun in it") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder / _SWEEP_NAME} cannot be read: {error}") from error
    records = [read_record(folder / name) for name in names]
    lost = [name for name, record in zip(names, records) if record is None]
    if lost:
        raise ConfigError([f"{folder / name / _NAME}: missing or unreadable" for name in lost])
    found = [record for record in records if record is not None]
    for record in found:
        if record.state == "running" and not _is_in_use(record.run_dir):
            _settle(record)
    return keys, found


def read_record(folder: Path) -> Optional[Record]:
    """The record in a run's folder; None if there is none that can be read."""
    try:
        known = from_json((folder / _NAME).read_text(encoding="utf-8"))
        if known.pop("format") != _FORMAT:
            return None
        return Record(**known, folder=folder)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def begin_start(record: Record) -> None:
    """Note that the run is started now."""
    record.notes.mkdir(parents=True, exist_ok=True)
    for path in record.notes.glob("rank_*"):
        path.unlink()
    record.state, record.exit, record.error = "running", None, ""
    record.starts += 1
    record.began = time.time()
    record.write()


def end_start(record: Record, status: int, seconds: float) -> None:
    """Note how a start ended; where that cannot be written, the run's own last note stands.

    Args:
        record: of the run.
        status: exit status, negative for the signal that killed it.
        seconds: that it took.
    """
    record.seconds += seconds
    _set_end(record, status)
    with suppress(OSError):
        record.write()


def train_command(record: Record) -> list[str]:
    """The arguments of ``passl-train`` that make, and continue, this run."""
    return ["-c", record.config_file, "-o", *record.overrides]


def repeat_command(record: Record) -> str:
    """What to type to make this run again, beside the sweep: there is nothing to go on with."""
    kept = [text for text in record.overrides if not text.startswith("Global.output_dir=")]
    sweep, name = record.folder.parent, record.folder.name
    sweep = sweep if sweep.name not in ("", "..") else sweep.resolve()  # --out .
    kept.append(f"Global.output_dir={sweep.with_name(f'{sweep.name}_again') / name}")
    return shlex.join(["passl-train", "-c", record.config_file, "-o", *kept])


# -- inside ------------------------------------------------------------------------------------


def _record(sweep: Sweep, run: Run, old: Optional[Record]) -> Record:
    record = old or Record("", {}, {}, "", [], {})
    record.name, record.folder = run.name, sweep.folder / run.name
    record.values = {key: value.text for key, value in run.values.items()}
    record.data = {key: value.data for key, value in run.values.items()}
    record.config_file, record.overrides = sweep.config_file, list(run.overrides)
    record.config = json.loads(json.dumps(run.config.to_dict(), default=str))
    return record


def _set_end(record: Record, status: int) -> None:
    record.exit = status
    ends: dict[int, State] = {EXIT_OK: "done", EXIT_STOPPED: "stopped"}
    record.state = ends.get(status, "failed")
    record.error = _failure(record, status) if record.state == "failed" else ""


def _settle(record: Record) -> None:
    """Give a run whose sweep was killed the state that it ended in, by its own last note."""
    status = _last_note(record).get("exit", EXIT_STOPPED)
    _set_end(record, status if isinstance(status, int) else EXIT_STOPPED)


def _is_in_use(run_dir: Path) -> bool:
    if not run_dir.is_dir():
        return False
    lock = RunLock(run_dir)
    try:
        lock.acquire(patience_s=0.0)
    except CheckpointError:
        return True
    lock.release()
    return False


def _has_results(record: Record) -> bool:
    return record.state == "done" or any(record.run_dir.glob("checkpoints/step_*"))


def _real_changes(old: Record, run: Run) -> list[str]:
    return [
        str(change)
        for change in config_changes(old.config, run.config)
        if not change.key.startswith(_HARMLESS) and ".loader." not in change.key
    ]


def _failure(record: Record, status: int) -> str:
    """Why a run failed: its own words, else what its exit status says."""
    said = str(_last_note(record).get("error") or "")
    if said and status == _last_note(record).get("exit"):
        return said
    if status < 0:
        return f"killed by signal {-status}" + (
            ", as the system does when memory runs out (see dmesg)" if status == -9 else ""
        )
    last = _last_line(record.output)
    return f"exit status {status}" + (f": {last}" if last else "")


def _last_note(record: Record) -> Mapping[str, Any]:
    try:
        return dict(from_json((record.notes / "rank_0.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _last_line(path: Path) -> str:
    with suppress(OSError), open(path, "rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 4096))
        lines = file.read().decode("utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n"
    with atomic_file(path) as file:
        file.write(text.encode("utf-8"))

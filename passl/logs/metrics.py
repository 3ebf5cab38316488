"""Numbers of a run for machines: ``metrics.jsonl``, one JSON object a line, and their curves.

    {"kind": "train", "step": 10, "epoch": 1, "loss": 2.31, "lr": 0.001, "time": 1769860800.123}

``step`` counts finished optimizer updates, as everywhere.  Every line is flushed; a kill can tear
only the last, which the next start removes.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional, TextIO, Union

from passl.json_text import from_json
from passl.logs.curves import Curves, points_of
from passl.logs.log_file import leads_to
from passl.logs.logger import get_logger
from passl.logs.writers.base import Writer

__all__ = ["MetricsWriter", "read_metrics"]

Value = Union[float, int, str, bool, None]

#: Where NaN and infinities are kept, which JSON has no words for: name -> "nan", "inf" or "-inf".
_NON_FINITE = "nonfinite"


class MetricsWriter:
    """Appends records to ``metrics.jsonl`` and hands their numbers to programs that draw curves.

    A disk that is full or gone costs a warning and the records, never the run.

    Args:
        run_dir: folder of the run.
        writers: what else is told, with tags ``<kind>/<name>``.

    Attributes:
        curves: the writers that still work.
    """

    def __init__(self, run_dir: Union[str, Path], writers: Sequence[Writer] = ()) -> None:
        # Absolute: a file that was moved is begun anew, wherever the process is by then.
        self.path = Path(run_dir).absolute() / "metrics.jsonl"
        self.curves = Curves(writers)
        self._file: Optional[TextIO] = None
        self._has_failed = False

    def append(self, record: Mapping[str, Value]) -> None:
        """Write one record.

        Args:
            record: ``kind`` (``"train"``, ``"eval"``, ...), ``step``, ``epoch`` and flat values.
                Numbers become curves; NaN and infinities are written as null and named under
                ``nonfinite``.  ``time`` (seconds since 1970) is added.
        """
        timed = {**record, "time": round(time.time(), 3)}
        self._write_line(_to_json(timed) + "\n")
        self.curves.add(timed)

    def truncate_after(self, step: int, without: Sequence[str] = ()) -> None:
        """Forget what came after ``step``: the run continues from there and will write it again.

        Lines that are torn or no records are removed as well.

        Args:
            step: the last step to keep.
            without: kinds of which the records of ``step`` itself will be written again.
        """

        def keep(tag: str, at: int) -> bool:
            return at < step or (at == step and tag.split("/")[0] not in without)

        self.close()
        kept = [
            record for record in read_metrics(self.path) if keep(record["kind"], record["step"])
        ]
        self._replace(kept)
        points = (point for record in kept for point in points_of(record))
        self.curves.restart(points, keep, step)

    def start_over(self) -> Optional[Path]:
        """Begin empty; what an earlier run left is kept beside, as ``metrics.N.jsonl``.

        Returns:
            Where they are now; None if there were none.
        """
        self.close()
        aside = None
        if self.path.is_file() and self.path.stat().st_size:
            numbers = (n for n in range(1, 1_000_000) if not self._aside(n).exists())
            aside = self._aside(next(numbers))
            self.path.rename(aside)
        self.curves.restart([], lambda _tag, _step: False, 0)
        return aside

    def close(self) -> None:
        """Finish all files; a later record opens them again."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self.curves.close()

    # -- inside ------------------------------------------------------------------------------------

    def _aside(self, number: int) -> Path:
        return self.path.with_suffix(f".{number}.jsonl")

    def _write_line(self, line: str) -> None:
        try:
            if self._file is not None and not leads_to(self.path, self._file):
                self._forget_file()  # moved or deleted: the record begins a new file
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 (kept open)
                if not _ends_with_newline(self.path):
                    line = (
                        "\n" + line
                    )  # what a kill tore stays a line of its own, which readers skip
            self._file.write(line)
            self._file.flush()
            self._has_failed = False
        except OSError as error:
            self._forget_file()
            if not self._has_failed:
                get_logger().warning(
                    "metrics are not recorded: cannot write %s: %s. Training goes on.",
                    self.path,
                    error.strerror,
                )
            self._has_failed = True

    def _forget_file(self) -> None:
        """Close without writing what could not be written."""
        if self._file is not None:
            with suppress(OSError):  # the same trouble again, which was reported
                self._file.close()
            self._file = None

    def _replace(self, records: list[dict[str, Any]]) -> None:
        if self.path.exists():
            beside = self.path.with_name(f".{self.path.name}.tmp-{os.getpid()}")
            try:
                with open(beside, "w", encoding="utf-8") as file:
                    file.writelines(_to_json(record) + "\n" for record in records)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(beside, self.path)
            finally:
                beside.unlink(missing_ok=True)  # there only if something failed


def read_metrics(path: Union[str, Path]) -> Iterator[dict[str, Any]]:
    """The records of a ``metrics.jsonl``, NaN and infinities as floats; torn lines are skipped."""
    path = Path(path)
    if not path.is_file():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            record = _from_json(line)
            if record is not None:
                yield record


def _to_json(record: Mapping[str, Any]) -> str:
    plain: dict[str, Any] = {
        name: _plain(value) for name, value in record.items() if name != _NON_FINITE
    }
    odd = {
        name: str(value)
        for name, value in plain.items()
        if isinstance(value, float) and not math.isfinite(value)
    }
    if odd:
        plain = {**plain, **dict.fromkeys(odd), _NON_FINITE: odd}
    return json.dumps(plain, ensure_ascii=False, allow_nan=False)


def _from_json(line: str) -> Optional[dict[str, Any]]:
    try:
        record = from_json(line)
        record.update({name: float(text) for name, text in record.pop(_NON_FINITE, {}).items()})
        is_record = isinstance(record["kind"], str) and isinstance(record["step"], int)
        record.setdefault("time", 0.0)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return record if is_record else None


def _plain(value: Any) -> Value:
    """NumPy's scalars as Python's."""
    return value.item() if hasattr(value, "item") else value


def _ends_with_newline(path: Path) -> bool:
    with open(path, "rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"

"""Curves, pictures, settings and the graph for VisualDL, in two files of fixed names.

VisualDL shows only the newest file of a folder and cannot take a point back.  So when a run resumes
its file is written anew: the curves from ``metrics.jsonl``, pictures and histograms from the former
file as far as they are still true.

Source: VisualDL 2.5.3, ``proto/record.proto`` (records), ``writer/record_writer.py`` (each after
its length, uint64 little-endian), ``component/graph/graph_component.py`` (keys of the graph).
"""

from __future__ import annotations

import json
import shlex
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np

from passl.logs.writers.base import Graph, Keep, Point, Setting, Writer
from passl.logs.writers.record_file import RecordFile
from passl.logs.writers.visualdl_graph import graph_document
from passl.registry import WRITERS, Runtime

__all__ = ["VisualDL"]

#: VisualDL knows its files by the first part of the name.
_FILE_NAME = "vdlrecords.passl.log"
_GRAPH_NAME = "vdlgraph.passl.log"
_BINS = 50


@WRITERS.register(aliases=("visualdl",))
class VisualDL(Writer):
    """Everything, for VisualDL: ``visualdl --logdir FOLDER``.

    Args:
        run_dir: folder of the run; the files are in its folder ``vdl``.
    """

    program = "VisualDL"
    module = "visualdl"
    install = "pip install visualdl"

    def __init__(self, *, run_dir: Annotated[Path, Runtime()]) -> None:
        super().__init__(run_dir)
        self.folder = run_dir / "vdl"
        self.path = self.folder / _FILE_NAME
        self._file = RecordFile(self.path)
        self._writer: Optional[Any] = None

    def restart(self, points: Iterable[Point], keep: Keep, step: int) -> None:
        """Write the file anew."""
        self.close()
        kept = [record for record in _records(self.path) if _stays(record, keep)] if step else []
        self.path.unlink(missing_ok=True)
        self._graph_path.unlink(missing_ok=True)
        for record in kept:
            self._open().add_record(record)
        self.scalars(list(points))

    def scalars(self, points: Sequence[Point]) -> None:
        """Add points."""
        for tag, value, step, time_s in points:
            self._open().add_scalar(_tag(tag), value, step, walltime=round(time_s * 1000))

    def image(self, tag: str, pixels: np.ndarray, step: int) -> None:
        """Add a picture."""
        self._open().add_image(_tag(tag), pixels, step)

    def histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        """Add a histogram of equal bins."""
        self._open().add_histogram(_tag(tag), values.ravel(), step, buckets=_BINS)

    def settings(self, settings: Mapping[str, Setting], results: Sequence[str]) -> None:
        """Add the row of this run in the table of hyper-parameters."""
        # A number is a number in every run, or VisualDL cannot put the runs side by side.
        plain = {
            name: str(value).lower() if isinstance(value, bool) else
            float(value) if isinstance(value, (int, float)) else value
            for name, value in settings.items()
        }
        self._open().add_hparams(plain, [_tag(tag) for tag in results])

    def graph(self, graph: Graph) -> None:
        """Write the file of the graph.

        Not VisualDL's ``add_graph``: that needs a file which Paddle 3 no longer writes, and changes
        the model.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._graph_path.write_text(json.dumps(graph_document(graph)), encoding="utf-8")

    def how_to_open(self) -> str:
        """The command, for this run."""
        return f"visualdl --logdir {shlex.quote(str(self.folder))}"

    def close(self) -> None:
        """Close the file; adding a point opens it again."""
        self._file.close()
        self._writer = None

    @property
    def _graph_path(self) -> Path:
        return self.folder / _GRAPH_NAME

    def _open(self) -> Any:
        if self._writer is None:
            self._writer = _log_writer(self._file)
        return self._writer


def _log_writer(file: RecordFile) -> Any:
    """VisualDL's LogWriter, which makes records, with a file that needs no thread."""
    from visualdl import LogWriter

    class Direct(LogWriter):
        file_name = str(file.path)  # which the name of a run among others is made of

        def _get_file_writer(self) -> Direct:
            return self

        def add_record(self, record: Any) -> None:
            file.add(_packed(record))

    return Direct(logdir=str(file.path.parent))


def _packed(record: Any) -> bytes:
    data: bytes = record.SerializeToString()
    return struct.pack("<Q", len(data)) + data


def _tag(tag: str) -> str:
    """VisualDL writes "/" as "%" inside, so a "%" would come back as "/"."""
    return tag.replace("%", "percent")


def _records(path: Path) -> Iterator[Any]:
    """The whole records of a file; what a kill tore is not one."""
    from visualdl.proto import record_pb2

    if not path.is_file():
        return
    size = path.stat().st_size
    with open(path, "rb") as file:
        while len(head := file.read(8)) == 8:
            (length,) = struct.unpack("<Q", head)
            if length > size - file.tell():
                return
            data = file.read(length)
            record = record_pb2.Record()
            try:
                record.ParseFromString(data)
            except Exception:  # protobuf's DecodeError, which moved between its versions
                return
            yield record


def _stays(record: Any, keep: Keep) -> bool:
    """Pictures and histograms that are still true; all else is written anew."""
    (value,) = record.values or (None,)
    if value is None or value.WhichOneof("one_value") not in ("image", "histogram"):
        return False
    return keep(value.tag.replace("%", "/"), value.id)

"""Curves, pictures, settings and the graph for VisualDL, in two files of fixed names.

VisualDL shows only the newest file of a folder and cannot take a point back.  So when a run resumes
its file is written anew: the curves from ``metrics.jsonl``, pictures and histograms from the former
file as far as they are still true.

Source: VisualDL 2.5.3, ``proto/record.proto`` (records), ``writer/record_writer.py`` (each after
its length, uint64 little-endian), ``component/graph/graph_component.py`` (keys of the graph).
"""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np

from passl.logs.writers.base import Graph, Keep, Point, Setting, Writer
from passl.logs.writers.visualdl_graph import graph_document
from passl.registry import WRITERS, Runtime

__all__ = ["VisualDL"]

#: VisualDL knows its files by the first part of the name.
_FILE_NAME = "vdlrecords.passl.log"
_GRAPH_NAME = "vdlgraph.passl.log"
#: Points that may wait to be written.  LogWriter of VisualDL 2.5 swaps its two settings on the way
#: to the queue, so both are set; each point is appended to the file at once in any case.
_QUEUE_LENGTH = 1000
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
        self._writer: Optional[Any] = None

    def restart(self, points: Iterable[Point], keep: Keep, step: int) -> None:
        """Write the file anew."""
        self.close()
        kept = [record for record in _records(self.path) if _stays(record, keep)] if step else []
        self.path.unlink(missing_ok=True)
        self._graph_path.unlink(missing_ok=True)
        for record in kept:
            self._open()._get_file_writer().add_record(record)  # LogWriter has no public way
        self.scalars(list(points))

    def scalars(self, points: Sequence[Point]) -> None:
        """Add points; a thread of VisualDL appends them to the file."""
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

    def flush(self) -> None:
        """Write everything to the file now."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Write everything and close the file; adding a point opens it again."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    @property
    def _graph_path(self) -> Path:
        return self.folder / _GRAPH_NAME

    def _open(self) -> Any:
        if self._writer is None:
            # VisualDL announces on stdout that the file exists: it should.
            with contextlib.redirect_stdout(io.StringIO()):
                from visualdl import LogWriter

                self._writer = LogWriter(
                    logdir=str(self.folder),
                    file_name=self.path.name,
                    max_queue=_QUEUE_LENGTH,
                    flush_secs=_QUEUE_LENGTH,
                )
        return self._writer


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

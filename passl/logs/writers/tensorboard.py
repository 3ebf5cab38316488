"""Curves, pictures, settings and the graph for TensorBoard, through tensorboardX.

As for VisualDL the events are written anew when a run resumes: the curves from ``metrics.jsonl``,
pictures and histograms from the former files as far as they are still true.

Source: TensorFlow's record format (length uint64, its checksum uint32, data, checksum uint32);
``_hparams_/*`` of TensorBoard's hparams plugin, as tensorboardX writes them; the bins of
TensorFlow's ``histogram.cc``.
"""

from __future__ import annotations

import math
import shlex
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np

from passl.logs.writers.base import Graph, Keep, Point, Setting, Writer
from passl.logs.writers.record_file import RecordFile
from passl.registry import WRITERS, Runtime

__all__ = ["TensorBoard"]

_EVENTS = "events.out.tfevents.*"


@WRITERS.register(aliases=("tensorboard",))
class TensorBoard(Writer):
    """Everything, for TensorBoard: ``tensorboard --logdir FOLDER``.

    Args:
        run_dir: folder of the run; the files are in its folder ``tensorboard``.
    """

    program = "TensorBoard"
    module = "tensorboardX"
    install = "pip install tensorboardX tensorboard"

    def __init__(self, *, run_dir: Annotated[Path, Runtime()]) -> None:
        super().__init__(run_dir)
        self.folder = run_dir / "tensorboard"
        self._file: Optional[RecordFile] = None
        self._end: Optional[Any] = None

    def restart(self, points: Iterable[Point], keep: Keep, step: int) -> None:
        """Write the events anew."""
        self.close()
        files = sorted(self.folder.glob(_EVENTS))
        kept = [event for file in files for event in _events(file) if _stays(event, keep)]
        for file in files:
            file.unlink()
        self._add(*(kept if step else ()))
        self.scalars(list(points))

    def scalars(self, points: Sequence[Point]) -> None:
        """Add points."""
        from tensorboardX.summary import scalar

        self._add(
            *(_event(scalar(tag, value), step, time_s) for tag, value, step, time_s in points)
        )

    def image(self, tag: str, pixels: np.ndarray, step: int) -> None:
        """Add a picture."""
        from tensorboardX.summary import image

        self._add(_event(image(tag, pixels, dataformats="HWC"), step))

    def histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        """Add a histogram of TensorFlow's bins, which grow with the distance from 0."""
        from tensorboardX.summary import histogram

        self._add(_event(histogram(tag, values, _bins()), step))

    def settings(self, settings: Mapping[str, Setting], results: Sequence[str]) -> None:
        """Begin the row of this run in the table of hyper-parameters."""
        from tensorboardX.summary import hparams

        experiment, start, self._end = hparams(dict(settings), dict.fromkeys(results, 0.0))
        self._add(_event(experiment), _event(start))

    def graph(self, graph: Graph) -> None:
        """Add the graph of the model."""
        from tensorboardX.proto import attr_value_pb2, event_pb2, graph_pb2, node_def_pb2

        def shape(sizes: Sequence[int]) -> Any:
            value = attr_value_pb2.AttrValue()
            dims = value.list.shape.add()
            for size in sizes:
                dims.dim.add().size = size
            return value

        nodes = [node_def_pb2.NodeDef(name="image", op="input")]
        nodes[0].attr["_output_shapes"].CopyFrom(shape(graph.input))
        for layer in graph.nodes:
            node = node_def_pb2.NodeDef(
                name=layer.path, op=layer.kind, input=[layer.source or "image"]
            )
            node.attr["_output_shapes"].CopyFrom(shape(layer.output))
            node.attr["parameters"].i = layer.parameters
            nodes.append(node)
        drawn = graph_pb2.GraphDef(node=nodes).SerializeToString()
        self._add(event_pb2.Event(graph_def=drawn, wall_time=time.time()))

    def finish(self, results: Mapping[str, float]) -> None:  # noqa: ARG002 (the curves say them)
        """End the row of this run in the table of hyper-parameters."""
        if self._end is not None:
            self._add(_event(self._end))

    def how_to_open(self) -> str:
        """The command, for this run."""
        return f"tensorboard --logdir {shlex.quote(str(self.folder))}"

    def close(self) -> None:
        """Close the file; adding a point opens another."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _add(self, *events: Any) -> None:
        if not events:
            return
        packed = [_packed(event) for event in events]
        if self._file is None:
            self._file = RecordFile(self._new_path())
            packed.insert(0, _packed(_first_event()))
        self._file.add(*packed)

    def _new_path(self) -> Path:
        """TensorBoard reads the files of a folder in the order of their names."""
        number = len(list(self.folder.glob(_EVENTS)))
        return self.folder / f"events.out.tfevents.{int(time.time())}.passl.{number:04}"


def _bins() -> list[float]:
    """TensorFlow's: each a tenth wider than the one before it, on both sides of 0."""
    count = math.ceil(math.log(1e20 / 1e-12, 1.1))
    above = [1e-12 * 1.1**number for number in range(count)]
    return [-edge for edge in reversed(above)] + [0.0] + above


def _event(summary: Any, step: int = 0, time_s: Optional[float] = None) -> Any:
    from tensorboardX.proto import event_pb2

    return event_pb2.Event(summary=summary, step=step, wall_time=time_s or time.time())


def _first_event() -> Any:
    """What TensorBoard knows a file of events by."""
    from tensorboardX.proto import event_pb2

    return event_pb2.Event(file_version="brain.Event:2", wall_time=time.time())


def _packed(event: Any) -> bytes:
    from tensorboardX.record_writer import masked_crc32c

    data: bytes = event.SerializeToString()
    head = struct.pack("<Q", len(data))
    sums = [struct.pack("<I", masked_crc32c(part)) for part in (head, data)]
    return head + sums[0] + data + sums[1]


def _events(path: Path) -> Iterator[Any]:
    """The whole events of a file; what a kill tore is not one."""
    from tensorboardX.proto import event_pb2

    size = path.stat().st_size
    with open(path, "rb") as file:
        while len(head := file.read(12)) == 12:
            (length,) = struct.unpack("<Q", head[:8])
            if length + 4 > size - file.tell():
                return
            data = file.read(length + 4)
            event = event_pb2.Event()
            try:
                event.ParseFromString(data[:length])
            except Exception:  # protobuf's DecodeError, which moved between its versions
                return
            yield event


def _stays(event: Any, keep: Keep) -> bool:
    """Pictures and histograms that are still true; all else is written anew."""
    return any(
        value.WhichOneof("value") in ("image", "histo") and keep(value.tag, event.step)
        for value in event.summary.value
    )

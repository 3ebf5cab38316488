"""Curves, pictures, settings and the graph for TensorBoard, through tensorboardX.

As for VisualDL the events are written anew when a run resumes: the curves from ``metrics.jsonl``,
pictures and histograms from the former files as far as they are still true.

Source: TensorFlow's record format (length uint64, its checksum uint32, data, checksum uint32);
``_hparams_/*`` of TensorBoard's hparams plugin, as tensorboardX writes them.
"""

from __future__ import annotations

import shlex
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np

from passl.logs.writers.base import Graph, Keep, Point, Setting, Writer
from passl.registry import WRITERS, Runtime

__all__ = ["TensorBoard"]

_EVENTS = "events.out.tfevents.*"
_FLUSH_S = 10


@WRITERS.register(aliases=("tensorboard",))
class TensorBoard(Writer):
    """Everything, for TensorBoard: ``tensorboard --logdir FOLDER``.

    Args:
        run_dir: folder of the run; the files are in its folder ``tensorboard``.
    """

    program = "TensorBoard"
    module = "tensorboardX"
    install = "pip install 'passl[tensorboard]'"

    def __init__(self, *, run_dir: Annotated[Path, Runtime()]) -> None:
        super().__init__(run_dir)
        self.folder = run_dir / "tensorboard"
        self._writer: Optional[Any] = None
        self._end: Optional[Any] = None

    def restart(self, points: Iterable[Point], keep: Keep, step: int) -> None:
        """Write the events anew."""
        self.close()
        files = sorted(self.folder.glob(_EVENTS))
        kept = [event for file in files for event in _events(file) if _stays(event, keep)]
        for file in files:
            file.unlink()
        if step:
            for event in kept:
                self._events_to().add_event(event, event.step, event.wall_time)
        self.scalars(list(points))

    def scalars(self, points: Sequence[Point]) -> None:
        """Add points."""
        for tag, value, step, time_s in points:
            self._open().add_scalar(tag, value, step, walltime=time_s)

    def image(self, tag: str, pixels: np.ndarray, step: int) -> None:
        """Add a picture."""
        self._open().add_image(tag, pixels, step, dataformats="HWC")

    def histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        """Add a histogram of TensorFlow's bins, which grow with the distance from 0."""
        self._open().add_histogram(tag, values, step, bins="tensorflow")

    def settings(self, settings: Mapping[str, Setting], results: Sequence[str]) -> None:
        """Begin the row of this run in the table of hyper-parameters."""
        from tensorboardX.summary import hparams

        experiment, start, self._end = hparams(dict(settings), dict.fromkeys(results, 0.0))
        for summary in (experiment, start):
            self._events_to().add_summary(summary)

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
        self._events_to().add_event(event_pb2.Event(graph_def=drawn))

    def finish(self, results: Mapping[str, float]) -> None:  # noqa: ARG002 (the curves say them)
        """End the row of this run in the table of hyper-parameters."""
        if self._end is not None:
            self._events_to().add_summary(self._end)

    def how_to_open(self) -> str:
        """The command, for this run."""
        return f"tensorboard --logdir {shlex.quote(str(self.folder))}"

    def flush(self) -> None:
        """Write everything to the file now."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Write everything and close the file; adding a point opens another."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _events_to(self) -> Any:
        return self._open().file_writer

    def _open(self) -> Any:
        if self._writer is None:
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), flush_secs=_FLUSH_S)
        return self._writer


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

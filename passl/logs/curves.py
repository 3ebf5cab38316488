"""The programs that a run hands its figures and pictures to; one that fails costs a warning.

What they are given is what ``metrics.jsonl`` says: each number is a point of a curve called
``<kind>/<name>``, and when a run resumes the curves are drawn anew from its records.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable

from passl.logs.logger import get_logger
from passl.logs.writers.base import Graph, Keep, Point, Setting, Writer

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Curves", "points_of"]

#: Of a record, what is no curve: where it is from, and what another curve or nothing shows.
_NOT_CURVES = (
    *("kind", "step", "epoch", "time", "nonfinite"),
    *("metric", "ema_metric", "samples", "samples_seen"),
)


class Curves:
    """Several writers as one.

    Args:
        writers: none is fine.
    """

    def __init__(self, writers: Sequence[Writer]) -> None:
        self.writers = list(writers)

    def __bool__(self) -> bool:
        return bool(self.writers)

    def restart(self, points: Iterable[Point], keep: Keep, step: int) -> None:
        """See :meth:`Writer.restart`."""
        kept = list(points) if self.writers else []
        self._each(lambda writer: writer.restart(kept, keep, step))

    def add(self, record: Mapping[str, Any]) -> None:
        """Add the numbers of a record of ``metrics.jsonl``."""
        if self.writers:
            points = list(points_of(record))
            self._each(lambda writer: writer.scalars(points))

    def image(self, tag: str, pixels: np.ndarray, step: int) -> None:
        """See :meth:`Writer.image`."""
        self._each(lambda writer: writer.image(tag, pixels, step))

    def histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        """See :meth:`Writer.histogram`; what is not finite is left out."""
        import numpy as np  # readers of records do without

        finite = values[np.isfinite(values)]
        if finite.size:
            self._each(lambda writer: writer.histogram(tag, finite, step))

    def settings(self, settings: Mapping[str, Setting], results: Sequence[str]) -> None:
        """See :meth:`Writer.settings`."""
        self._each(lambda writer: writer.settings(settings, results))

    def graph(self, graph: Graph) -> None:
        """See :meth:`Writer.graph`."""
        self._each(lambda writer: writer.graph(graph))

    def finish(self, results: Mapping[str, float]) -> None:
        """See :meth:`Writer.finish`."""
        self._each(lambda writer: writer.finish(results))

    def how_to_open(self) -> list[str]:
        """The command of each."""
        return [writer.how_to_open() for writer in self.writers]

    def close(self) -> None:
        """Write everything; a later call opens it again."""
        self._each(lambda writer: writer.close())

    def _each(self, call: Callable[..., None]) -> None:
        for writer in list(self.writers):
            try:
                call(writer)
            except Exception as error:  # of any kind: the packages are not ours
                self.writers.remove(writer)
                get_logger().warning(
                    "nothing more is shown in %s, training goes on: %s: %s",
                    writer.program,
                    type(error).__name__,
                    error,
                )


def points_of(record: Mapping[str, Any]) -> Iterator[Point]:
    """The numbers of a record of ``metrics.jsonl``."""
    for name, value in record.items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number and name not in _NOT_CURVES:
            yield Point(f"{record['kind']}/{name}", value, record["step"], record["time"])

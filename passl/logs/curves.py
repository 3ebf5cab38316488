"""VisualDL curves, in one file that a resumed run writes anew.

VisualDL shows only the newest file of a folder and cannot take a point back.  So the file has a
fixed name, and when a run resumes it is rebuilt from ``metrics.jsonl``: curves continue, nothing
overlaps.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Optional

from passl.logs.logger import get_logger

__all__ = ["Curves", "Point"]

#: VisualDL knows its files by the first part of the name.
_FILE_NAME = "vdlrecords.passl.log"
#: Points that may wait to be written.  LogWriter of VisualDL 2.5 swaps its two settings on the way
#: to the queue, so both are set; each point is appended to the file at once in any case.
_QUEUE_LENGTH = 1000


class Point(NamedTuple):
    """One value of one curve such as ``train/loss``; the time is in seconds since 1970."""

    tag: str
    value: float
    step: int
    time_s: float


class Curves:
    """Scalars in ``folder``; does nothing but warn once if VisualDL cannot be used.

    Args:
        folder: made when the first point is added.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / _FILE_NAME
        self._writer: Optional[Any] = None
        self._is_broken = False

    def add(self, point: Point) -> None:
        """Add one point; a thread of VisualDL appends it to the file."""
        writer = self._open()
        if writer is not None:
            time_ms = round(point.time_s * 1000)
            writer.add_scalar(
                point.tag.replace("%", "percent"), point.value, point.step, walltime=time_ms
            )

    def rebuild(self, points: Iterable[Point]) -> None:
        """Replace all curves by ``points``."""
        self.close()
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            self._give_up(f"{self.path} cannot be replaced ({error.strerror})")
        for point in points:
            self.add(point)

    def flush(self) -> None:
        """Write everything to the file now."""
        if self._writer is not None:
            self._writer.file_writer.flush()

    def close(self) -> None:
        """Write everything and close the file; adding a point opens it again."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self) -> Optional[Any]:
        if self._writer is None and not self._is_broken:
            try:
                # VisualDL announces on stdout that the file exists: it should.
                with contextlib.redirect_stdout(io.StringIO()):
                    from visualdl import LogWriter

                    self._writer = LogWriter(
                        logdir=str(self.path.parent),
                        file_name=self.path.name,
                        max_queue=_QUEUE_LENGTH,
                        flush_secs=_QUEUE_LENGTH,
                    )
            except ImportError as error:
                self._give_up(
                    f"VisualDL cannot be imported ({error}); install it with: pip install visualdl"
                )
            except OSError as error:
                self._give_up(f"{self.path} cannot be written ({error.strerror})")
        return self._writer

    def _give_up(self, reason: str) -> None:
        self._is_broken = True
        get_logger().warning(
            "no VisualDL curves: %s. Training goes on; Global.use_visualdl=false silences this.",
            reason,
        )

"""One live line at the bottom of a terminal: where the run is, and when it will end.

    epoch 3/300 [######----------] 412/1251  loss 2.3145  lr 0.000950  1834.2 img/s  eta 26:03:04

A library would bring many more features; what matters here is one thing they make hard: the line
steps aside for log lines, which are printed by :mod:`passl.logs.logger`, on stdout, while the line
is on stderr.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import Callable, NamedTuple, Optional, TextIO

from passl.logs.lines import format_eta
from passl.logs.logger import ConsoleHandler, get_logger
from passl.logs.terminal import columns_of, is_terminal

__all__ = ["CountProgress", "ProgressBar"]

_BAR_WIDTHS = (20, 10)
_CLEAR_LINE = "\r\033[K"
_ROOM = 3  # columns that stay free: for the ^C of a Ctrl-C, and the cursor


class _Told(NamedTuple):
    """What the line is to say."""

    label: str
    done: int
    total: int
    loss: Optional[float] = None
    lr: Optional[float] = None
    ips: Optional[float] = None
    eta_s: Optional[float] = None
    unit: str = "img/s"


class ProgressBar:
    """Redrawn at most five times a second; silent where there is no terminal.

    A context manager; only one should be open at a time.

    Args:
        stream: the terminal; default stderr.
        is_on: force it on or off; default: on if ``stream`` is a terminal that understands control
            codes.
        min_interval_s: seconds between two drawings.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        stream: Optional[TextIO] = None,
        *,
        is_on: Optional[bool] = None,
        min_interval_s: float = 0.2,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self.is_on = is_terminal(self._stream) if is_on is None else is_on
        self._min_interval_s = min_interval_s
        self._clock = clock
        self._drawn_at = float("-inf")
        self._told: Optional[_Told] = None
        if self.is_on:
            for handler in self._consoles():
                handler.live = self

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(
        self,
        *,
        label: str,
        done: int,
        total: int,
        loss: Optional[float] = None,
        lr: Optional[float] = None,
        ips: Optional[float] = None,
        eta_s: Optional[float] = None,
        unit: str = "img/s",
    ) -> None:
        """Tell where the run is; costs next to nothing when it is not time to draw.

        Args:
            label: what is going on: ``"epoch 3/300"``, ``"eval"``.
            done: steps done of it.
            total: steps of it.
            loss: last known loss; reading it for this line would make the loop wait for the device.
            lr: learning rate.
            ips: images per second.
            eta_s: seconds to the end of the run.
            unit: of ``ips``.
        """
        if not self.is_on:
            return
        now = self._clock()
        if now - self._drawn_at < self._min_interval_s and done < total:
            return
        self._drawn_at = now
        self._told = _Told(label, done, total, loss, lr, ips, eta_s, unit)
        self.redraw()

    def clear(self) -> None:
        """Take the line off the screen until it is next drawn."""
        if self.is_on and self._told is not None:
            self._write(_CLEAR_LINE)

    def redraw(self) -> None:
        """Draw the line as it was last told."""
        if self.is_on and self._told is not None:
            width = columns_of(self._stream) - _ROOM
            self._write(_CLEAR_LINE + _line(self._told, width)[:width])

    def close(self) -> None:
        """Remove the line for good."""
        self.clear()
        self._told = None
        for handler in self._consoles():
            if handler.live is self:
                handler.live = None

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self.is_on = False  # the terminal was closed; the run goes on without it

    @staticmethod
    def _consoles() -> list[ConsoleHandler]:
        return [handler for handler in get_logger().handlers if isinstance(handler, ConsoleHandler)]


class CountProgress:
    """How far a count is, and how long it will take: live on a terminal, else a line now and then.

    A context manager; call it with (done, total), and with how many of those done were known
    before, if that shows on the way.

    Args:
        label: what is counted.
        known: of these, done by an earlier start: they tell nothing of the speed.
        unit: what is counted, for the plain lines.
        stream: default stderr.
        every_s: seconds between two plain lines.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        label: str,
        known: int = 0,
        *,
        unit: str = "samples",
        stream: Optional[TextIO] = None,
        every_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label, self._known, self._unit = label, known, unit
        self._stream = sys.stderr if stream is None else stream
        self._bar = ProgressBar(self._stream, clock=clock)
        self._clock, self._every_s = clock, every_s
        self._started = self._told = clock()

    def __enter__(self) -> CountProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def say(self, text: str) -> None:
        """Print a line on stdout; a live line steps aside until it is drawn again."""
        self._bar.clear()
        with suppress(OSError, ValueError):  # nobody reads it any more; the work goes on
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    def __call__(self, done: int, total: int, known: int = 0) -> None:
        """Tell how far it is."""
        now = self._clock()
        known = max(known, self._known)
        if done <= known:
            self._started = now
            self._bar.update(label=self._label, done=done, total=total)
            return
        speed = (done - known) / max(now - self._started, 1e-9)
        eta = (total - done) / max(speed, 1e-9)
        self._bar.update(
            label=self._label,
            done=done,
            total=total,
            ips=speed,
            eta_s=eta,
            unit=f"{self._unit}/s",
        )
        if not self._bar.is_on and now - self._told >= self._every_s:
            self._told = now
            with suppress(OSError, ValueError):  # the reader of our output has left
                self._stream.write(
                    f"{self._label}: {done:,} of {total:,} {self._unit}, {speed:.0f} a second, "
                    f"eta {format_eta(eta)}\n"
                )
                self._stream.flush()


def _line(told: _Told, width: int) -> str:
    """The bar and as many figures as fit: a smaller bar comes first, then the speed goes, the rate
    and the loss, then the bar and what is done; the time that is left goes last, and is never cut:
    the half of a time is another time."""
    figures = [
        (f"loss {told.loss:.4f}", 1) if told.loss is not None else ("", 0),
        (f"lr {told.lr:.3g}", 2) if told.lr is not None else ("", 0),
        (f"{_speed(told.ips)} {told.unit}", 3) if told.ips is not None else ("", 0),
        (f"eta {format_eta(told.eta_s)}", 0) if told.eta_s is not None else ("", 0),
    ]
    line = ""
    for most in (3, 2, 1, 0):
        for bar in _BAR_WIDTHS:
            filled = bar * told.done // max(told.total, 1)
            drawn = f"{'#' * filled}{'-' * (bar - filled)}"
            fields = [f"{told.label} [{drawn}] {told.done}/{told.total}"]
            fields += [text for text, rank in figures if text and rank <= most]
            line = "  ".join(fields)
            if len(line) <= width:
                return line
    count, eta = f"{told.done}/{told.total}", figures[-1][0]
    for words in ([f"{told.label} {count}", eta], [count, eta]):
        line = "  ".join(text for text in words if text)
        if len(line) <= width:
            return line
    return count


def _speed(ips: float) -> str:
    return f"{ips:.1f}" if ips < 1000 else f"{ips:.0f}"

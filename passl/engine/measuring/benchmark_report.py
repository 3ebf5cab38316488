"""What a benchmark found, as numbers for a file and as text for a person; loads no Paddle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Optional

from passl.checkpoint.disk import os_errors_become_sentences
from passl.errors import ConfigError
from passl.json_text import from_json

__all__ = ["PARTS", "Report", "Timing", "compare", "read_report", "write_report"]

_FORMAT = 1
#: What can be measured, in the order of the table.
PARTS = ("forward", "forward_backward", "loader", "step", "together")
_WORDS = {
    "forward": "forward",
    "forward_backward": "forward and backward",
    "loader": "loader alone",
    "step": "step alone",
    "together": "loader and step",
}
#: A loader that gives less than this times what a step takes holds the step up.
_ENOUGH = 1.05


@dataclass(frozen=True)
class Timing:
    """One part of a run.

    Attributes:
        seconds: of one pass: the median, or the mean where batches come in bursts (loader).
        fastest, slowest: seconds of single passes.
        images: of one pass, over all processes.
        flops: floating-point operations of one pass (a multiply-add is two); None: not known.
        wait_s: seconds of a pass that were spent waiting for data.
    """

    seconds: float
    fastest: float
    slowest: float
    images: int
    flops: Optional[float] = None
    wait_s: Optional[float] = None

    @property
    def images_per_s(self) -> float:
        """Images a second over all processes."""
        return self.images / max(self.seconds, 1e-12)


@dataclass
class Report:
    """What was measured, on what.

    Attributes:
        about: model, config, device, versions and sizes, as text or numbers.
        peak_flops: operations a second of the fastest large matrix product here and now, per
            process, in the precision of the run.
        num_processes: processes that shared the work.
        timings: by the names in :data:`PARTS`.
        memory: peak bytes: ``host`` of this process, ``device`` where there is one.
    """

    about: dict[str, Any] = field(default_factory=dict)
    peak_flops: Optional[float] = None
    num_processes: int = 1
    timings: dict[str, Timing] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)

    def utilisation(self, part: str) -> Optional[float]:
        """Share of ``peak_flops`` that a part reaches; None where either is not known."""
        timing = self.timings.get(part)
        if timing is None or timing.flops is None or not self.peak_flops:
            return None
        return timing.flops / timing.seconds / (self.peak_flops * self.num_processes)

    def bottleneck(self) -> str:
        """One sentence on what to look at first."""
        step, loader = self.timings.get("step"), self.timings.get("loader")
        if step is None or loader is None:
            return "not known: that takes the loader and the step, --what loader,step."
        if loader.images_per_s < _ENOUGH * step.images_per_s:
            workers, cores = self.about.get("num_workers"), self.about.get("cores")
            return (
                f"The loader: alone it gives {loader.images_per_s:.4g} images/s, a step alone "
                f"takes {step.images_per_s:.4g}; try more loader.num_workers ({workers} on {cores} "
                "cores now), lighter transforms, or smaller images on disk."
            )
        spare = f"the loader could feed {loader.images_per_s / step.images_per_s:.1f} times as much"
        passes = self.timings.get("forward_backward")
        if passes is None:
            return f"The step; {spare}."
        share = min(1.0, step.images_per_s / passes.images_per_s)
        if share < 0.8:
            return (
                f"The update: {1 - share:.0%} of a step is neither forward nor backward (clipping, "
                f'optimizer, metrics); passl-train -p "start=20;stop=30" shows which; {spare}.'
            )
        used = self.utilisation("forward_backward")
        at = f" at {used:.0%} of the speed of a large matrix product" if used is not None else ""
        return f"Computing: forward and backward are {share:.0%} of a step{at}; {spare}."

    def text(self) -> str:
        """The table, the memory and the sentence."""
        lines = [f"{name}: {value}" for name, value in self.about.items()]
        if self.peak_flops is not None:
            lines.append(f"large matrix product: {self.peak_flops / 1e9:,.1f} GFLOP/s a process")
        rows: list[tuple[str, ...]] = []
        rows.append(("", "ms", "fastest", "slowest", "images/s", "GFLOP/s", "of peak", "waiting"))
        for part in PARTS:
            if part in self.timings:
                rows.append(self._row(part))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines.append("")
        for row in rows:
            cells = [row[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
            lines.append("  ".join(cells).rstrip())
        lines.append("")
        for where, count in self.memory.items():
            lines.append(f"peak memory, {where}: {count / 2**20:,.0f} MiB")
        lines.append(f"bottleneck: {self.bottleneck()}")
        return "\n".join(lines)

    def _row(self, part: str) -> tuple[str, ...]:
        timing, used = self.timings[part], self.utilisation(part)
        seconds = (timing.seconds, timing.fastest, timing.slowest)
        flops = timing.flops / timing.seconds / 1e9 if timing.flops is not None else None
        waiting = timing.wait_s / timing.seconds if timing.wait_s is not None else None
        return (
            _WORDS[part],
            *(f"{each * 1e3:.2f}" for each in seconds),
            f"{timing.images_per_s:,.1f}",
            "-" if flops is None else f"{flops:,.1f}",
            "-" if used is None else f"{used:.0%}",
            "-" if waiting is None else f"{waiting:.0%}",
        )


def write_report(report: Report, path: Path) -> None:
    """Keep a report as JSON, with what can be derived from it written out."""
    content = {"format": _FORMAT, **asdict(report), "bottleneck": report.bottleneck()}
    for part, timing in report.timings.items():
        content["timings"][part]["images_per_s"] = timing.images_per_s
        content["timings"][part]["utilisation"] = report.utilisation(part)
    with os_errors_become_sentences("write", path):
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_report(path: Path) -> Report:
    """The inverse of :func:`write_report`.

    Raises:
        ConfigError: there is no such file, or it is not a report.
    """
    try:
        content = from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, Mapping) or content.get("format") != _FORMAT:
        raise ConfigError(
            f"{path} is not a report of passl-benchmark; write one with passl-benchmark -c CONFIG "
            "--json FILE"
        )
    fields = ("seconds", "fastest", "slowest", "images", "flops", "wait_s")
    return Report(
        about=content["about"],
        peak_flops=content["peak_flops"],
        num_processes=content["num_processes"],
        timings={
            part: Timing(**{name: timing[name] for name in fields})
            for part, timing in content["timings"].items()
        },
        memory=content["memory"],
    )


def compare(before: Report, after: Report) -> str:
    """How ``after`` differs from ``before``: settings, then ratios of what both measured."""
    lines = []
    for name in dict.fromkeys([*before.about, *after.about]):
        old, new = before.about.get(name, "-"), after.about.get(name, "-")
        if old != new:
            lines.append(f"{name}: {old} -> {new}")
    lines += ["", f"{'':26}{'before':>12}{'after':>12}{'ratio':>8}"]

    def row(name: str, old: Optional[float], new: Optional[float]) -> None:
        if old and new:
            lines.append(f"{name:26}{old:>12,.1f}{new:>12,.1f}{new / old:>8.3g}")

    row("peak GFLOP/s", (before.peak_flops or 0) / 1e9, (after.peak_flops or 0) / 1e9)
    for part in PARTS:
        if part in before.timings and part in after.timings:
            speeds = (before.timings[part].images_per_s, after.timings[part].images_per_s)
            row(f"{_WORDS[part]}, im/s", *speeds)
    for where, old in before.memory.items():
        row(f"memory MiB, {where}", old / 2**20, after.memory.get(where, 0) / 2**20)
    return "\n".join(lines).strip("\n")

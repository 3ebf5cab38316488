"""Curves and pictures for Weights & Biases; nothing leaves the machine unless it is told to.

A run keeps its identity in ``wandb/passl_run_id``.  W&B cannot take a point back either: offline, a
resumed run logs its curves anew from ``metrics.jsonl`` into a new folder and removes the former
one, so its earlier pictures are gone; online, W&B continues the run and refuses what came before.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import numpy as np

from passl.logs.writers.base import Graph, Keep, Point, Setting, Writer
from passl.registry import WRITERS, Runtime

__all__ = ["WandB"]

_MOST_BINS = 64


@WRITERS.register(aliases=("wandb",))
class WandB(Writer):
    """Curves, pictures, histograms and settings for Weights & Biases.

    Args:
        run_dir: folder of the run; the files are in its folder ``wandb``.
        project: that the run belongs to.
        run_name: what the run is called; null: the name of its folder.
        mode: ``offline`` writes files only; ``online`` sends them, too; null: as the environment
            variable ``WANDB_MODE`` says, else offline.
    """

    program = "Weights & Biases"
    module = "wandb"
    install = "pip install wandb"

    def __init__(
        self,
        *,
        run_dir: Annotated[Path, Runtime()],
        project: str = "passl",
        run_name: Optional[str] = None,
        mode: Optional[Literal["offline", "online"]] = None,
    ) -> None:
        super().__init__(run_dir)
        self.folder = run_dir / "wandb"
        self.mode: str = mode or os.environ.get("WANDB_MODE") or "offline"
        self._project, self._name = project, run_name or run_dir.name
        self._run: Optional[Any] = None

    def restart(
        self,
        points: Iterable[Point],
        keep: Keep,  # noqa: ARG002 (earlier pictures go)
        step: int,
    ) -> None:
        """Begin a run, or go on with it."""
        self.close()
        if not step:
            self._id_file.unlink(missing_ok=True)
        former = [*self.folder.glob(f"offline-run-*-{self._id()}")] if step else []
        if self.mode == "offline":
            for _, record in groupby(points, key=lambda p: (p.step, p.time_s, p.tag.split("/")[0])):
                self.scalars(list(record))
            for folder in former:
                shutil.rmtree(folder, ignore_errors=True)

    def scalars(self, points: Sequence[Point]) -> None:
        """Log points in one row; their axis is the step of the optimizer."""
        if points:
            self._log({tag: value for tag, value, _, _ in points}, points[0].step)

    def image(self, tag: str, pixels: np.ndarray, step: int) -> None:
        """Log a picture."""
        import wandb

        self._log({tag: wandb.Image(pixels)}, step)

    def histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        """Log a histogram of equal bins."""
        import wandb

        counted = np.histogram(values, bins=_MOST_BINS)
        self._log({tag: wandb.Histogram(np_histogram=counted)}, step)

    def settings(
        self,
        settings: Mapping[str, Setting],
        results: Sequence[str],  # noqa: ARG002 (its summary has the last of every curve)
    ) -> None:
        """What tells the run from others."""
        self._open().config.update(dict(settings), allow_val_change=True)

    def graph(self, graph: Graph) -> None:
        """W&B has no page for it: the number of parameters of each layer is among the settings of
        the model in ``config.yaml``."""

    def finish(self, results: Mapping[str, float]) -> None:
        """The results of the run, in its summary."""
        self._open().summary.update(dict(results))

    def how_to_open(self) -> str:
        """The command that sends what was written; online it is there already."""
        if self.mode == "offline":
            return f"wandb sync {self.folder}/offline-run-*-{self._id()}"
        return str(getattr(self._run, "url", None) or "wandb.ai")

    def close(self) -> None:
        """Write everything; a later call goes on with the run."""
        if self._run is not None:
            self._run.finish()
            self._run = None

    def _log(self, row: Mapping[str, Any], step: int) -> None:
        # W&B's own step may not repeat, and pictures come between two rows of one step.
        self._open().log({**row, "step": step})

    def _open(self) -> Any:
        if self._run is None:
            import wandb

            self.folder.mkdir(parents=True, exist_ok=True)
            self._run = wandb.init(
                project=self._project,
                name=self._name,
                id=self._id(),
                dir=str(self.run_dir),
                mode=self.mode,
                resume="allow" if self.mode == "online" else None,
                settings=wandb.Settings(console="off", silent=True),
            )
            self._run.define_metric("*", step_metric="step")
        return self._run

    @property
    def _id_file(self) -> Path:
        return self.folder / "passl_run_id"

    def _id(self) -> str:
        """The same at every start of the run."""
        if not self._id_file.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._id_file.write_text(secrets.token_hex(4), encoding="utf-8")
        return self._id_file.read_text(encoding="utf-8").strip()

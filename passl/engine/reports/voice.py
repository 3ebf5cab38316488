"""What every part of a run may say, and to whom it goes."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from pathlib import Path

from passl.config import Config
from passl.distributed.world import World
from passl.engine.reports.boards import Boards
from passl.engine.reports.writers import build_writers
from passl.errors import PasslError
from passl.logs.logger import release_log, setup_logging
from passl.logs.metrics import MetricsWriter, Value
from passl.logs.progress import ProgressBar

__all__ = ["Voice"]


class Voice:
    """Plain words, records and names; only the main process has records and boards.

    Args:
        run_dir: folder of the run's files.
        config: what is run.
        mode: ``train`` or ``eval``.
        world: this process among all.
    """

    def __init__(self, run_dir: Path, config: Config, mode: str, world: World) -> None:
        self.run_dir, self.config, self.mode, self.world = run_dir, config, mode, world
        self._logger = setup_logging(run_dir, world.rank, mode, held_back=not world.is_main)
        writers = build_writers(config, run_dir) if world.is_main and mode == "train" else []
        self._metrics = MetricsWriter(run_dir, writers) if world.is_main else None
        self._boards = Boards(config, self._metrics.curves) if self._metrics is not None else None
        self._bar = ProgressBar(is_on=None if world.is_main else False)
        self._loss_names: set[str] = set()  # of training and evaluation, which may differ

    def has_folder(self) -> None:
        """The folder is this job's: what a rank above 0 has said so far goes to its file there."""
        release_log()

    def log(self, text: str) -> None:
        """Say something, line by line."""
        for line in text.splitlines():
            self._logger.info(line)

    def detail(self, text: str) -> None:
        """Say something, line by line, that a terminal is spared."""
        for line in text.splitlines():
            self._logger.info(line, extra={"is_detail": True})

    def warn(self, text: str) -> None:
        """Say something that needs attention."""
        self._logger.warning(text)

    def failed(self, error: BaseException) -> None:
        """Leave the reason in the log file; the command itself tells the terminal."""
        self._bar.close()
        text = str(error) if isinstance(error, PasslError) else traceback.format_exc()
        record = self._logger.makeRecord("passl", logging.ERROR, __file__, 0, text, (), None)
        for handler in self._logger.handlers:
            if isinstance(handler, logging.FileHandler):
                handler.emit(record)
        if self._metrics is not None:
            self._metrics.close()

    def stopped(self, sentence: str) -> None:
        """The last words of a run that was asked to stop before its end.

        The command itself tells the terminal.
        """
        self._bar.close()
        if self._metrics is not None:
            self._metrics.close()
        self.detail(sentence)

    # -- inside ------------------------------------------------------------------------------

    def _split(
        self, values: Mapping[str, float], prefix: str = ""
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Losses, and metrics with PASSL's ``metric`` (the first one again) after the first.

        Args:
            values: by name.
            prefix: put before every name of the result.
        """
        losses = {name: value for name, value in values.items() if name in self._loss_names}
        metrics: dict[str, float] = {}
        for name, value in values.items():
            if name in losses or name in ("grad_norm", "metric"):
                continue
            metrics[name] = value
            if len(metrics) == 1:
                metrics["metric"] = value
        return (
            {prefix + name: value for name, value in losses.items()},
            {prefix + name: value for name, value in metrics.items()},
        )

    def _record(self, kind: str, step: int, epoch: int, values: Mapping[str, Value]) -> None:
        if self._metrics is not None:
            self._metrics.append({"kind": kind, "step": step, "epoch": epoch, **values})

    def _criterion_name(self, values: Mapping[str, float]) -> str:
        _, metrics = self._split({k: v for k, v in values.items() if k != "step"})
        return next(iter(metrics), "metric")

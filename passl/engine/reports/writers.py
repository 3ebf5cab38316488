"""The writers that a config names; never imports Paddle."""

from __future__ import annotations

from pathlib import Path

from passl.config import Config
from passl.errors import ConfigError
from passl.logs.logger import get_logger
from passl.logs.writers.base import Writer
from passl.registry import WRITERS

__all__ = ["build_writers", "check_writers"]


def check_writers(config: Config) -> None:
    """Refuse a writer that is listed twice, and those whose packages are not installed.

    VisualDL comes with this software; where it is missing and nobody asked for it, nothing is said
    here.  A user's own writers, which may import anything, are not looked at.

    Raises:
        ConfigError: saying which, or what to install.
    """
    where = config.origin("Logging.writers")
    if where == "default":
        return
    specs = [WRITERS.spec(item["name"]) for item in config.Logging.writers]
    names = [spec.name for spec in specs if spec is not None]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"{where}: Logging.writers: {' and '.join(twice)} is listed twice, and both would "
            "write the same files; keep one of them"
        )
    for writer in _writers(config, Path(), own_only=True):
        try:
            writer.check()
        except ConfigError as error:
            raise ConfigError(f"{where}: Logging.writers: {error}") from error


def build_writers(config: Config, run_dir: Path) -> list[Writer]:
    """All writers of a run; those of the default that cannot be used cost a warning."""
    found = []
    for writer in _writers(config, run_dir):
        try:
            writer.check()
        except ConfigError as error:
            get_logger().warning("no curves: %s. Training goes on.", error)
            continue
        found.append(writer)
    return found


def _writers(config: Config, run_dir: Path, *, own_only: bool = False) -> list[Writer]:
    found = []
    for item in config.Logging.writers:
        spec = WRITERS.spec(item["name"])
        if spec is not None and spec.name == "VisualDL" and not config.Global.use_visualdl:
            continue
        if own_only and spec is not None and not spec.module.startswith("passl."):
            continue
        found.append(WRITERS.build(item, run_dir=run_dir))
    return found

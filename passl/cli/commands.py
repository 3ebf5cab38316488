"""All commands, a line each; what ``passl --help``, the completion and docs/commands.md list."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

__all__ = ["COMMANDS", "Command"]


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: after ``passl ``, and after ``passl-`` where it has a script of its own.
        summary: one line.
        script: it is installed as ``passl-NAME`` too.
    """

    name: str
    summary: str
    script: bool = True

    @property
    def prog(self) -> str:
        """How the command calls itself."""
        return f"passl-{self.name}" if self.script else f"passl {self.name}"

    def build_parser(self) -> argparse.ArgumentParser:
        """Its parser; imports its module, but not Paddle."""
        parser: argparse.ArgumentParser = self._module().build_parser()
        return parser

    def main(self) -> Callable[[Optional[Sequence[str]]], int]:
        """What runs it."""
        function: Callable[[Optional[Sequence[str]]], int] = self._module().main
        return function

    def _module(self) -> Any:
        return importlib.import_module(f"passl.cli.{self.name}")


#: In the order in which one meets them.
COMMANDS = {
    command.name: command
    for command in (
        Command("new", "write a small config to start from", script=False),
        Command("check", "check a config, and on request its data and the processes of a job"),
        Command("train", "train what a config describes, or go on with it"),
        Command("sweep", "train a config with many values, and see which was best"),
        Command("eval", "the accuracy of a checkpoint"),
        Command("infer", "the likeliest classes of pictures"),
        Command("export", "a trained model for Paddle Inference or ONNX, proven equal"),
        Command("convert", "weights of other programs as ours, and ours as timm's"),
        Command("models", "the models, their sizes and arguments, and public weights"),
        Command("config", "list, show, compare and explain configs"),
        Command("data", "lists and labels of data sets; a look at what a model sees"),
        Command("visualize", "pictures of attention, schedules, weights, curves and mistakes"),
        Command("benchmark", "how fast a config runs here, and what holds it up"),
        Command("completion", "words for the Tab key of bash, zsh and fish", script=False),
    )
}

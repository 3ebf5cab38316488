"""``passl-eval``: the accuracy of a checkpoint on ``DataLoader.Eval``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Optional

from passl.cli.common import config_parser, load_from_args, run_stoppable
from passl.engine.stopping import StopRequest
from passl.errors import EXIT_OK

__all__ = ["build_parser", "main"]

_EPILOG = """examples:
  passl-eval -c quickstart/ViT_micro_digits
  passl-eval -c ViT_base_patch16_224 \\
      -o Global.pretrained_model=output/ViT_base_patch16_224/best

Without Global.pretrained_model the best checkpoint of the run's own folder is evaluated.
"""


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; returns its exit status."""
    return run_stoppable(build_parser(), _evaluate, argv)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = config_parser("passl-eval", "Evaluate the checkpoint of a run.", _EPILOG)
    return parser


def _evaluate(arguments: argparse.Namespace, stop: StopRequest) -> int:
    config = load_from_args(arguments, "eval")
    if arguments.print_config:
        print(config.to_yaml(origins=True), end="")
        return EXIT_OK
    from passl.engine.build import build_run

    build_run(config, "eval").evaluate(stop=stop)
    return EXIT_OK

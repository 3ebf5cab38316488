"""``passl-train``: train what a YAML file describes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Optional

from passl.cli.common import config_parser, load_from_args, run_stoppable
from passl.engine.measuring.profile_window import parse_profile_options
from passl.engine.stopping import StopRequest
from passl.errors import EXIT_OK

__all__ = ["build_parser", "main"]

_EPILOG = """examples:
  passl-train -c quickstart/ViT_micro_digits          a config that ships, in any folder
  passl-train -c my_run.yaml                          passl new my_run --from ... writes one
  passl-train -c ViT_base_patch16_224 -o Global.epochs=100 Global.output_dir=runs/short
  passl-train -c ViT_base_patch16_224 --print-config
  passl-train -c ViT_base_patch16_224 -p "start=20;stop=30"
  python -m paddle.distributed.launch --devices=0,1,2,3 tools/train.py -c ViT_base_patch16_224

exit status: 0 done; 1 failed; 2 a mistake in the config, an override or the data's paths;
75 stopped by SIGTERM, SIGINT, SIGUSR1, SIGHUP, a file STOP in the run's folder or Global.max_time,
with the state saved: run the same command again
"""


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; returns its exit status."""
    return run_stoppable(build_parser(), _train, argv)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = config_parser("passl-train", "Train the model that a YAML file describes.", _EPILOG)
    parser.add_argument(
        "-p",
        "--profiler_options",
        metavar="STEPS",
        help='record where the time of some steps goes, e.g. -p "start=20;stop=30" (stop is left '
        "out, 0 is the first step made); tables and a trace go to the run's folder profile",
    )
    return parser


def _train(arguments: argparse.Namespace, stop: StopRequest) -> int:
    options = arguments.profiler_options
    window = parse_profile_options(options) if options is not None else None
    config = load_from_args(arguments, "train")
    if arguments.print_config:
        print(config.to_yaml(origins=True), end="")
        return EXIT_OK
    from passl.engine.build import build_run

    run = build_run(config, "train")
    if window is None:
        run.fit(stop=stop)
        return EXIT_OK
    from passl.engine.measuring.profiling import profiled

    assert run.trainer is not None  # built to train
    with profiled(run.trainer, window, run.run_dir / "profile"):
        run.fit(stop=stop)
    return EXIT_OK


if __name__ == "__main__":
    raise SystemExit(main())

"""``passl-benchmark``: how fast a config runs here, and what holds it up."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from passl.cli.common import config_parser, load_from_args, run_command
from passl.config import load_config, plan_batches
from passl.distributed.world import read_world
from passl.engine.measuring.benchmark_report import Report, compare, read_report, write_report
from passl.errors import EXIT_OK, ConfigError

__all__ = ["build_parser", "main"]

_PARTS = ("model", "loader", "step", "together")

_EPILOG = """examples:
  passl-benchmark -c quickstart/ViT_micro_digits
  passl-benchmark -c ViT_base_patch16_224 --synthetic -o Global.global_batch_size=4 \\
      Global.device=cpu FP16.level=O0 --what model,loader --json before.json
  passl-benchmark --compare before.json after.json

A step is measured on one batch over and over; the loader alone takes whatever the cores can do, so
on a CPU both together are slower than either. Nothing is written but the file of --json.
"""


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Measure, print, and keep or compare; returns the exit status."""
    return run_command(build_parser(), _run, argv)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = config_parser(
        "passl-benchmark",
        "Measure model, loader and step of a config, alone and together.",
        _EPILOG,
        required=False,
    )
    parser.add_argument(
        "--what",
        default="all",
        metavar="PARTS",
        help="some of model,loader,step,together, with commas; default: all of them",
    )
    parser.add_argument(
        "--steps", type=int, default=10, metavar="N", help="passes of each part (default: 10)"
    )
    parser.add_argument(
        "--synthetic", action="store_true", help="made-up JPEG files in place of the training data"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures in FILE")
    parser.add_argument(
        "--compare",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="one FILE: print ratios of this measurement to it; two: of the second to the first, "
        "and measure nothing",
    )
    return parser


def _run(arguments: argparse.Namespace) -> int:
    files = arguments.compare or []
    if len(files) > 2:
        raise ConfigError(f"--compare takes one file or two, not {len(files)}")
    if len(files) == 2:
        print(compare(read_report(files[0]), read_report(files[1])))
        return EXIT_OK
    if arguments.config is None:
        raise ConfigError("which config? for example: passl-benchmark -c CONFIG.yaml")
    if arguments.print_config:
        print(load_from_args(arguments, "train").to_yaml(origins=True), end="")
        return EXIT_OK
    before = read_report(files[0]) if files else None
    kept = arguments.json
    if kept is not None and (kept.is_dir() or not kept.parent.is_dir()):
        why = "is a folder" if kept.is_dir() else f"there is no folder {kept.parent}"
        raise ConfigError(f"--json {kept}: {why}; name a file that can be written")
    report = _measure(arguments)
    if arguments.override:
        report.about["overrides"] = " ".join(arguments.override)
    if not read_world().is_main:
        return EXIT_OK
    print(report.text())
    if kept is not None:
        write_report(report, kept)
    if before is not None:
        print(f"\n{compare(before, report)}")
    return EXIT_OK


def _measure(arguments: argparse.Namespace) -> Report:
    what = _parts(arguments.what)
    if arguments.steps < 1:
        raise ConfigError(f"--steps must be at least 1, found {arguments.steps}")
    with tempfile.TemporaryDirectory(prefix="passl-benchmark-") as name:
        folder = Path(name)
        overrides = [
            *arguments.override,
            f"Global.output_dir={folder / 'out'}",
            "Global.checkpoint=null",
            "Global.pretrained_model=null",
            "Global.finetune=false",
            "Global.eval_during_train=false",
            "Global.use_visualdl=false",
            "Logging.writers=[]",
        ]
        config = load_config(arguments.config, overrides, mode="train")
        if arguments.synthetic:
            from passl.engine.measuring.synthetic import synthetic_overrides

            size = plan_batches(config, read_world().size).global_batch_size
            overrides += synthetic_overrides(config, folder, max(256, 4 * size))
            config = load_config(arguments.config, overrides, mode="train")
        from passl.engine.build import build_run

        run = build_run(config, "train")
        try:
            from passl.engine.measuring.benchmark import measure

            return measure(run, what, arguments.steps)
        finally:
            run.close()


def _parts(text: str) -> tuple[str, ...]:
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    unknown = sorted(set(wanted) - {*_PARTS, "all"})
    if unknown or not wanted:
        raise ConfigError(
            f"--what {text!r}: write some of {', '.join(_PARTS)}, with commas between, or all"
        )
    return _PARTS if "all" in wanted else tuple(wanted)


if __name__ == "__main__":
    raise SystemExit(main())

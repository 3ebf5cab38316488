"""``passl-check --dist``: the preflight, as a command."""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import sys

from passl.cli.common import load_from_args
from passl.distributed.world import read_world
from passl.errors import EXIT_FAILED, EXIT_OK, ConfigError

__all__ = ["add_dist_options", "check_dist"]

_HOW_TO_RUN = """one process, with no other to talk to; to check a job, start this like the job:
  python -m paddle.distributed.launch --nproc_per_node 2 tools/check.py --dist -c FILE
  tools/launch_multinode.sh --check -- -c FILE        (on every node)"""


def add_dist_options(parser: argparse.ArgumentParser) -> None:
    """``--dist`` and ``--timeout``."""
    parser.add_argument(
        "--dist",
        action="store_true",
        help="under the launcher: meet the other processes, name who is missing, compare settings",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds that the processes have to come, for --dist (default 60)",
    )


def check_dist(arguments: argparse.Namespace) -> int:
    """Run the preflight and print its table on rank 0; returns the exit status.

    Raises:
        ConfigError: the options or the config are wrong.
        PreflightError: ranks are missing or cannot talk to each other.
    """
    if not arguments.timeout > 0:
        raise ConfigError(f"--timeout must be above 0 seconds; got {arguments.timeout:g}")
    config_hash = ""
    if arguments.config is not None:
        text = load_from_args(arguments, arguments.mode).to_yaml(origins=False)
        config_hash = hashlib.sha256(text.encode()).hexdigest()[:12]
    world = read_world()
    from passl.distributed.preflight import run_preflight

    # The last resort, if Paddle never returns and never lets another thread run.
    faulthandler.dump_traceback_later(3 * arguments.timeout + 60, exit=True)
    try:
        report = run_preflight(config_hash=config_hash, timeout_s=arguments.timeout)
    finally:
        faulthandler.cancel_dump_traceback_later()
    if not world.is_main:
        return EXIT_OK
    print(report.table())
    for name, seconds in report.timings_s.items():
        print(f"{name}: {seconds:.3f} s")
    for warning in report.warnings:
        print(f"warning: {warning}")
    for error in report.errors:
        print(f"passl-check: {error}", file=sys.stderr)
    if report.errors:
        return EXIT_FAILED
    if world.is_distributed:
        print(f"all {world.size} processes are here and agree")
    else:
        print(_HOW_TO_RUN)
    return EXIT_OK

"""Start a training command again when it fails, from its last checkpoint.

    python tools/supervise.py --max-restarts 3 -- python -m paddle.distributed.launch \
        --devices=0,1,2,3 tools/train.py -c configs/ViT_base_patch16_224.yaml

docs/stopping.md says when it starts again and when not.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Optional

from passl.engine.faults.supervise import Supervisor
from passl.errors import EXIT_CONFIG, PasslError
from passl.logs.streams import give_up_broken_streams, open_closed_streams


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Supervise the command; returns 0, 1, 2 or 75."""
    parser = argparse.ArgumentParser(
        prog="supervise", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--max-restarts", type=int, default=3, help="at most so often (default: 3)")
    parser.add_argument(
        "--delay", type=float, default=5.0, help="seconds before a new start (default: 5)"
    )
    parser.add_argument(
        "--notes",
        type=Path,
        default=Path("supervise"),
        help="folder for notes (default: supervise)",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- and the command")
    arguments = parser.parse_args(argv)
    command = [part for n, part in enumerate(arguments.command) if n or part != "--"]
    if not command or arguments.max_restarts < 0 or not 0 <= arguments.delay < math.inf:
        parser.error("give the command after --, and --max-restarts and --delay of at least 0")
    folder = arguments.notes / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"

    def say(text: str) -> None:
        with suppress(OSError):  # a log on a full disk; the job goes on
            print(f"supervise: {text}", file=sys.stderr, flush=True)

    open_closed_streams()
    try:
        return Supervisor(command, folder, arguments.max_restarts, arguments.delay, say).run()
    except PasslError as error:
        say(str(error))
        return EXIT_CONFIG
    finally:
        give_up_broken_streams()


if __name__ == "__main__":
    sys.exit(main())

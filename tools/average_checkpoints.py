"""Average the weights of checkpoints into one file.

    python tools/average_checkpoints.py output/X/checkpoints/step_000* -o averaged.pdparams
    passl-eval -c X.yaml -o Global.pretrained_model=averaged.pdparams

A checkpoint is a folder, a link (best, best_ema) or a .pdparams file.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Optional

from passl.checkpoint.average import average_checkpoints
from passl.errors import PasslError


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Write the mean; returns 0, or 1 with a sentence on stderr."""
    parser = argparse.ArgumentParser(
        prog="average_checkpoints",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoints", nargs="+", help="what to average")
    parser.add_argument("-o", "--output", required=True, help="file to write, *.pdparams")
    arguments = parser.parse_args(argv)
    try:
        files = average_checkpoints(arguments.checkpoints, arguments.output)
    except PasslError as error:
        print(f"average_checkpoints: {error}", file=sys.stderr)
        return error.exit_code
    for file, count in Counter(files).items():
        if count > 1:
            print(f"average_checkpoints: note: {file} counts {count} times", file=sys.stderr)
    names = "\n".join(f"  {file}" for file in files)
    print(f"{arguments.output} is the mean of {len(files)} checkpoints:\n{names}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

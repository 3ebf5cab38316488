"""Measure; `passl-benchmark` as a file, for `python -m paddle.distributed.launch`."""

import sys

from passl.cli.benchmark import main

if __name__ == "__main__":
    sys.exit(main())

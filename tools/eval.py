"""Evaluate weights; `passl-eval` as a file, for `python -m paddle.distributed.launch`."""

import sys

from passl.cli.eval import main

if __name__ == "__main__":
    sys.exit(main())

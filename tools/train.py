"""Train; `passl-train` as a file, for `python -m paddle.distributed.launch`."""

import sys

from passl.cli.train import main

if __name__ == "__main__":
    sys.exit(main())

"""Get data sets ready for training; `passl-data` as a file."""

import sys

from passl.cli.data import main

if __name__ == "__main__":
    sys.exit(main())

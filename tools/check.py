"""Check a config file without training; `passl-check` as a file."""

import sys

from passl.cli.check import main

if __name__ == "__main__":
    sys.exit(main())

"""Classify images; `passl-infer` as a file."""

import sys

from passl.cli.infer import main

if __name__ == "__main__":
    sys.exit(main())

"""Convert weights of other programs; `passl-convert` as a file."""

import sys

from passl.cli.convert import main

if __name__ == "__main__":
    sys.exit(main())

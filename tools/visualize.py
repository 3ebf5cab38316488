"""Draw a model, a run or its mistakes; `passl-visualize` as a file."""

import sys

from passl.cli.visualize import main

if __name__ == "__main__":
    sys.exit(main())

"""Export a trained model; `passl-export` as a file."""

import sys

from passl.cli.export import main

if __name__ == "__main__":
    sys.exit(main())

"""``python -m passl``: the command ``passl``."""

import sys

from passl.cli.main import main

sys.exit(main())

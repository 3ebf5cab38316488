"""``passl-*`` where PASSL is not installed."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

_REPO = Path(__file__).resolve().parents[2]


def command_dir(folder: Path) -> Path:
    """A new folder with the commands that the environment lacks; empty if it has them."""
    commands = folder / "bin"
    commands.mkdir()
    table = re.findall(r'"(passl[\w-]*)=([\w.]+):(\w+)"', (_REPO / "setup.py").read_text())
    assert table, "setup.py declares the commands"
    for name, module, function in table:
        if os.access(Path(sys.executable).parent / name, os.X_OK):
            continue
        (commands / name).write_text(
            f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\n"
            f"sys.exit({function}())\n"
        )
        (commands / name).chmod(0o755)
    return commands

"""The line above a table: when and where it was measured, and with what."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from passl.runtime import available_cores

__all__ = ["measured", "processor", "versions"]

_PADDLES = ("paddlepaddle", "paddlepaddle-gpu")


def measured(*packages: str) -> str:
    """``Measured DATE on PROCESSOR, N cores; Python ..., paddlepaddle ...``, without a full stop.

    Args:
        packages: distributions to name besides Paddle's; those that are not installed are left out.
    """
    found = versions((*_PADDLES, *packages))
    cores = available_cores()
    return (
        f"Measured {time.strftime('%Y-%m-%d')} on {processor()}, {cores} core{'s' * (cores > 1)}; "
        f"Python {platform.python_version()}{''.join(f', {text}' for text in found)}"
    )


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Its name, as the system tells it."""
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else ""
    found = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def versions(packages: Sequence[str], python: str = sys.executable) -> list[str]:
    """``name version`` of each that ``python`` has installed; none of them is imported."""
    if python == sys.executable:
        return [text for text in map(_installed, packages) if text]
    code = f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]\n" + (
        "from measured import versions\nprint(*versions(sys.argv[1:]), sep='\\n')"
    )
    done = subprocess.run(
        [python, "-c", code, *packages], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.split("\n")[:-1]


def _installed(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return ""

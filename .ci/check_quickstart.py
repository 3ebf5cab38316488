"""Fail unless the quick start reached its validation accuracy.

    python .ci/check_quickstart.py RUN_FOLDER LEAST_TOP1
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> int:
    """Compare the best evaluation in ``metrics.jsonl`` with the promise; returns an exit status."""
    folder, least = Path(sys.argv[1]), float(sys.argv[2])
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    evals = [record for record in map(json.loads, lines) if record["kind"] == "eval"]
    best = max(record["top1"] for record in evals)
    print(f"quick start: best top-1 {best:.4f} of {len(evals)} evaluations; promised: {least}")
    return 0 if best >= least else 1


if __name__ == "__main__":
    sys.exit(main())

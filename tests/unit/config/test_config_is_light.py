"""Checking a config costs moments and imports neither Paddle nor NumPy."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys, time
from passl.config import load_config, plan_batches
config = load_config("configs/ViT_base_patch16_224.yaml", ["Global.epochs=2"], mode="train")
plan_batches(config, 8).describe()
config.to_yaml(origins=True)
print(time.process_time())  # of the whole process: other work on the machine does not count
print([name for name in ("paddle", "numpy", "cv2", "PIL") if name in sys.modules])
"""


def test_no_heavy_import_and_no_long_work(repo):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=repo, capture_output=True, text=True, check=True
    )
    seconds, heavy = done.stdout.split("\n")[:2]
    assert heavy == "[]"
    assert float(seconds) < 10.0  # a third of one; far more on a slow machine

"""Writes weight_selection_indices.npz: the places that torch's linspace selects.

    /path/to/python-with-torch tests/golden/make_weight_selection.py

Only where the student's size does not divide the teacher's; LLaMA 7B's sizes to iLLaMA-T, S, B
and L, and some that no model has.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

SIZES = {
    4096: (192, 384, 768),
    11008: (512, 1024, 2048, 2816),
    12288: (576, 1152, 2304),
    5120: (192, 768),
    997: (2, 3, 331, 996),
}

if __name__ == "__main__":
    places = {
        f"{length}/{count}": torch.linspace(0, length - 1, count).round().numpy().astype(np.int16)
        for length, counts in SIZES.items()
        for count in counts
    }
    np.savez_compressed(Path(__file__).with_name("weight_selection_indices.npz"), **places)

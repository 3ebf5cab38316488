"""Writes augment.npz: timm's operations at fixed levels, on a piece of a photograph.

    python tests/golden/make_augment.py

Needs timm, which the project itself does not.  timm decides the sign of an argument by Python's
``random``; here it is held to one side at a time.
"""

from __future__ import annotations

import random
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image
from timm.data import auto_augment

LEVELS = [0, 3.7, 9, 10, 14]
RANDOM = {"GaussianBlurRand", "TranslateX", "TranslateY"}  # a random radius; other units here
SIGNS = {"plus": 0.25, "minus": 0.75}
FILL = (124, 116, 104)


def main() -> None:
    photo = load_sample_image("china.jpg")[150:182:2, 300:340:2]
    arrays = {"image": photo}
    names = [name for name in auto_augment.NAME_TO_OP if name not in RANDOM]
    for name in names:
        for level in LEVELS:
            for sign, draw in SIGNS.items():
                if keeps_no_bit(name, level):
                    continue
                arrays[f"{name}/{level:g}/{sign}"] = apply(photo, name, level, draw)
    for key in [key for key in arrays if key.endswith("/minus")]:
        if np.array_equal(arrays[key], arrays[key.replace("minus", "plus")]):
            del arrays[key]  # an operation without a sign
    np.savez_compressed(Path(__file__).with_name("augment.npz"), **arrays)


def keeps_no_bit(name: str, level: float) -> bool:
    """Pillow 13 refuses to posterize to 0 bits, and timm fails where a policy asks for it."""
    if not name.startswith("Posterize"):
        return False
    return auto_augment.LEVEL_TO_ARG[name](level, {})[0] < 1


def apply(photo: np.ndarray, name: str, level: float, draw: float) -> np.ndarray:
    """One operation of timm, always applied, with levels up to 20."""
    settings = {
        "img_mean": FILL,
        "interpolation": Image.Resampling.BICUBIC,
        "magnitude_max": 20,
    }
    operation = auto_augment.AugmentOp(name, prob=1.0, magnitude=level, hparams=settings)
    with mock.patch.object(random, "random", return_value=draw):
        return np.asarray(operation(Image.fromarray(photo)))


if __name__ == "__main__":
    main()

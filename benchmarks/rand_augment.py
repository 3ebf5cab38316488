"""Milliseconds of processor time of RandAugment an image, against timm's.

    python benchmarks/rand_augment.py [--rounds 5] [--images 400]

The policy is rand-m9-mstd0.5-inc1 on a photograph of 224 x 224, from array to array; ours includes
the generator of each sample. Rounds are interleaved and medians printed. Needs timm. With Pillow 13
timm 1.0.31 fails in about one of a thousand images; these are counted, and not in its time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Callable

import numpy as np
from measured import measured
from PIL import Image
from sklearn.datasets import load_sample_image
from timm.data.auto_augment import rand_augment_transform

from passl.data.rng import sample_rng
from passl.data.transforms.auto_augment import TimmAutoAugment

POLICY = "rand-m9-mstd0.5-inc1"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=400)
    arguments = parser.parse_args()
    image = np.ascontiguousarray(load_sample_image("china.jpg")[100:324, 100:324])
    ours, theirs = TimmAutoAugment(config_str=POLICY), timms()
    times: dict[str, list[float]] = {"passl": [], "timm": []}
    failed = 0
    for _ in range(arguments.rounds):
        started = time.process_time()
        for index in range(arguments.images):
            ours(image, sample_rng(0, 0, index))
        times["passl"].append((time.process_time() - started) / arguments.images)
        spent, done = 0.0, 0
        for _ in range(arguments.images):
            started = time.process_time()
            try:
                np.asarray(theirs(Image.fromarray(image)))
            except ValueError:
                failed += 1
                continue
            spent, done = spent + time.process_time() - started, done + 1
        times["timm"].append(spent / done)
    print(f"{measured('numpy', 'pillow', 'timm')}.")
    for name, values in times.items():
        print(f"{name:6}{1000 * statistics.median(values):8.3f} ms an image")
    ratio = statistics.median(a / b for a, b in zip(times["passl"], times["timm"]))
    print(f"ratio {ratio:.2f}; timm failed in {failed} of {arguments.rounds * arguments.images}")


def timms() -> Callable[[Image.Image], Image.Image]:
    """The same policy of timm."""
    settings = {"img_mean": (124, 116, 104), "interpolation": Image.Resampling.BICUBIC}
    return rand_augment_transform(POLICY, settings)


if __name__ == "__main__":
    main()

"""Images per second of the ImageNet training chain, against the same chain in plain Pillow.

    python benchmarks/data_loading.py [--rounds 5]

64 JPEG files (500 x 375, quality 90) are cut from scikit-learn's two photographs. The chain is
decode, random resized crop to 224 (bicubic), flip, normalise, channels first, into a batch of 64.
Rounds are interleaved and medians printed. "exact" rows give Pillow's pixels; the cv2 row resizes
with OpenCV.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Callable

import numpy as np
from PIL import Image

from passl.data.datasets.imagenet import ImageNetDataset
from passl.data.loader import Loader
from passl.data.samplers import DistributedBatchSampler
from passl.registry import TRANSFORMS

IMAGES, SIDE, MEAN, STD = 64, 224, 0.5, 0.5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_photos(root)
        rows = contestants(root)
        times: dict[str, list[float]] = {name: [] for name in rows}
        for number in range(rounds + 1):
            for name, run in rows.items():
                started = time.perf_counter()
                run(number)
                if number:  # the first round warms up
                    times[name].append(time.perf_counter() - started)
    rates = {name: IMAGES / statistics.median(values) for name, values in times.items()}
    base = next(iter(rates.values()))
    print(f"{os.cpu_count()} cores, {IMAGES} images, medians of {rounds} interleaved rounds")
    print(f"{'chain':52}{'images/s':>10}{'ratio':>8}")
    for name, rate in rates.items():
        print(f"{name:52}{rate:10.0f}{rate / base:8.2f}")


def contestants(root: Path) -> dict[str, Callable[[int], None]]:
    """Name -> a function that makes one batch of all images; the first is the yardstick."""
    paths = sorted(root.glob("*.jpg"))

    def pillow(number: int) -> None:
        rng = np.random.default_rng(number)
        crop = TRANSFORMS.build({"name": "RandCropImage", "size": SIDE})
        np.stack([pillow_sample(path, crop, rng) for path in paths])

    rows: dict[str, Callable[[int], None]] = {"Pillow and numpy, 1 thread": pillow}
    for workers in (0, 1, 2):
        rows[f"passl exact, float32 on the host, {workers} workers"] = ours(
            root, "pil", workers, False
        )
    for workers in (0, 1, 2):
        rows[f"passl exact, uint8 to the device, {workers} workers"] = ours(
            root, "pil", workers, True
        )
    rows["passl backend cv2, uint8 to the device, 2 workers"] = ours(root, "cv2", 2, True)
    return rows


def pillow_sample(path: Path, crop: Any, rng: np.random.Generator) -> np.ndarray:
    """One image by Pillow and numpy alone: float32 [3, 224, 224]."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    top, left, height, width = crop.draw(image.height, image.width, rng)
    image = image.crop((left, top, left + width, top + height))
    image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(image).astype(np.float32) * np.float32(1 / 255)
    return ((pixels - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1)


def ours(root: Path, backend: str, workers: int, on_device: bool) -> Callable[[int], None]:
    """The loader with PASSL's chain."""
    chain: list[dict[str, Any]] = [
        {"name": "DecodeImage"},
        {"name": "RandCropImage", "size": SIDE, "interpolation": "bicubic", "backend": backend},
        {"name": "RandFlipImage"},
        {"name": "NormalizeImage", "mean": [MEAN] * 3, "std": [STD] * 3, "order": ""},
        {"name": "ToCHWImage"},
    ]
    dataset = ImageNetDataset(
        image_root=str(root),
        cls_label_path=str(root / "list.txt"),
        transform_ops=[TRANSFORMS.build(op) for op in chain],
    )
    sampler = DistributedBatchSampler(num_samples=IMAGES, batch_size=IMAGES, seed=0, shuffle=True)
    loader = Loader(dataset, sampler, num_workers=workers, normalize_on_device=on_device)

    def run(number: int) -> None:
        for _ in loader.epoch(number):
            pass

    return run


def write_photos(root: Path) -> None:
    """64 different parts of two photographs, and their list."""
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(image) for image in load_sample_images().images]
    rng, lines = np.random.default_rng(0), []
    for number in range(IMAGES):
        photo = photos[number % len(photos)]
        width = int(rng.integers(480, 569))
        height = width * 3 // 4
        left = int(rng.integers(0, photo.width - width + 1))
        top = int(rng.integers(0, photo.height - height + 1))
        part = photo.crop((left, top, left + width, top + height)).resize((500, 375))
        buffer = io.BytesIO()
        part.save(buffer, "JPEG", quality=90)
        (root / f"{number:03d}.jpg").write_bytes(buffer.getvalue())
        lines.append(f"{number:03d}.jpg {number % 2}\n")
    (root / "list.txt").write_text("".join(lines))


if __name__ == "__main__":
    main()

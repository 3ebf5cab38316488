"""Photographs that nobody took, to measure a loader where the data is not at hand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from passl.config import Config
from passl.errors import ConfigError

__all__ = ["NUM_IMAGES", "synthetic_overrides"]

#: Enough that they are not all in the processor's cache, few enough to be written in a second.
NUM_IMAGES = 64
#: Height and width; the mean image of ImageNet has about these.
_SIZE = (375, 500)


def synthetic_overrides(config: Config, folder: Path, num_samples: int) -> list[str]:
    """Write images into ``folder`` and return the overrides that train on them.

    Decoding and transforms cost what they cost for ImageNet: JPEG files of 375 x 500 pixels and
    about 50 KB.

    Args:
        config: what to measure; its ``DataLoader.Train`` reads image files.
        folder: an empty folder.
        num_samples: length of the list; the images repeat in it.

    Raises:
        ConfigError: the config's data set does not read image files by list or by folder.
    """
    train = config.DataLoader.Train
    name = train.dataset["name"] if train is not None else None
    if name not in ("ImageNetDataset", "ImageFolder"):
        raise ConfigError(
            f"{config.origin('DataLoader.Train.dataset')}: DataLoader.Train.dataset: --synthetic "
            f"makes image files for ImageNetDataset and ImageFolder, not for {name}; leave it out "
            "to measure with the data set itself"
        )
    classes = int(config.Model.get("class_num", 2))
    paths = _write_images(folder / "images", min(classes, NUM_IMAGES))
    if name == "ImageFolder":
        return [f"DataLoader.Train.dataset.root={folder / 'images'}"]
    labels = [f"{paths[i % NUM_IMAGES]} {i % NUM_IMAGES % classes}" for i in range(num_samples)]
    listing = folder / "list.txt"
    listing.write_text("\n".join(labels) + "\n", encoding="utf-8")
    return [
        f"DataLoader.Train.dataset.image_root={folder / 'images'}",
        f"DataLoader.Train.dataset.cls_label_path={listing}",
    ]


def _write_images(root: Path, num_classes: int) -> list[str]:
    """One JPEG after the other into folders of classes; returns their paths below ``root``."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(NUM_IMAGES):
        folder = f"{number % num_classes:04d}"
        (root / folder).mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        image = cv2.resize(coarse, _SIZE[::-1], interpolation=cv2.INTER_CUBIC).astype(np.float32)
        fine = rng.normal(0.0, 12.0, (_SIZE[0] // 2, _SIZE[1] // 2, 3)).astype(np.float32)
        image += cv2.resize(fine, _SIZE[::-1])  # grain, which JPEG keeps: about 50 KB a file
        path = f"{folder}/{number:03d}.jpg"
        pixels = np.clip(image, 0, 255).astype(np.uint8)
        cv2.imwrite(str(root / path), pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])
        paths.append(path)
    return paths

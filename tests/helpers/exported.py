"""A trained run of the small config, pictures of it on disk, and exports of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from small_run import RunFolder

from passl.config import load_config
from passl.data.datasets.digits import DigitsDataset
from passl.export.exporter import ExportResult, export_model

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


class Trained:
    """Five steps of training, and the digits it is evaluated on.

    Args:
        root: an empty folder.
    """

    def __init__(self, root: Path) -> None:
        self.run = RunFolder(root)
        assert self.run.train("Global.max_train_step=5") == 0
        self.digits = DigitsDataset(split="val", in_chans=1)
        self.labels = root / "names.txt"
        self.labels.write_text("\n".join(NAMES) + "\n")
        self.pictures = root / "pictures"
        self.pictures.mkdir()
        for index in range(7):
            Image.fromarray(self.pixels(index)[:, :, 0]).save(self.pictures / f"{index}.png")

    def pixels(self, index: int) -> np.ndarray:
        """uint8 [8, 8, 1]."""
        return np.asarray(self.digits.load(index)[0])

    def all_pixels(self) -> np.ndarray:
        """uint8 [359, 8, 8, 1]."""
        return np.stack([self.pixels(index) for index in range(len(self.digits))])

    def inputs(self, pixels: np.ndarray) -> np.ndarray:
        """What the model takes, float32 [n, 1, 8, 8], by the closed form of the transforms."""
        # Not divided by 255: of a pixel between two steps of int8 the last bit decides.
        unit = pixels.astype(np.float32) * np.float32(1 / 255)
        return ((unit - np.float32(0.5)) / np.float32(0.5)).transpose(0, 3, 1, 2).copy()

    def export(self, out: Path, *settings: str, photos: Sequence[str] = ()) -> ExportResult:
        """Export into ``out`` with ``Export.KEY=VALUE`` settings."""
        overrides = [f"Export.{text}" for text in settings]
        return export_model(load_config(self.run.config_file, overrides), out, photos)

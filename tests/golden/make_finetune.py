"""Writes finetune.npz with torch, timm and SciPy, which the project itself does not need.

    python tests/golden/make_finetune.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from scipy.ndimage import zoom
from timm.layers import resample_patch_embed
from timm.models import adapt_input_conv
from timm.optim import param_groups_layer_decay

GRIDS = [(3, 5), (4, 4), (7, 6), (11, 13), (1, 1)]
PATCHES = [(4, 4), (16, 16), (6, 10), (12, 12)]
CHANNELS = [1, 2, 4, 7]


def main() -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "grid": rng.normal(size=(7, 5, 4)).astype(np.float32),
        "kernel": rng.normal(size=(4, 3, 8, 8)).astype(np.float32),
    }
    grid = torch.tensor(arrays["grid"]).double().permute(2, 0, 1)[None]
    settings = {
        "bicubic": {"mode": "bicubic"},
        "bicubic_antialias": {"mode": "bicubic", "antialias": True},
        "bilinear": {"mode": "bilinear"},
    }
    for rows, columns in GRIDS:
        for method, arguments in settings.items():
            resized = F.interpolate(grid, size=(rows, columns), align_corners=False, **arguments)
            arrays[f"grid/{method}/{rows}x{columns}"] = resized[0].permute(1, 2, 0).float().numpy()
        resized = zoom(arrays["grid"], (rows / 7, columns / 5, 1), order=1)
        assert resized.shape[:2] == (rows, columns)
        arrays[f"grid/zoom/{rows}x{columns}"] = resized
    kernel = torch.tensor(arrays["kernel"])
    for size in PATCHES:
        arrays[f"kernel/{size[0]}x{size[1]}"] = resample_patch_embed(kernel, list(size)).numpy()
    for channels in CHANNELS:
        arrays[f"channels/{channels}"] = adapt_input_conv(channels, kernel).numpy()
    arrays.update(layer_decay("vit_base_patch16_224"))
    np.savez_compressed(Path(__file__).with_name("finetune.npz"), **arrays)


def layer_decay(name: str) -> dict[str, np.ndarray]:
    """What timm says of each parameter: its name, factor on the rate, and weight decay."""
    model = timm.create_model(name)
    groups = param_groups_layer_decay(
        model, weight_decay=0.05, no_weight_decay_list=model.no_weight_decay(), layer_decay=0.75
    )
    names = {id(param): key for key, param in model.named_parameters()}
    rows = [
        (names[id(param)], group["lr_scale"], group["weight_decay"])
        for group in groups
        for param in group["params"]
    ]
    return {
        "layer_decay/names": np.array([row[0] for row in rows]),
        "layer_decay/lr_scale": np.array([row[1] for row in rows]),
        "layer_decay/weight_decay": np.array([row[2] for row in rows]),
    }


if __name__ == "__main__":
    main()

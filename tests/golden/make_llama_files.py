"""Writes illama_released.pth and vit_llama_released.pth, laid out as both repositories save theirs.

    /path/to/python-with-torch tests/golden/make_llama_files.py

Source: the ``save_model`` of techmonsterwang/iLLaMA (utils.py) and the ``save_on_master`` call of
ziqipang/LM4VisualEncoding (main.py), for the entries and their kinds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent


def weights(name: str) -> dict[str, torch.Tensor]:
    """The parameters of a golden model."""
    with np.load(HERE / f"{name}.npz") as file:
        return {key[6:]: torch.tensor(file[key]) for key in file.files if key.startswith("param/")}


def average(model: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Of the weights: the same tensors but one, so that the file stays small."""
    return {**model, "norm.weight": model["norm.weight"] + 0.5}


def optimizer(lr: object) -> dict[str, object]:
    """A state of AdamW, of the first parameter only."""
    state = {"step": torch.tensor(3.0), "exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)}
    group = {"lr": lr, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.05, "params": [0]}
    return {"state": {0: state}, "param_groups": [group]}


if __name__ == "__main__":
    scaler = {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 7}
    illama = weights("illama")
    torch.save(
        {
            "model": illama,
            "optimizer": optimizer(np.float64(4e-3)),  # the schedule's own type
            "epoch": "best",
            "scaler": {},
            "args": argparse.Namespace(model="illama_tiny", device="cuda", mask_mode="soft"),
            "model_ema": average(illama),
        },
        HERE / "illama_released.pth",
    )
    vit_llama = weights("vit_llama")
    torch.save(
        {
            "model": vit_llama,
            "optimizer": optimizer(1e-3),
            "lr_scheduler": {"base_values": [1e-3], "t_initial": 300, "metric": None},
            "epoch": 299,
            "model_ema": average(vit_llama),
            "scaler": scaler,
            "args": argparse.Namespace(model="vit_llama_small_patch16_224", output_dir=Path("out")),
        },
        HERE / "vit_llama_released.pth",
    )

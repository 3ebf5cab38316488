"""Make ``attention.npz``: attention probabilities and rollouts of timm's models on torch.

Needs torch and timm, and takes the weights and images of ``vit.npz`` and ``deit_distilled.npz``::

    python tests/golden/make_attention.py tests/golden

The probabilities are what reaches timm's own dropout of attention, caught by a hook.  The rollout
is written in torch, from the formula of Abnar and Zuidema 2020.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer

SIZES: dict[str, Any] = {
    "img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4, "num_classes": 10,
}
MODELS = {"vit": VisionTransformer, "deit_distilled": VisionTransformerDistilled}
IMAGES = 2


def attention_of(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """[layers, b, h, n, n]."""
    caught: list[torch.Tensor] = []
    for block in model.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _, inputs, __: caught.append(inputs[0]))
    with torch.no_grad():
        model(x)
    return torch.stack(caught)


def rollout_of(attention: torch.Tensor) -> torch.Tensor:
    """[layers, b, n, n] of the mean of the heads."""
    flows: list[torch.Tensor] = []
    for layer in attention.double().mean(2):
        step = layer + torch.eye(layer.shape[-1], dtype=torch.float64)
        step = step / step.sum(-1, keepdim=True)
        flows.append(step @ flows[-1] if flows else step)
    return torch.stack(flows)


def main(folder: Path) -> None:
    """Write the file into ``folder``, where the weights are."""
    arrays: dict[str, np.ndarray] = {}
    for name, kind in MODELS.items():
        with np.load(folder / f"{name}.npz") as file:
            golden = dict(file)
        model = kind(**SIZES).eval()
        weights = {k[6:]: torch.from_numpy(v) for k, v in golden.items() if k.startswith("param/")}
        model.load_state_dict(weights)
        attention = attention_of(model, torch.from_numpy(golden["x"][:IMAGES]))
        arrays[f"{name}/attention"] = attention.numpy()
        arrays[f"{name}/rollout"] = rollout_of(attention).numpy()
    np.savez_compressed(folder / "attention.npz", **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Make ``train_trajectory.npz``: forty training steps computed by PyTorch instead of by passl.

Two interpreters, as PaddlePaddle and PyTorch rarely live in one; the first gives the starting
weights, the images and the order of samples, the second computes without importing passl::

    python tests/golden/make_train_trajectory.py inputs /tmp/inputs.npz          # passl
    python tests/golden/make_train_trajectory.py train /tmp/inputs.npz tests/golden   # torch

The network is written out below from the paper (arXiv:2010.11929, pre-norm blocks, exact GELU) on
plain tensors in [out, in] layout and computed in float64, so that the file holds the trajectory
itself and not one library's rounding.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np

NUM_STEPS = 40
BATCH_SIZE = 100  # 1438 samples: 15 steps an epoch, the last one of 38
MODEL = {
    "img_size": 8,
    "patch_size": 4,
    "in_chans": 1,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "class_num": 10,
    "qkv_bias": True,
    "epsilon": 1e-6,
    "init_scheme": "passl",
}
SMOOTHING = 0.1
CLIP_NORM = 1.0
WARMUP_STEPS = 6
#: optimizer -> (highest rate, weight decay, decays everything)
RECIPES = {"adamw": (1e-2, 0.05, False), "momentum": (0.05, 1e-3, True)}
KEPT_STEPS = (10, NUM_STEPS)


def export_inputs(path: Path) -> None:
    """Starting weights ([out, in]), the digits as uint8, and the order of three epochs."""
    import passl
    from passl.data.datasets.digits import DigitsDataset
    from passl.data.samplers import DistributedBatchSampler

    model = passl.create_model("VisionTransformer", seed=2021, **MODEL)
    weights = {name: value.numpy() for name, value in model.named_parameters()}
    digits = DigitsDataset(split="train", in_chans=1)
    images = np.stack([digits.load(index)[0][..., 0] for index in range(len(digits))])
    sampler = DistributedBatchSampler(
        num_samples=len(digits), batch_size=BATCH_SIZE, seed=2021, shuffle=True
    )
    arrays = {f"start/{name}": flip(name, value) for name, value in weights.items()}
    order = np.stack([sampler.order(epoch) for epoch in (1, 2, 3)]).astype(np.int16)
    np.savez_compressed(path, images=images, labels=digits.labels, order=order, **arrays)


def flip(name: str, value: np.ndarray) -> np.ndarray:
    """Between Paddle's [in, out] and [out, in]; matrices of Linear layers only."""
    return value.T if value.ndim == 2 and name.endswith(".weight") else value


def train_in_torch(inputs: Path, folder: Path) -> None:
    """Both recipes, each in one piece and with four micro-batches, which must agree."""
    given = dict(np.load(inputs))
    start = {name[6:]: value for name, value in given.items() if name.startswith("start/")}
    kept = {f"start/{name}": value for name, value in start.items()}
    kept["order"] = given["order"]
    for recipe in RECIPES:
        whole = run(recipe, start, given, num_parts=1)
        parts = run(recipe, start, given, num_parts=4)
        for name, value in whole.items():
            np.testing.assert_allclose(parts[name], value, rtol=1e-7, atol=1e-9, err_msg=name)
        kept.update({f"{recipe}/{name}": value for name, value in whole.items()})
    np.savez_compressed(folder / "train_trajectory.npz", **kept)


def run(recipe: str, start: dict, given: dict, num_parts: int) -> dict:
    """Train; the loss, norm and rate of each step, and the weights after some."""
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(1)
    weights = {
        name: torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for name, value in start.items()
    }
    optimizer = make_optimizer(recipe, weights)
    pixels = torch.from_numpy(given["images"]).double() / 255.0
    pixels = (pixels - 0.5) / 0.5
    labels = torch.from_numpy(given["labels"]).long()
    log: dict = {"loss": [], "grad_norm": [], "lr": []}
    weights_after = {}
    for step, chosen in enumerate(batches(given["order"])):
        rate = rate_at(step, RECIPES[recipe][0])
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        loss = 0.0
        for part in np.array_split(chosen, num_parts):
            logits = forward(weights, pixels[part])
            total = F.cross_entropy(
                logits, labels[part], label_smoothing=SMOOTHING, reduction="sum"
            )
            (total / len(chosen)).backward()
            loss += total.item() / len(chosen)
        norm = torch.nn.utils.clip_grad_norm_(list(weights.values()), CLIP_NORM)
        optimizer.step()
        for name, value in (("loss", loss), ("grad_norm", norm.item()), ("lr", rate)):
            log[name].append(value)
        if step + 1 in KEPT_STEPS:
            for name, value in weights.items():
                weights_after[f"step{step + 1}/{name}"] = value.detach().numpy().astype(np.float32)
    return {**{name: np.array(values) for name, values in log.items()}, **weights_after}


def batches(order: np.ndarray):
    """The indices of each step."""
    steps = [
        epoch[start : start + BATCH_SIZE].astype(np.int64)
        for epoch in order
        for start in range(0, len(epoch), BATCH_SIZE)
    ]
    return steps[:NUM_STEPS]


def rate_at(step: int, highest: float) -> float:
    """A line from 0 over the warm-up, then half a cosine to 0 at the end of the run."""
    if step < WARMUP_STEPS:
        return highest * step / WARMUP_STEPS
    passed = (step - WARMUP_STEPS) / (NUM_STEPS - WARMUP_STEPS)
    return highest * (1.0 + math.cos(math.pi * passed)) / 2.0


def make_optimizer(recipe: str, weights: dict):
    """AdamW without decay of vectors and embeddings; SGD with decay of everything."""
    import torch

    _, decay, everything = RECIPES[recipe]
    spared = {
        name
        for name, value in weights.items()
        if not everything and (value.ndim <= 1 or name in ("pos_embed", "cls_token"))
    }
    groups = [
        {"params": [v for k, v in weights.items() if k not in spared], "weight_decay": decay},
        {"params": [v for k, v in weights.items() if k in spared], "weight_decay": 0.0},
    ]
    if recipe == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.999), eps=1e-8)
    groups = [group for group in groups if group["params"]]
    return torch.optim.SGD(groups, lr=0.0, momentum=0.9)


def forward(w: dict, images):
    """Logits [B, 10] of images [B, 8, 8]."""
    import torch
    import torch.nn.functional as F

    width, patch = MODEL["embed_dim"], MODEL["patch_size"]
    count, side = len(images), MODEL["img_size"] // MODEL["patch_size"]

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name):
        return F.layer_norm(x, (width,), w[f"{name}.weight"], w[f"{name}.bias"], MODEL["epsilon"])

    def attention(x, name):
        heads = MODEL["num_heads"]
        qkv = linear(x, f"{name}.qkv").reshape(count, -1, 3, heads, width // heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-1, -2)) / math.sqrt(width // heads)
        return linear((scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape), f"{name}.proj")

    tiles = images.reshape(count, side, patch, side, patch).permute(0, 1, 3, 2, 4)
    tokens = tiles.reshape(count, side * side, patch * patch)
    filters = w["patch_embed.proj.weight"].reshape(width, -1)
    x = tokens @ filters.T + w["patch_embed.proj.bias"]
    x = torch.cat([w["cls_token"].expand(count, -1, -1), x], dim=1) + w["pos_embed"]
    for block in range(MODEL["depth"]):
        at = f"blocks.{block}"
        x = x + attention(norm(x, f"{at}.norm1"), f"{at}.attn")
        hidden = F.gelu(linear(norm(x, f"{at}.norm2"), f"{at}.mlp.fc1"))
        x = x + linear(hidden, f"{at}.mlp.fc2")
    return linear(norm(x, "norm")[:, 0], "head")


if __name__ == "__main__":
    if sys.argv[1:2] == ["inputs"] and len(sys.argv) == 3:
        export_inputs(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["train"] and len(sys.argv) == 4:
        train_in_torch(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        sys.exit(__doc__)

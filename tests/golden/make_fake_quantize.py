"""Fake quantization as PyTorch computes it, forward and backward, for tests of int8.

python tests/golden/make_fake_quantize.py     # an interpreter with torch
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

rng = np.random.default_rng(5)
x = (rng.normal(size=(64, 33)) * 2).astype(np.float32)
out = {"x": x}
for name, lo, hi in (("both", -3.0, 4.5), ("above", 0.0, 2.0), ("below", -2.5, 0.0)):
    scale = np.float32(np.float32(hi) - np.float32(lo)) / np.float32(255)
    zero = int(np.clip(np.rint(np.float32(-lo) / scale), 0, 255))
    t = torch.tensor(x, requires_grad=True)
    y = torch.fake_quantize_per_tensor_affine(t, float(scale), zero, 0, 255)
    y.backward(torch.ones_like(y))
    out[f"{name}_values"] = y.detach().numpy()
    out[f"{name}_grad"] = t.grad.numpy().astype(np.uint8)
w = (rng.normal(size=(9, 7, 2, 2))).astype(np.float32)
out["w"] = w
for axis in (0, 1):
    axes = tuple(a for a in range(4) if a != axis)
    s = np.abs(w).max(axes) / np.float32(127)
    y = torch.fake_quantize_per_channel_affine(
        torch.tensor(w), torch.tensor(s), torch.zeros(len(s), dtype=torch.int32), axis, -127, 127
    )
    out[f"w_axis{axis}"] = y.numpy()
np.savez_compressed(Path(__file__).with_name("fake_quantize.npz"), **out)

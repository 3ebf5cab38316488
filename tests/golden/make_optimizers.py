"""Make ``more_optimizers.npz``: weights after each step of timm's optimizers.

Needs torch and timm::

    python tests/golden/make_optimizers.py tests/golden

A matrix that decays and a vector that does not, with the same random gradients for all, computed in
double precision and kept in float32.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.optim.adafactor import Adafactor
from timm.optim.adan import Adan
from timm.optim.lamb import Lamb
from timm.optim.lars import Lars
from timm.optim.lion import Lion

_PLAIN_LAMB = {"max_grad_norm": None}  # clipping of all gradients together is not its matter
_LARC = {"trust_coeff": 0.02, "trust_clip": True, "always_adapt": True}
STEPS, SHAPE = 6, (18, 20)  # timm factors what has more than 16 rows and columns
#: case -> timm's class, its options, learning rate, weight decay of the matrix
CASES: dict[str, tuple[Any, dict[str, Any], float, float]] = {
    "adan": (Adan, {}, 1e-2, 0.1),
    "adan_no_prox": (Adan, {"no_prox": True, "eps": 1e-3}, 1e-2, 0.1),
    "lion": (Lion, {}, 1e-3, 1.0),
    "lamb": (Lamb, _PLAIN_LAMB, 1e-2, 0.05),
    "lamb_clip": (Lamb, {**_PLAIN_LAMB, "always_adapt": True, "trust_clip": True}, 0.1, 0.05),
    "lars": (Lars, {"momentum": 0.9}, 1.0, 0.01),
    "lars_nesterov": (Lars, {"momentum": 0.9, "nesterov": True, "trust_coeff": 0.01}, 1.0, 0.01),
    "larc": (Lars, {"momentum": 0.9, **_LARC}, 0.05, 0.01),
    "adafactor": (Adafactor, {"scale_parameter": False}, 1e-2, 0.1),
    "adafactor_beta1": (Adafactor, {"betas": (0.9, 0.0), "clip_threshold": 0.5}, 1e-2, 0.1),
    # Without a rate, timm takes the paper's, which is 0.01 times the size of the parameter here.
    "adafactor_scaled": (Adafactor, {}, 0.0, 0.1),
}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {
        "w0": rng.normal(size=SHAPE).astype("float32"),
        "b0": rng.normal(size=SHAPE[1]).astype("float32"),
        "grads_w": rng.normal(size=(STEPS, *SHAPE)).astype("float32"),
        "grads_b": rng.normal(size=(STEPS, SHAPE[1])).astype("float32"),
    }
    for case, (make, options, lr, decay) in CASES.items():
        weight, bias = (
            torch.nn.Parameter(torch.from_numpy(arrays[name]).double()) for name in ("w0", "b0")
        )
        groups = [
            {"params": [weight], "weight_decay": decay}, {"params": [bias], "weight_decay": 0.0}
        ]
        optimizer = make(groups, lr=lr or None, **options)
        kept: dict[str, list[np.ndarray]] = {"w": [], "b": []}
        for grad_w, grad_b in zip(arrays["grads_w"], arrays["grads_b"]):
            weight.grad = torch.from_numpy(grad_w).double()
            bias.grad = torch.from_numpy(grad_b).double()
            optimizer.step()
            kept["w"].append(weight.detach().numpy().astype("float32"))
            kept["b"].append(bias.detach().numpy().astype("float32"))
        arrays |= {f"{case}/{name}": np.stack(values) for name, values in kept.items()}
    np.savez_compressed(folder / "more_optimizers.npz", **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

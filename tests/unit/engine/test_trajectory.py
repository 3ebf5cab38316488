"""Forty steps of the real trainer against the same forty steps computed by PyTorch in float64.

Model, data path, smoothed loss, ragged batches, accumulation, clipping, schedule, parameter groups
and optimizers at once; ``tests/golden/make_train_trajectory.py`` wrote the other side.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from small_run import digits_config

import passl
from passl.checkpoint.files import write_arrays
from passl.engine.hooks.base import Hook

GOLDEN = Path(__file__).parents[2] / "golden" / "train_trajectory.npz"
WIDTH = 16
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {
        "name": "AdamW",
        "weight_decay": 0.05,
        "no_weight_decay_1d": True,
        "no_weight_decay_name": ["pos_embed", "cls_token"],
        "grad_clip": {"clip_norm": 1.0},
    },
    "momentum": {
        "name": "Momentum",
        "momentum": 0.9,
        "weight_decay": 1e-3,
        "grad_clip": {"clip_norm": 1.0},
    },
}
RATES = {"adamw": 1e-2, "momentum": 0.05}


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN))


@pytest.mark.parametrize(
    ("recipe", "accum_steps"), [("adamw", 1), ("adamw", 4), ("momentum", 1), ("momentum", 4)]
)
def test_forty_steps_are_those_of_pytorch(tmp_path, golden, recipe, accum_steps):
    run = passl.build_run(passl.load_config(write_config(tmp_path, golden, recipe, accum_steps)))
    assert run.trainer is not None
    order = golden["order"].astype(np.int64)
    run.trainer.parts.loader.sampler.order = lambda epoch: order[epoch - 1]
    snapshots = Snapshots(steps=(10, 40))
    run.trainer.parts.hooks = [snapshots]
    run.fit()

    log = (run.run_dir / "metrics.jsonl").read_text().splitlines()
    records = [record for record in map(json.loads, log) if record["kind"] == "train"]
    for name, tolerance in (("lr", 1e-12), ("loss", 2e-5), ("grad_norm", 1e-4)):
        np.testing.assert_allclose(
            [record[name] for record in records], golden[f"{recipe}/{name}"], rtol=tolerance
        )
    for step, weights in snapshots.weights.items():
        for name, value in weights.items():
            np.testing.assert_allclose(
                visible(name, value),
                visible(name, flip(name, golden[f"{recipe}/step{step}/{name}"])),
                rtol=0,
                atol=1e-5,
                err_msg=f"{name} after step {step}",
            )


class Snapshots(Hook):
    """Copies the weights after some steps."""

    def __init__(self, steps: tuple[int, ...]) -> None:
        self.steps = steps
        self.weights: dict[int, dict[str, np.ndarray]] = {}

    def on_step_end(self, trainer: Any) -> None:
        if trainer.state.step in self.steps:
            self.weights[trainer.state.step] = {
                name: value.numpy().copy() for name, value in trainer.parts.model.named_parameters()
            }


def visible(name: str, value: np.ndarray) -> np.ndarray:
    """Without the bias of the attention's keys.

    It shifts all scores of a query alike, so its gradient is 0; AdamW divides the rounding that is
    there instead by its own size and takes full steps in directions that mean nothing.
    """
    if name.endswith("qkv.bias"):
        return np.delete(value, slice(WIDTH, 2 * WIDTH))
    return value


def flip(name: str, value: np.ndarray) -> np.ndarray:
    """[out, in] to Paddle's [in, out]; matrices of Linear layers only."""
    return value.T if value.ndim == 2 and name.endswith(".weight") else value


def write_config(
    folder: Path, golden: dict[str, np.ndarray], recipe: str, accum_steps: int
) -> Path:
    """The run of the golden file's script in a config's words."""
    starts = {name[6:]: value for name, value in golden.items() if name.startswith("start/")}
    start = folder / "start.pdparams"
    write_arrays(start, {name: flip(name, value) for name, value in starts.items()})
    config = digits_config(folder / "out")
    config["Global"] = {
        **config["Global"],
        "epochs": None,
        "max_train_step": 40,
        "accum_steps": accum_steps,
        "print_batch_step": 1,
        "eval_during_train": False,
        "pretrained_model": str(start),
    }
    config["Model"].update(qkv_bias=True, epsilon=1e-6, drop_rate=0.0, drop_path_rate=0.0)
    config["Loss"]["Train"] = [{"CELoss": {"weight": 1.0, "epsilon": 0.1}}]
    config["LRScheduler"] = {
        "name": "Cosine",
        "learning_rate": RATES[recipe],
        "warmup_steps": 6,
    }
    config["Optimizer"] = OPTIMIZERS[recipe]
    config["DataLoader"]["Train"]["sampler"]["batch_size"] = 100
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path

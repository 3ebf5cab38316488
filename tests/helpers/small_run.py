"""A small real run for the tests: scikit-learn's digits, a two-block transformer, a few steps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
import pytest
import yaml

import passl
from passl.checkpoint.files import read_arrays
from passl.cli import train

_NORMALIZE = [
    {"NormalizeImage": {"mean": [0.5], "std": [0.5], "order": "", "channel_num": 1}},
    {"ToCHWImage": None},
]


def digits_config(output_dir: Path) -> dict[str, Any]:
    """Five epochs of a model small enough that a step takes milliseconds."""
    part = {
        split: {
            "dataset": {
                "name": "DigitsDataset",
                "split": split,
                "in_chans": 1,
                "transform_ops": _NORMALIZE,
            },
            "sampler": {
                "name": "DistributedBatchSampler",
                "batch_size": 256,
                "shuffle": split == "train",
                "drop_last": False,
            },
            "loader": {"num_workers": 1},
        }
        for split in ("train", "val")
    }
    return {
        "Global": {
            "epochs": 5,
            "output_dir": str(output_dir),
            "print_batch_step": 2,
            "device": "cpu",
            "use_visualdl": False,
        },
        "Model": {
            "name": "VisionTransformer",
            "img_size": 8,
            "patch_size": 4,
            "in_chans": 1,
            "embed_dim": 16,
            "depth": 2,
            "num_heads": 2,
            "mlp_ratio": 2.0,
            "class_num": 10,
            "drop_rate": 0.1,
            "drop_path_rate": 0.1,
        },
        "Loss": {"Train": [{"CELoss": {"weight": 1.0}}], "Eval": [{"CELoss": {"weight": 1.0}}]},
        "LRScheduler": {"name": "ViTLRScheduler", "learning_rate": 0.01, "warmup_steps": 3},
        "Optimizer": {"name": "AdamW", "weight_decay": 0.05, "grad_clip": {"clip_norm": 1.0}},
        "DataLoader": {"Train": part["train"], "Eval": part["val"]},
        "Metric": {
            "Train": [{"TopkAcc": {"topk": [1, 5]}}],
            "Eval": [{"TopkAcc": {"topk": [1, 5]}}],
        },
    }


class RunFolder:
    """One run of the small config: starts it, and reads what it wrote."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config_file = root / "config.yaml"
        root.mkdir(parents=True, exist_ok=True)
        self.config_file.write_text(yaml.safe_dump(digits_config(root / "out"), sort_keys=False))

    @property
    def dir(self) -> Path:
        return self.root / "out" / "VisionTransformer"

    def train(self, *overrides: str) -> int:
        return train.main(["-c", str(self.config_file), *self.options(overrides)])

    def options(self, overrides: Sequence[str]) -> list[str]:
        return ["-o", *overrides] if overrides else []

    def weights(self, link: str = "latest") -> dict[str, np.ndarray]:
        return read_arrays(self.dir / link / "model.pdparams")

    def optimizer(self, link: str = "latest") -> dict[str, np.ndarray]:
        return read_arrays(self.dir / link / "optimizer.pdopt")

    def state(self, link: str = "latest") -> dict[str, Any]:
        return json.loads((self.dir / link / "state.json").read_text())["state"]

    def records(self, kind: Optional[str] = None) -> list[dict[str, Any]]:
        lines = (self.dir / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        return [record for record in records if kind is None or record["kind"] == kind]

    def log(self, name: str = "train.log") -> str:
        return (self.dir / name).read_text()


#: Fields of a record that no two runs have in common.
_TIMES = {"batch_cost", "reader_cost", "ips", "host_mem_gb", "max_mem_gb", "eta_s", "time"}


def without_times(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of a run, without what the machine does to them."""
    return [
        {key: value for key, value in record.items() if key not in _TIMES} for record in records
    ]


def built(run: RunFolder, *overrides: str) -> passl.engine.build.Run:
    """The run of a folder, built and not yet started."""
    return passl.build_run(passl.load_config(run.config_file, list(overrides)))


def assert_same_arrays(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    """Same names, and equal bit for bit."""
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype, name
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@pytest.fixture
def run_folder(tmp_path: Path) -> RunFolder:
    """A fresh run of the small config."""
    return RunFolder(tmp_path / "run")


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[[str], RunFolder]:
    """Several fresh runs by name."""
    return lambda name: RunFolder(tmp_path / name)

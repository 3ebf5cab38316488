"""ViT, iLLaMA and ViT-LLaMA on real digits: the quick start's recipe trains each of them alike."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from passl.cli import train

CHANCE = 0.1
LLAMA = Path(__file__).parents[1] / "golden" / "llama_7b_layout"
#: What differs from the quick start's model, and the hooks.
MODELS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "VisionTransformer": ({"qkv_bias": True, "init_scheme": "timm"}, []),
    "iLLaMA": (
        {"multiple_of": 8}, [{"name": "SoftMask", "schedule": "linear", "cutoff_epochs": 6}]
    ),
    "ViT_LLaMA": ({"llama_path": str(LLAMA)}, []),
}
SHARED = (
    "img_size", "patch_size", "in_chans", "class_num", "embed_dim", "depth", "num_heads",
    "mlp_ratio", "drop_path_rate", "epsilon",
)


def accuracy(repo: Path, folder: Path, name: str) -> tuple[float, int]:
    """Validation accuracy after the last epoch, and the number of images it is of."""
    config = yaml.safe_load((repo / "configs/quickstart/ViT_micro_digits.yaml").read_text())
    arguments, hooks = MODELS[name]
    shared = {key: config["Model"][key] for key in SHARED}
    config["Model"] = {"name": name, **shared, **arguments}
    config["Hooks"] = hooks
    config["Global"].update(output_dir=str(folder), use_visualdl=False)
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config))
    assert train.main(["-c", str(file)]) == 0
    lines = (folder / name / "metrics.jsonl").read_text().splitlines()
    last = [record for record in map(json.loads, lines) if record["kind"] == "eval"][-1]
    return last["top1"], last["samples"]


@pytest.mark.slow
def test_all_three_learn_real_digits_within_noise_of_each_other(repo, tmp_path):
    found = {name: accuracy(repo, tmp_path, name) for name in MODELS}
    best = max(top1 for top1, _ in found.values())
    for name, (top1, samples) in found.items():
        assert top1 > 8 * CHANCE, found
        # four standard deviations of the difference of two such counts
        noise = 4 * math.sqrt(2 * best * (1 - best) / samples)
        assert best - top1 < noise, (name, found)

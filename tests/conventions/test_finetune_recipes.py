"""The fine-tuning recipes have the values of the systems they are from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from passl.config import load_config
from passl.registry import SCHEDULES

REPO = Path(__file__).resolve().parents[2]
STEPS = sorted(path.stem for path in REPO.glob("configs/*_cifar*_ft.yaml"))


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)


def test_the_recipes_ship() -> None:
    assert set(STEPS) == {
        f"ViT_{size}_cifar{classes}_ft"
        for size in ("base_patch16_224", "base_patch16_384", "large_patch32_224")
        for classes in (10, 100)
    }
    for size in ("base", "large"):
        assert (REPO / f"configs/ViT_{size}_patch16_384_ft.yaml").exists()


@pytest.mark.parametrize("name", STEPS)
def test_a_cifar_recipe_has_the_values_of_the_original_code(name: str) -> None:
    """The defaults of jeonsworld/ViT-pytorch's command line."""
    config = load_config(f"configs/{name}.yaml", mode="train")
    assert config.Optimizer is not None
    assert config.Optimizer.grad_clip is not None
    size = int(name.split("_")[3])
    classes = int(name.split("_")[4].removeprefix("cifar"))
    assert config.Global.finetune
    assert config.Global.epochs is None
    assert (config.Global.max_train_step, config.Global.global_batch_size) == (10000, 512)
    assert (config.Global.eval_interval, config.Global.eval_unit) == (100, "step")
    assert config.Optimizer.component == {
        "name": "Momentum", "momentum": 0.9, "weight_decay": 0.0, "use_nesterov": False,
    }  # fmt: skip
    assert config.Optimizer.grad_clip.clip_norm == 1.0
    assert config.FP16.GradScaler.init_loss_scaling == 2**20
    assert (config.Model["class_num"], config.Model["drop_rate"]) == (classes, 0.1)
    assert config.Model["representation_size"] is None
    assert config.Model["img_size"] == size
    assert config.Model["init_scheme"] == "google"  # the head starts at zero
    assert [term.component["name"] for term in config.Loss.Train] == ["CELoss"]
    for section, first in ((config.DataLoader.Train, "RandomResizedCrop"),
                           (config.DataLoader.Eval, "ResizeImage")):  # fmt: skip
        assert section is not None
        assert section.dataset["name"] == f"CIFAR{classes}"
        resized, normalized, _ = section.dataset["transform_ops"]
        assert (resized["name"], resized["size"]) == (first, size)
        assert (normalized["mean"], normalized["std"]) == ([0.5] * 3, [0.5] * 3)
        assert resized.get("scale", (0.05, 1.0)) == (0.05, 1.0)
    assert config.DataLoader.Eval is not None
    assert config.DataLoader.Eval.dataset["split"] == "val"


def rates(*overrides: str) -> Any:
    """The schedule of a recipe's 10,000 steps."""
    config = load_config("configs/ViT_base_patch16_224_cifar10_ft.yaml", list(overrides))
    assert config.LRScheduler is not None
    steps = config.Global.max_train_step
    return SCHEDULES.build(config.LRScheduler, total_steps=steps, steps_per_epoch=98)


@pytest.mark.parametrize(
    ("step", "cosine", "linear"),
    [
        (0, 0.0, 0.0),
        (1, 6e-5, 6e-5),
        (250, 0.015, 0.015),
        (500, 0.03, 0.03),
        (2500, 0.0268371076, 0.0236842105),
        (5250, 0.015, 0.015),
        (9999, 8e-10, 3.1579e-6),
        (10000, 0.0, 0.0),
    ],
)
def test_the_rates_are_those_of_the_original_code(step: int, cosine: float, linear: float) -> None:
    """Executed: ViT-pytorch's WarmupCosineSchedule and WarmupLinearSchedule, 10,000 and 500."""
    assert rates()(step) == pytest.approx(cosine, rel=3e-2 if step == 9999 else 1e-8, abs=1e-15)
    found = rates("LRScheduler.decay_type=linear")(step)
    assert found == pytest.approx(linear, rel=1e-4 if step == 9999 else 1e-8, abs=1e-15)


@pytest.mark.parametrize(("step", "rate"), [(5250, 0.015005), (10000, 1e-5)])
def test_googles_line_ends_above_zero(step: int, rate: float) -> None:
    schedule = rates("LRScheduler.decay_type=linear", "LRScheduler.linear_end=1e-5")
    assert schedule(step) == pytest.approx(rate, rel=1e-8)


def test_the_short_runs_of_the_documentation_are_valid() -> None:
    for steps, warmup in ((500, 100), (1000, 100)):
        schedule = rates(f"Global.max_train_step={steps}", f"LRScheduler.warmup_steps={warmup}")
        assert (schedule(warmup), schedule(steps)) == (pytest.approx(0.03), pytest.approx(0.0))

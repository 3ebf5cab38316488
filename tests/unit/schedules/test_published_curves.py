"""The recipes of iLLaMA and ViT-LLaMA have the learning rates of the published logs and code."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from passl.config import Config, load_config
from passl.registry import SCHEDULES
from passl.schedules.base import Schedule

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
IMAGENET1K, IMAGENET21KP = 1_281_167, 11_060_223
#: Mean rate of an epoch.  Source: ``train_lr`` of the logs in techmonsterwang/iLLaMA.
_TINY = {
    0: 3.989737010904423e-4, 1: 1.1994868505452213e-3, 150: 2.0431179124244117e-3,
    299: 1.0379759434612073e-6,
}
ILLAMA: dict[str, tuple[int, dict[int, float]]] = {
    "iLLaMA_tiny_patch16_224": (IMAGENET1K, _TINY),
    "iLLaMA_small_patch16_224": (IMAGENET1K, _TINY),
    "iLLaMA_tiny_patch16_224_from_llama2": (IMAGENET1K, _TINY),
    "iLLaMA_base_patch16_224": (IMAGENET1K, {
        0: 3.987435091993077e-5, 1: 1.1987947945381105e-4, 150: 2.60645340790698e-3,
        299: 1.0528775856391834e-6,
    }),
    "iLLaMA_base_patch16_224_in21k": (IMAGENET21KP, {
        0: 9.997036817541856e-5, 1: 2.9998518408770293e-4, 45: 5.373906470985447e-4,
        89: 1.1137778438795923e-6,
    }),
    "iLLaMA_base_patch16_384_ft": (IMAGENET1K, {
        0: 7.992788848282348e-5, 15: 3.843449930380363e-5, 29: 1.0721980020418422e-6,
    }),
}


def schedule_of(config: Config, steps_per_epoch: int) -> Schedule:
    assert config.LRScheduler is not None
    assert config.Global.epochs is not None
    schedule: Schedule = SCHEDULES.build(
        config.LRScheduler,
        total_steps=config.Global.epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
    )
    return schedule


@pytest.mark.parametrize("name", ILLAMA)
def test_the_mean_rate_of_an_epoch_is_that_of_illamas_log(name: str) -> None:
    images, published = ILLAMA[name]
    config = load_config(str(CONFIGS / f"{name}.yaml"))
    assert config.DataLoader.Train is not None
    assert config.DataLoader.Train.sampler.drop_last
    assert config.Global.global_batch_size is not None
    steps = images // config.Global.global_batch_size
    schedule = schedule_of(config, steps)
    for epoch, rate in published.items():
        mean = statistics.fmean(schedule(epoch * steps + step) for step in range(steps))
        assert mean == pytest.approx(rate, rel=2e-12), epoch


@pytest.mark.parametrize("name", [
    "ViT_LLaMA_tiny_patch16_224", "ViT_LLaMA_small_patch16_224",
    "ViT_tiny_patch16_224_lm4", "ViT_small_patch16_224_lm4",
])
def test_the_rates_of_lm4_are_one_epoch_late(name: str) -> None:
    # Source: its code calls lr_scheduler.step(epoch) behind an epoch: epoch e has the rate of e - 1
    steps = 1251
    schedule = schedule_of(load_config(str(CONFIGS / f"{name}.yaml")), steps)
    published = {
        1: 5.095e-5, 10: 5.005e-4, 19: 9.5005e-4, 20: 9.891830623632338e-4, 150: 5.05e-4,
        298: 1.0108561679951479e-05,
    }
    for epoch, rate in published.items():
        for step in (0, steps - 1):
            assert schedule((epoch + 1) * steps + step) == pytest.approx(rate, rel=1e-12), epoch
    assert schedule(0) == schedule(steps) == schedule(2 * steps - 1) == 1e-6

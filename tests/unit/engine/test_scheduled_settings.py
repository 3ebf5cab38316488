"""Hooks that change the model with the step: which layers they reach, and what they refuse."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import paddle
import pytest

from passl.engine.hooks.drop_schedule import DropSchedule
from passl.engine.hooks.soft_mask import SoftMask
from passl.errors import ConfigError
from passl.models import create_model
from passl.registry import HOOKS

SMALL: dict[str, Any] = {
    "img_size": 16, "patch_size": 8, "embed_dim": 24, "num_heads": 2, "depth": 3, "class_num": 5,
}


def trainer_at(step: int, model: Any) -> Any:
    return SimpleNamespace(
        parts=SimpleNamespace(model=model),
        plan=SimpleNamespace(steps_per_epoch=4),
        state=SimpleNamespace(step=step),
    )


def test_soft_mask_reaches_the_model_before_each_step():
    model = create_model("iLLaMA", **SMALL)
    hook = SoftMask(schedule="linear", cutoff_epochs=1.25)
    rates = []
    for step in range(7):
        hook.on_start(trainer_at(0, model))
        hook.on_step_start(trainer_at(step, model))
        assert hook.settings() == {"soft_mask_rate": model.soft_mask_rate}
        rates.append(model.soft_mask_rate)
    assert rates == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0, 0.0, 0.0])


def test_a_resumed_run_begins_with_the_rate_of_its_last_step():
    """An evaluation that a stop cut off belongs to that step."""
    model = create_model("iLLaMA", **SMALL)
    SoftMask(schedule="linear", cutoff_steps=5).on_start(trainer_at(2, model))
    assert model.soft_mask_rate == 0.75
    SoftMask(schedule="linear", cutoff_steps=5).on_start(trainer_at(0, model))
    assert model.soft_mask_rate == 1.0


@pytest.mark.parametrize("name", ["VisionTransformer", "iLLaMA"])
def test_drop_path_grows_over_the_blocks(name: str):
    model = create_model(name, **SMALL)
    hook = DropSchedule(target="drop_path", rate=0.4, mode="late", cutoff_steps=2)
    hook.on_start(trainer_at(0, model))
    assert [block.drop_path.rate for block in model.blocks] == [0.0, 0.0, 0.0]
    hook.on_step_start(trainer_at(2, model))
    assert [block.drop_path.rate for block in model.blocks] == pytest.approx([0.0, 0.2, 0.4])
    assert hook.settings() == {"drop_path_rate": 0.4}


def test_dropout_is_set_everywhere_but_on_attention_probabilities():
    model = create_model("VisionTransformer", **SMALL, attn_drop_rate=0.3)
    hook = DropSchedule(target="dropout", rate=0.2, mode="early", schedule="linear", cutoff_steps=3)
    hook.on_start(trainer_at(1, model))
    hook.on_step_start(trainer_at(1, model))
    assert (model.pos_drop.p, model.blocks[0].mlp.drop.p) == pytest.approx((0.1, 0.1))
    assert model.blocks[0].attn.attn_drop.p == 0.3
    hook.on_step_start(trainer_at(2, model))
    assert model.pos_drop.p == 0.0


def test_the_standard_mode_holds_throughout():
    hook = DropSchedule(target="dropout", rate=0.2, mode="standard")
    assert [hook.value(step) for step in (0, 10**6)] == [0.2, 0.2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "standard", "cutoff_steps": 3}, "mode standard has no cutoff"),
        ({"mode": "late"}, "mode late needs cutoff_epochs or cutoff_steps"),
        ({"mode": "late", "cutoff_steps": 3, "schedule": "linear"}, "goes with mode early"),
        ({"mode": "early", "cutoff_steps": 3, "cutoff_epochs": 1}, "two lengths for one phase"),
    ],
)
def test_schedules_that_contradict_themselves_are_refused(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        HOOKS.build({"name": "DropSchedule", "target": "dropout", "rate": 0.1, **arguments})


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("VisionTransformer", {}), ("iLLaMA", {"attention": "causal"})],
)
def test_a_soft_mask_needs_a_model_that_has_one(name: str, arguments: dict):
    model = create_model(name, **SMALL, **arguments)
    which = "ILlama with attention: causal" if arguments else name
    with pytest.raises(ConfigError, match=f"the model {which} has no soft mask"):
        SoftMask(cutoff_steps=3).on_start(trainer_at(0, model))


def test_drop_schedules_need_layers_to_set():
    with pytest.raises(ConfigError, match="has no layer of the kind drop_path"):
        DropSchedule(target="drop_path", rate=0.1, mode="standard").on_start(
            trainer_at(0, paddle.nn.Linear(2, 2))
        )

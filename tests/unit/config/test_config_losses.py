"""A loss that asks for every class does not meet targets that are above 0 for every class."""

from __future__ import annotations

import pytest

MIX = "DataLoader.Train.batch_transform="


def with_loss(base: str, loss: str) -> str:
    return base.replace("- ToyLoss: {weight: 0.5, epsilon: 0.1}", loss)


@pytest.mark.parametrize(
    "mixing",
    [
        "[MixupCutmix: {epsilon: 0.1}]",
        "[MixupCutmix: {}]",  # 0.1 is its default
        "[TransformOpSampler: {ops: [{name: Mixup}, {name: Cutmix, epsilon: 0.2, prob: 0.0}]}]",
    ],
)
def test_smoothed_targets_and_a_threshold_of_0_are_a_mistake(problems, base, mixing):
    found = problems(with_loss(base, "- BCELoss:"), MIX + mixing)
    assert len(found) == 1
    assert "x.yaml:10: Loss.Train.0: BCELoss makes every target above 0 a 1" in found[0]
    assert "write epsilon: 0.0 there" in found[0]


@pytest.mark.parametrize(
    ("loss", "mixing"),
    [
        ("- BCELoss:", "[MixupCutmix: {epsilon: 0.0}]"),
        ("- BCELoss:", "[]"),
        ("- BCELoss: {target_threshold: null}", "[MixupCutmix: {epsilon: 0.1}]"),
        ("- BCELoss: {target_threshold: 0.2}", "[MixupCutmix: {epsilon: 0.1}]"),
        ("- CELoss:", "[MixupCutmix: {epsilon: 0.1}]"),
    ],
)
def test_what_goes_together_is_accepted(load, base, loss, mixing):
    load(with_loss(base, loss), MIX + mixing)

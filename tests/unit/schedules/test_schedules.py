"""Learning rates: other implementations' values, and good manners for any lengths."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from passl.registry import SCHEDULES

GOLDEN = Path(__file__).parents[2] / "golden"
IN1K_STEPS = 313  # updates of an ImageNet-1k epoch at batch 4096, as PASSL counts them


def build(name, total, per_epoch=1, **arguments):
    return SCHEDULES.build(
        {"name": name, **arguments}, total_steps=total, steps_per_epoch=per_epoch
    )


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.0),
        (1, 3.0e-7),
        (50, 1.5e-5),
        (5000, 1.5e-3),
        (10000, 3e-3),
        (50000, 1.609427836e-3),
        (93899, 1.05e-12),
        (93900, 0.0),
    ],
)
def test_vit_cosine_gives_passls_values(step, rate):
    schedule = build(
        "ViTLRScheduler", 300 * IN1K_STEPS, IN1K_STEPS, learning_rate=3e-3, warmup_steps=10000
    )
    assert schedule(step) == pytest.approx(rate, rel=5e-3 if step == 93899 else 1e-9, abs=1e-16)


@pytest.mark.parametrize(
    ("step", "rate"), [(10_000, 1e-3), (100_000, 6.573076923e-4), (270_000, 1e-5)]
)
def test_vit_linear_gives_passls_values(step, rate):
    schedule = build(
        "ViTLRScheduler",
        270_000,
        3000,
        learning_rate=1e-3,
        warmup_steps=10_000,
        decay_type="linear",
    )
    assert schedule(step) == pytest.approx(rate, rel=1e-9)


@pytest.mark.parametrize(
    ("decay_type", "step", "rate"),
    [
        ("cosine", 5250, 0.015),
        ("cosine", 10_000, 0.0),
        ("linear", 5250, 0.015005),
        ("linear", 10_000, 1e-5),
    ],
)
def test_vit_schedule_gives_googles_fine_tuning_values(decay_type, step, rate):
    schedule = build(
        "ViTLRScheduler", 10_000, learning_rate=0.03, warmup_steps=500, decay_type=decay_type
    )
    assert schedule(step) == pytest.approx(rate, rel=1e-9, abs=1e-16)


@pytest.mark.parametrize(
    ("step", "cosine", "linear"),
    [
        (1, 6e-5, 6e-5),
        (250, 0.015, 0.015),
        (500, 0.03, 0.03),
        (2500, 0.0268371076, 0.0236842105),
        (5250, 0.015, 0.015),
        (9999, 8e-10, 3.1579e-6),
        (10_000, 0.0, 0.0),
    ],
)
def test_cosine_and_linear_give_the_values_of_vit_pytorch(step, cosine, linear):
    shared = {"learning_rate": 0.03, "warmup_steps": 500}
    assert build("Cosine", 10_000, **shared)(step) == pytest.approx(cosine, rel=3e-2, abs=1e-15)
    assert build("Linear", 10_000, **shared)(step) == pytest.approx(linear, rel=1e-4, abs=1e-15)
    if step != 9999:  # that one is published with one digit
        assert build("Cosine", 10_000, **shared)(step) == pytest.approx(cosine, rel=1e-8, abs=1e-15)


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [(0, 1e-6), (1, 2.008e-4), (4, 8.002e-4), (5, 9.993216e-4), (150, 5.05e-4), (299, 1.0027e-5)],
)
def test_timm_cosine_gives_passls_values_for_the_whole_epoch(epoch, rate):
    schedule = build(
        "TimmCosine",
        300 * 10,
        10,
        learning_rate=1e-3,
        eta_min=1e-5,
        warmup_epoch=5,
        warmup_start_lr=1e-6,
    )
    assert schedule(epoch * 10) == schedule(epoch * 10 + 9) == pytest.approx(rate, rel=5e-5)


def test_timm_cosine_per_update_equals_timm():
    ((key, expected),) = np.load(GOLDEN / "lr_schedules.npz").items()
    assert key == "timm_cosine lr=1e-3 T=50 warmup=5 warmup_lr=1e-6 min=1e-5"
    schedule = build(
        "TimmCosine",
        50,
        learning_rate=1e-3,
        unit="step",
        eta_min=1e-5,
        warmup_epoch=5,
        warmup_start_lr=1e-6,
    )
    np.testing.assert_allclose([schedule(k) for k in range(50)], expected, rtol=1e-12)


def test_timm_cosine_with_prefix_starts_falling_after_the_warm_up():
    schedule = build(
        "TimmCosine", 100, learning_rate=1.0, unit="step", warmup_epoch=20, warmup_prefix=True
    )
    assert schedule(20) == 1.0
    assert schedule(60) == pytest.approx(0.5)
    assert schedule(100) == 0.0


def test_timm_cosine_without_warm_up_needs_no_workaround():
    with_workaround = build("TimmCosine", 30, 10, learning_rate=1.0, last_epoch=0)
    assert build("TimmCosine", 30, 10, learning_rate=1.0)(0) == with_workaround(0) == 1.0


def test_step_values_lie_between_boundaries():
    schedule = build("Step", 40, 10, boundaries=[1, 3], values=[0.3, 0.2, 0.1], warmup_epochs=0)
    assert [schedule(k) for k in (0, 9, 10, 29, 30, 39)] == [0.3, 0.3, 0.2, 0.2, 0.1, 0.1]


def test_step_warms_up_to_the_value_that_follows():
    schedule = build(
        "Step", 100, boundaries=[4, 50], values=[3.0, 2.0, 1.0], unit="step", warmup_steps=5
    )
    assert [schedule(k) for k in range(6)] == pytest.approx([0, 0.4, 0.8, 1.2, 1.6, 2.0])


def test_multi_step_decay_multiplies_at_each_milestone():
    schedule = build("MultiStepDecay", 10, learning_rate=1.0, milestones=[2, 5], gamma=0.5)
    assert [schedule(k) for k in (0, 1, 2, 4, 5, 9)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_poly_is_a_power_of_the_time_left():
    schedule = build("Poly", 100, learning_rate=2.0, unit="step", warmup_epochs=20)
    assert [schedule(k) for k in (10, 20, 60, 100)] == pytest.approx([1.0, 2.0, 0.5, 0.0])


def test_constant_stays_after_its_warm_up():
    schedule = build("Constant", 50, 10, learning_rate=0.1, warmup_epochs=0.5, warmup_start_lr=0.05)
    assert [schedule(k) for k in (0, 1, 5, 49, 1000)] == pytest.approx([0.05, 0.06, 0.1, 0.1, 0.1])


def test_warm_up_in_steps_and_in_epochs_are_the_same_ramp():
    by_steps = build("Cosine", 500, 10, learning_rate=1.0, warmup_steps=30)
    by_epochs = build("Cosine", 500, 10, learning_rate=1.0, warmup_epochs=3)
    assert [by_steps(k) for k in range(500)] == [by_epochs(k) for k in range(500)]


@pytest.mark.parametrize("warmup", [1, 2, 7, 50])
def test_an_inclusive_warm_up_is_numpys_line_and_delays_nothing(warmup):
    shape = {"learning_rate": 0.5, "warmup_steps": warmup, "warmup_start_lr": 0.1}
    inclusive = build("Cosine", 50, warmup_inclusive=True, **shape)
    rates = [inclusive(k) for k in range(60)]
    assert rates[:warmup] == pytest.approx(np.linspace(0.1, 0.5, warmup))
    usual = build("Cosine", 50, **shape)
    assert rates[warmup:] == [usual(k) for k in range(warmup, 60)]


def test_a_late_schedule_begins_with_its_first_rate_again():
    shape = {"learning_rate": 1.0, "warmup_epoch": 3, "warmup_start_lr": 0.1}
    on_time = build("TimmCosine", 100, 10, **shape)
    late = build("TimmCosine", 100, 10, lag_epochs=2, **shape)
    assert [late(k) for k in range(20)] == [0.1] * 20
    assert [late(k) for k in range(20, 100)] == [on_time(k) for k in range(80)]
    with pytest.raises(ValueError, match="lag_epochs=2 goes with unit epoch"):
        build("TimmCosine", 100, 10, unit="step", lag_epochs=2, **shape)


SMOOTH = [
    ("ViTLRScheduler", {}, "warmup_steps"),
    ("ViTLRScheduler", {"decay_type": "linear"}, "warmup_steps"),
    ("TimmCosine", {"unit": "step", "warmup_prefix": True, "eta_min": 1e-3}, "warmup_epoch"),
    ("Cosine", {"eta_min": 1e-3}, "warmup_steps"),
    ("Linear", {}, "warmup_steps"),
    ("Poly", {"unit": "step"}, "warmup_steps"),
    ("Constant", {}, "warmup_steps"),
    ("MultiStepDecay", {"milestones": [3, 40]}, "warmup_steps"),
]
LENGTHS = [(w, t) for t in (1, 2, 3, 10, 97) for w in (0, 1, 2, 9, 10, 11, 96, 97, 98, 10_000)]


@pytest.mark.parametrize(("name", "arguments", "warmup_key"), SMOOTH)
@pytest.mark.parametrize(("warmup", "total"), LENGTHS)
def test_any_warm_up_and_total_give_finite_rates_within_bounds(
    name, arguments, warmup_key, warmup, total
):
    schedule = build(name, total, learning_rate=0.5, **arguments, **{warmup_key: warmup})
    rates = [schedule(k) for k in range(total + 3)]
    assert all(math.isfinite(rate) and 0.0 <= rate <= 0.5 for rate in rates)


@pytest.mark.parametrize(("name", "arguments", "warmup_key"), SMOOTH[:-1])
@pytest.mark.parametrize(("warmup", "total"), [(0, 1000), (1, 1000), (400, 1000), (999, 1000)])
def test_rates_have_no_jumps(name, arguments, warmup_key, warmup, total):
    schedule = build(name, total, learning_rate=1.0, **arguments, **{warmup_key: warmup})
    steepest = max(1 / max(warmup, 1), 2.0 / max(total - warmup, 1))  # ramp; pi/2 or power 2
    jumps = [abs(schedule(k + 1) - schedule(k)) for k in range(total - 1)]
    assert max(jumps) <= steepest * 1.001


def test_a_warm_up_longer_than_the_run_rises_to_its_end_and_says_so():
    schedule = build("ViTLRScheduler", 50, learning_rate=1.0, warmup_steps=10_000)
    assert [schedule(k) for k in (0, 25, 49, 50)] == pytest.approx([0.0, 0.5, 0.98, 1.0])
    assert schedule.notes == [
        "ViTLRScheduler: a warm-up of 10000 steps is longer than the run of 50 steps; the rate "
        "rises until the last of them"
    ]


def test_a_first_epoch_without_a_rate_is_told():
    name, once = "Cosine", {"learning_rate": 1.0, "warmup_epochs": 2, "unit": "epoch"}
    schedule = build(name, 100, per_epoch=10, **once)
    assert [schedule(k) for k in (0, 9, 10)] == [0.0, 0.0, 0.5]
    assert len(schedule.notes) == 1
    assert "Cosine: the rate is 0 for the whole first epoch" in schedule.notes[0]
    for other in ({"warmup_start_lr": 1e-6}, {"unit": "step"}, {"warmup_epochs": 0}):
        assert build(name, 100, per_epoch=10, **{**once, **other}).notes == []


def test_the_rate_does_not_depend_on_what_was_asked_before():
    asked = build("Cosine", 100, learning_rate=1.0, warmup_steps=10)
    list(map(asked, range(100)))
    fresh = build("Cosine", 100, learning_rate=1.0, warmup_steps=10)
    assert asked(57) == fresh(57)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"total": 0}, "at least 1 step"),
        ({"per_epoch": 0}, "at least 1 step"),
        ({"warmup_steps": 5, "warmup_epochs": 1}, "two lengths for one warm-up"),
        ({"warmup_steps": -1}, "cannot be negative"),
    ],
)
def test_arguments_without_meaning_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build("Cosine", **{"total": 10, "learning_rate": 1.0, **arguments})


def test_step_refuses_values_that_do_not_fit_and_boundaries_that_fall():
    with pytest.raises(ValueError, match="2 boundaries separate 3 values, found 2"):
        build("Step", 10, boundaries=[1, 2], values=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"must rise .* found \[2, 1\]"):
        build("Step", 10, boundaries=[2, 1], values=[1.0, 2.0, 3.0])

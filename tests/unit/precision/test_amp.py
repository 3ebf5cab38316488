"""The loss scale: when it moves, what it skips, what it remembers."""

from __future__ import annotations

import math

import numpy as np
import paddle
import pytest

from passl.precision.amp import LossScaler, Precision


def reference_scale(finite_steps, scale, grow_every, shrink_every, low, high):
    """The rule of the docstring, step by step, written independently of the class."""
    history, good, bad = [], 0, 0
    for finite in finite_steps:
        good, bad = (good + 1, 0) if finite else (0, bad + 1)
        if good == grow_every:
            scale, good = min(2.0 * scale, high), 0
        if bad == shrink_every:
            scale, bad = max(0.5 * scale, low), 0
        history.append(scale)
    return history


def test_scale_follows_the_rule_on_random_steps():
    finite = (np.random.default_rng(0).random(5000) < 0.8).tolist()
    scaler = LossScaler(
        init_loss_scaling=8.0,
        max_loss_scaling=64.0,
        incr_every_n_steps=5,
        decr_every_n_nan_or_inf=2,
    )
    history = []
    for step in finite:
        scaler.update(step)
        history.append(scaler.scale)
    assert history == reference_scale(finite, 8.0, 5, 2, 1.0, 64.0)
    assert {1.0, 64.0} < set(history)  # floor and cap were both reached


def test_bad_steps_must_be_in_a_row():
    scaler = LossScaler(init_loss_scaling=16.0, decr_every_n_nan_or_inf=2)
    for finite in (False, True, False, True):
        scaler.update(finite)
    assert scaler.scale == 16.0
    scaler.update(False)
    scaler.update(False)
    assert scaler.scale == 8.0


def test_a_first_scale_above_the_ceiling_is_refused():
    with pytest.raises(ValueError, match="init_loss_scaling=64 is above max_loss_scaling=32"):
        LossScaler(init_loss_scaling=64.0, max_loss_scaling=32.0)


def test_a_fixed_scale_stays():
    scaler = LossScaler(init_loss_scaling=4.0, use_dynamic_loss_scaling=False)
    for _ in range(5000):
        scaler.update(False)
    assert scaler.scale == 4.0


def test_state_continues_in_the_middle_of_a_count():
    first = LossScaler(init_loss_scaling=2.0, incr_every_n_steps=3)
    first.update(True)
    first.update(True)
    second = LossScaler(init_loss_scaling=2.0, incr_every_n_steps=3)
    second.load_state_dict(first.state_dict())
    second.update(True)
    assert second.scale == 4.0


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({}, 4096.0),
        ({"init_loss_scaling": 512.0, "max_loss_scaling": 512.0}, 512.0),
        ({"min_loss_scaling": 8192.0}, 8192.0),
        ({"use_dynamic_loss_scaling": False, "init_loss_scaling": 64.0}, 64.0),
    ],
    ids=str,
)
def test_a_restored_scale_obeys_the_settings_of_now(settings, scale):
    scaler = LossScaler(**settings)
    scaler.load_state_dict({"scale": 4096.0, "good": 3, "bad": 1})
    assert scaler.scale == scale


def test_backward_scales_and_accept_skips_what_is_not_finite():
    precision = Precision("O2", "float16", LossScaler(init_loss_scaling=512.0))
    weight = paddle.to_tensor([3.0], stop_gradient=False)
    precision.backward((weight * 2.0).sum())
    assert weight.grad.item() == 1024.0
    precision.unscale([weight.grad, None])
    assert weight.grad.item() == 2.0
    assert precision.accept(paddle.to_tensor(1.0))
    assert not precision.accept(paddle.to_tensor(math.inf))
    assert not precision.accept(paddle.to_tensor(math.nan))
    assert precision.scaler.scale == 256.0


@pytest.mark.parametrize(("level", "dtype"), [("O0", "float16"), ("O2", "bfloat16")])
@pytest.mark.parametrize("norm", [1.0, math.nan, math.inf])
def test_fp32_and_bf16_have_no_scale_and_leave_the_answer_on_the_device(
    monkeypatch, level, dtype, norm
):
    precision = Precision(level, dtype, LossScaler())
    assert precision.scaler is None
    assert precision.state_dict() == {}
    assert precision.accept(paddle.to_tensor(norm)) is math.isfinite(norm)  # free on a CPU
    monkeypatch.setattr("passl.precision.amp.on_cpu", lambda: False)
    answer = precision.accept(paddle.to_tensor(norm))
    assert isinstance(answer, paddle.Tensor)
    assert bool(answer.item()) is math.isfinite(norm)


def test_the_summary_says_what_runs():
    assert Precision().describe() == "fp32"
    scaled = Precision("O2", "float16", LossScaler(init_loss_scaling=65536.0))
    assert scaled.describe() == "O2 float16, loss scale 65536"
    assert Precision("O1", "bfloat16").describe() == "O1 bfloat16"


@pytest.mark.parametrize("level", ["O1", "O2"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_forward_pass_is_cast_as_asked(monkeypatch, level, dtype):
    asked = {}
    monkeypatch.setattr(
        paddle.amp, "auto_cast", lambda **keywords: asked.update(keywords) or "the context"
    )
    precision = Precision(level, dtype, LossScaler(), white_list=["matmul"], black_list=["exp"])
    assert precision.autocast() == "the context"
    assert asked == {
        "level": level,
        "dtype": dtype,
        "custom_white_list": ["matmul"],
        "custom_black_list": ["exp"],
    }


def test_fp32_asks_paddle_for_no_casts(monkeypatch):
    monkeypatch.delattr(paddle.amp, "auto_cast")
    with Precision("O0", "float16", LossScaler()).autocast():
        pass


def test_a_scale_that_cannot_shrink_further_is_hopeless_after_a_hundred_bad_steps():
    for scaler in (
        LossScaler(init_loss_scaling=1.0),
        LossScaler(init_loss_scaling=64.0, use_dynamic_loss_scaling=False),
    ):
        for _ in range(99):
            scaler.update(False)
        scaler.update(True)  # one good step, and the count begins anew
        for _ in range(99):
            scaler.update(False)
        assert not scaler.is_hopeless
        scaler.update(False)
        assert scaler.is_hopeless


def test_a_scale_on_its_way_down_is_not_hopeless():
    scaler = LossScaler(init_loss_scaling=2.0**32, decr_every_n_nan_or_inf=10)
    for _ in range(320):
        scaler.update(False)
    assert scaler.scale == 1.0
    assert not scaler.is_hopeless

"""Stochastic depth: whole samples, kept mean, drawn from Paddle's generator."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from passl.layers.drop_path import DropPath, drop_path_rates


def test_drops_whole_samples_and_keeps_the_mean():
    layer = DropPath(0.3)
    paddle.seed(0)
    out = layer(paddle.ones([20000, 2, 3])).numpy().reshape(20000, 6)
    assert (out == out[:, :1]).all()  # a sample is dropped or kept as one
    assert set(np.unique(out)) == {0.0, np.float32(1) / np.float32(0.7)}
    dropped = (out[:, 0] == 0).mean()
    assert abs(dropped - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 20000)
    assert out.mean() == pytest.approx(1.0, abs=4 * np.sqrt(0.3 / 0.7 / 20000))


def test_evaluation_and_rate_zero_leave_the_input_alone():
    x = paddle.randn([4, 3])
    assert DropPath(0.0)(x) is x
    layer = DropPath(0.9)
    layer.eval()
    assert layer(x) is x


def test_same_paddle_seed_drops_the_same_samples():
    layer, x = DropPath(0.5), paddle.ones([64, 1])
    drawn = []
    for seed in (1, 1, 2):
        paddle.seed(seed)
        drawn.append(layer(x).numpy())
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_gradient_flows_through_kept_samples_only():
    x = paddle.ones([64, 2])
    x.stop_gradient = False
    paddle.seed(0)
    out = DropPath(0.5)(x)
    out.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), out.numpy())


def test_rates_grow_linearly_from_zero():
    assert drop_path_rates(0.3, 4) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert drop_path_rates(0.3, 1) == [0.0]

"""The linear layer: its CPU backward pass is Paddle's, only faster."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from passl.layers import cpu_kernels as kernels
from passl.layers.linear import Linear, cpu_kernels


@pytest.fixture
def layer() -> Linear:
    paddle.seed(0)
    made = Linear(24, 40)
    made.weight.set_value(paddle.randn([24, 40]))
    made.bias.set_value(paddle.randn([40]))
    return made


def _gradients(layer: Linear, x: paddle.Tensor, ours: bool) -> list[np.ndarray]:
    x = x.detach()
    x.stop_gradient = False
    with cpu_kernels(ours):
        y = layer(x)
        (y * paddle.cos(y)).sum().backward()  # a gradient that differs by element
    found = [y.numpy(), x.grad.numpy(), layer.weight.grad.numpy(), layer.bias.grad.numpy()]
    layer.clear_gradients()
    return found


@pytest.mark.parametrize("shape", [[5, 24], [3, 7, 24], [2, 3, 4, 24], [1, 1, 24]])
def test_output_and_gradients_equal_paddles(layer: Linear, shape: list[int]):
    x = paddle.randn(shape)
    for ours, theirs in zip(_gradients(layer, x, True), _gradients(layer, x, False)):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6 * np.abs(theirs).max())


def test_gradients_equal_central_differences():
    paddle.seed(1)
    layer = Linear(3, 2)
    layer.to(dtype="float64")
    layer.weight.set_value(paddle.randn([3, 2]).astype("float64"))
    x = paddle.randn([4, 3]).astype("float64")

    def loss() -> paddle.Tensor:
        return (layer(x) ** 3).sum()

    loss().backward()
    for parameter in (layer.weight, layer.bias):
        start = parameter.numpy()
        for index in np.ndindex(*start.shape):
            sides = []
            for sign in (1, -1):
                moved = start.copy()
                moved[index] += sign * 1e-5
                parameter.set_value(moved)
                sides.append(loss().item())
            parameter.set_value(start)
            slope = (sides[0] - sides[1]) / 2e-5
            assert parameter.grad.numpy()[index] == pytest.approx(slope, rel=1e-6, abs=1e-7)


def test_cpu_kernel_runs_only_where_it_is_wanted(layer: Linear):
    x = paddle.randn([2, 24])
    assert kernels.fits_training(x, layer.weight, layer.bias)
    with cpu_kernels(False):
        assert not kernels.fits_training(x, layer.weight, layer.bias)
    with paddle.no_grad():
        assert not kernels.fits_training(x, layer.weight, layer.bias)
    layer.weight.stop_gradient = True
    assert not kernels.fits_training(x, layer.weight, layer.bias)


def test_input_that_needs_no_gradient_gets_none(layer: Linear):
    x = paddle.randn([2, 24])
    layer(x).sum().backward()
    assert x.grad is None
    np.testing.assert_allclose(layer.bias.grad.numpy(), 2.0)


def test_frozen_bias_stays_without_gradient(layer: Linear):
    layer.bias.stop_gradient = True
    layer(paddle.randn([2, 24])).sum().backward()
    assert layer.bias.grad is None
    assert layer.weight.grad is not None


def test_gradients_accumulate_over_micro_batches(layer: Linear):
    x = paddle.randn([6, 24])
    layer(x).sum().backward()
    whole = layer.weight.grad.numpy()
    layer.clear_gradients()
    for part in (x[:4], x[4:]):
        layer(part).sum().backward()
    np.testing.assert_allclose(layer.weight.grad.numpy(), whole, rtol=1e-5, atol=1e-5)


def test_without_bias_it_is_a_product(layer: Linear):
    plain = Linear(24, 40, bias=False)
    plain.weight.set_value(layer.weight)
    x = paddle.randn([3, 24])
    assert [name for name, _ in plain.named_parameters()] == ["weight"]
    np.testing.assert_allclose(plain(x).numpy(), F.linear(x, layer.weight).numpy(), rtol=1e-6)

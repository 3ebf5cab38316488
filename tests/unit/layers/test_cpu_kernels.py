"""The CPU kernels compute what Paddle's functions compute, with their gradients, only faster."""

from __future__ import annotations

import math

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from passl.layers import cpu_kernels as kernels
from passl.layers.cpu_kernels import CpuGelu, cpu_kernels
from passl.layers.layer_norm import LayerNorm
from passl.layers.linear import Linear
from passl.layers.mlp import Mlp

CLOSE = 1e-6  # of the largest number


def _close(found: paddle.Tensor, wanted: paddle.Tensor) -> None:
    assert found.shape == wanted.shape
    largest = float(wanted.abs().max())
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=0, atol=CLOSE * largest)


def _norm_results(norm: LayerNorm, x: paddle.Tensor, ours: bool) -> list[paddle.Tensor]:
    x = x.detach()
    x.stop_gradient = False
    with cpu_kernels(ours):
        y = norm(x)
        (y * paddle.cos(y)).sum().backward()
    found = [y.detach(), x.grad.clone(), norm.weight.grad.clone(), norm.bias.grad.clone()]
    norm.clear_gradients()
    return found


@pytest.mark.parametrize("shape", [[4, 24], [3, 7, 24], [1, 1, 24]])
@pytest.mark.parametrize("offset", [0.0, 30.0])  # a mean far from 0 must not cost the digits
def test_layer_norm_and_its_gradients_equal_paddles(shape: list[int], offset: float):
    paddle.seed(0)
    norm = LayerNorm(24, epsilon=1e-6)
    norm.weight.set_value(paddle.randn([24]))
    norm.bias.set_value(paddle.randn([24]))
    x = paddle.randn(shape) * 2 + offset
    limit = CLOSE if not offset else 20 * CLOSE  # of Paddle's own rounding, too
    for ours, theirs in zip(_norm_results(norm, x, True), _norm_results(norm, x, False)):
        largest = float(theirs.abs().max())
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=0, atol=limit * largest)


def test_layer_norm_gradient_with_a_zero_weight_and_a_constant_row():
    norm = LayerNorm(8)
    norm.weight.set_value(paddle.zeros([8]))
    x = paddle.concat([paddle.full([1, 8], 3.0), paddle.arange(8, dtype="float32")[None]])
    results = _norm_results(norm, x, True)
    assert all(bool(paddle.isfinite(value).all()) for value in results)
    _close(results[1], paddle.zeros([2, 8]))


def test_gelu_and_its_gradient_equal_the_error_function_of_python():
    x = paddle.linspace(-9.0, 9.0, 2001)
    x.stop_gradient = False
    y = CpuGelu.apply(x)
    y.sum().backward()
    points = [float(value) for value in x.numpy()]
    cumulative = [0.5 * (1.0 + math.erf(v / math.sqrt(2.0))) for v in points]
    slope = [
        c + v * math.exp(-v * v / 2.0) / math.sqrt(2.0 * math.pi)
        for v, c in zip(points, cumulative)
    ]
    values = np.array(points) * np.array(cumulative)
    np.testing.assert_allclose(y.numpy(), values, rtol=0, atol=1e-6)
    np.testing.assert_allclose(CpuGelu.value(x.detach()).numpy(), values, rtol=0, atol=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), slope, rtol=0, atol=1e-6)


def test_the_input_of_gelu_is_left_alone():
    x = paddle.randn([3, 5])
    before = x.numpy()
    x.stop_gradient = False
    CpuGelu.apply(x).sum().backward()
    CpuGelu.value(x.detach())
    assert np.array_equal(x.numpy(), before)


def test_a_perceptron_has_paddles_gradients():
    paddle.seed(0)
    mlp = Mlp(16, 32)
    for parameter in mlp.parameters():
        parameter.set_value(paddle.randn(parameter.shape))
    results = []
    for ours in (True, False):
        x = paddle.randn([2, 3, 16]) if not results else results[0][0].detach()
        x.stop_gradient = False
        with cpu_kernels(ours):
            mlp(x).square().sum().backward()
        results.append([x.detach(), x.grad.clone(), *(p.grad.clone() for p in mlp.parameters())])
        mlp.clear_gradients()
    for found, wanted in zip(*results):
        _close(found, wanted)


def test_evaluation_gives_what_training_gives():
    paddle.seed(0)
    linear, norm = Linear(8, 6), LayerNorm(6)
    linear.weight.set_value(paddle.randn([8, 6]))
    linear.bias.set_value(paddle.randn([6]))
    x = paddle.randn([2, 5, 8])
    trained = norm(linear(x))
    with paddle.no_grad():
        evaluated = norm(linear(x))
        with cpu_kernels(False):
            paddles = norm(F.linear(x, linear.weight, linear.bias))
    _close(evaluated, trained.detach())
    _close(evaluated, paddles)


def test_kernels_are_for_what_is_trained_on_a_cpu():
    x, weight = paddle.ones([2, 3]), paddle.create_parameter([3], "float32")
    assert kernels.fits_training(x, weight)
    assert not kernels.fits_training(x)  # neither parameters nor the input want a gradient
    assert not kernels.fits_inference(x)
    weight.stop_gradient = True
    assert not kernels.fits_training(x, weight)
    with paddle.no_grad():
        assert not kernels.fits_training(x, weight)
        assert kernels.fits_inference(x)
        with cpu_kernels(False):
            assert not kernels.fits_inference(x)


def test_layer_norm_keeps_its_names_and_kind():
    norm = LayerNorm(4)
    assert isinstance(norm, paddle.nn.LayerNorm)  # precision and pruning ask for it
    assert [name for name, _ in norm.named_parameters()] == ["weight", "bias"]

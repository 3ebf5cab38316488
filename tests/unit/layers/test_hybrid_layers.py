"""Standardised convolutions and scales of branches, against formulas in numpy."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from passl.layers.layer_scale import LayerScale
from passl.layers.resnet import Bottleneck
from passl.layers.std_conv import StdConv2D


def _convolution(size_in: tuple[int, int], kernel: int, stride: int, style: str):
    layer = StdConv2D(2, 3, kernel, stride=stride, style=style)
    rng = np.random.default_rng(0)
    layer.weight.set_value(rng.standard_normal((3, 2, kernel, kernel)).astype("f4") * 0.03 + 0.01)
    x = rng.standard_normal((1, 2, *size_in)).astype("f4")
    return layer, x


def _expected(layer: StdConv2D, x: np.ndarray, stride: int, style: str) -> np.ndarray:
    weight = layer.weight.numpy().astype("f8")
    mean = weight.mean(axis=(1, 2, 3), keepdims=True)
    std = weight.std(axis=(1, 2, 3), keepdims=True)
    divisor = std + 1e-5 if style == "google" else np.sqrt(std**2 + 1e-8)
    weight = (weight - mean) / divisor
    kernel, pads, outs = weight.shape[-1], [], []
    for side in x.shape[2:]:
        outs.append(-(-side // stride))
        total = max((outs[-1] - 1) * stride + kernel - side, 0)
        pads.append((total // 2, total - total // 2))  # TensorFlow's SAME
    x = np.pad(x.astype("f8"), [(0, 0), (0, 0), *pads])
    result = np.empty((1, 3, *outs))
    for row in range(outs[0]):
        for column in range(outs[1]):
            top, left = row * stride, column * stride
            window = x[0, :, top:top + kernel, left:left + kernel]
            result[0, :, row, column] = (weight * window).sum(axis=(1, 2, 3))
    return result


@pytest.mark.parametrize("style", ["google", "timm"])
@pytest.mark.parametrize(
    ("size", "kernel", "stride"),
    [((8, 8), 7, 2), ((8, 9), 3, 2), ((7, 6), 3, 1), ((7, 6), 1, 2), ((5, 5), 1, 1)],
)
def test_a_standardised_convolution_equals_the_formula(size, kernel, stride, style):
    layer, x = _convolution(size, kernel, stride, style)
    found = layer(paddle.to_tensor(x)).numpy()
    np.testing.assert_allclose(found, _expected(layer, x, stride, style), rtol=1e-4, atol=1e-4)


def test_weights_that_are_all_equal_have_a_finite_gradient():
    layer = StdConv2D(2, 3, 3)
    layer(paddle.ones([1, 2, 4, 4])).sum().backward()
    assert np.isfinite(layer.weight.grad.numpy()).all()


def test_weights_in_half_precision_are_standardised_in_float32():
    layer, _ = _convolution((8, 8), 3, 1, "google")
    layer.astype("bfloat16")
    weight = layer.weight.astype("float32").numpy()
    centred = weight - weight.mean(axis=(1, 2, 3), keepdims=True)
    expected = centred / (weight.std(axis=(1, 2, 3), keepdims=True) + 1e-5)
    assert layer.standardised().dtype == paddle.float32
    np.testing.assert_allclose(layer.standardised().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_bottleneck_projects_only_where_shapes_differ():
    same = Bottleneck(128, 32, 1, "google")
    assert not any(name.startswith("downsample") for name, _ in same.named_parameters())
    halved = Bottleneck(128, 32, 2, "google")
    assert halved(paddle.zeros([1, 128, 5, 5])).shape == [1, 128, 3, 3]
    assert any(name == "downsample.conv.weight" for name, _ in halved.named_parameters())


def test_layer_scale_multiplies_each_channel():
    layer = LayerScale(3, 0.5)
    layer.gamma.set_value(np.array([0.5, 1.0, -2.0], "f4"))
    x = np.random.default_rng(0).standard_normal((2, 4, 3)).astype("f4")
    np.testing.assert_array_equal(layer(paddle.to_tensor(x)).numpy(), x * layer.gamma.numpy())


def test_a_small_scale_is_not_rounded_to_the_half_precision_of_its_input():
    layer = LayerScale(3, 1e-6)
    found = layer(paddle.ones([2, 3], "float16"))
    assert found.dtype == paddle.float32
    np.testing.assert_allclose(found.numpy(), 1e-6, rtol=1e-6)

"""Eight-bit integers: definitions, and what calibration leaves out."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from passl.quant.int8 import BINS, choose_range, quantize_activation, quantize_weight


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_weight_has_a_scale_for_each_channel(values, axis):
    factors = np.logspace(-3, 3, values.shape[axis])
    values = values * (factors[:, None] if axis == 0 else factors)
    scale = np.abs(values.astype(np.float32)).astype(np.float64).max(1 - axis, keepdims=True) / 127
    wanted = np.rint(values.astype(np.float32) / scale) * scale
    found = quantize_weight(paddle.to_tensor(values.astype(np.float32)), axis).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert np.unique(np.rint(found / scale)).size <= 255


def test_a_channel_of_zeros_stays_zero():
    weight = paddle.zeros([3, 4])
    np.testing.assert_array_equal(quantize_weight(weight, 1).numpy(), weight.numpy())


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.5, 2.0), (-4.0, -1.0)])
def test_an_activation_has_256_values_of_which_one_is_zero(values, low, high):
    found = np.unique(quantize_activation(paddle.to_tensor(values), low, high).numpy())
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / 255
    assert np.abs(found / step - np.rint(found / step)).max() < 1e-3
    assert found.min() >= low - step
    assert found.max() <= high + step
    assert quantize_activation(paddle.zeros([1]), low, high).item() == 0.0
    inside = values[(values > low) & (values < high)]
    rounded = quantize_activation(paddle.to_tensor(inside), low, high).numpy()
    assert np.abs(rounded - inside).max() <= step * 0.51 + step / 2


def test_percentile_and_squared_error_leave_an_outlier_out():
    rng = np.random.default_rng(0)
    values = np.append(rng.normal(size=100_000), 200.0)
    low, high = values.min(), values.max()
    counts = np.histogram(values, BINS, (low, high))[0].astype(float)
    assert choose_range(counts, low, high, "minmax", 99.9) == (low, high)
    inside = choose_range(counts, low, high, "percentile", 99.9)
    wanted = np.percentile(values, [0.05, 99.95])
    np.testing.assert_allclose(inside, wanted, atol=2 * (high - low) / BINS)
    _, narrowed = choose_range(counts, low, high, "mse", 99.9)
    assert narrowed < high

    def error(top):
        rounded = quantize_activation(paddle.to_tensor(values), low, top).numpy()
        return ((rounded - values) ** 2).sum()

    best = choose_range(counts, low, high, "mse", 99.9)
    rounded = quantize_activation(paddle.to_tensor(values), *best).numpy()
    assert ((rounded - values) ** 2).sum() <= error(high) * 1.001

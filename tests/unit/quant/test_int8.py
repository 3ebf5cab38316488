"""Eight-bit integers: definitions, and what calibration leaves out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest

from passl.errors import PasslError
from passl.quant.int8 import BINS, choose_range, grids, quantize_activation, quantize_weight
from passl.quant.ranges import Ranges

TORCH = np.load(Path(__file__).parents[2] / "golden/fake_quantize.npz")


def on_grid(x, low, high):
    """``x`` rounded to the grid of a range."""
    scale, zero = grids(paddle.to_tensor(np.array([[low, high]], np.float32)))
    return quantize_activation(paddle.to_tensor(x), scale, zero)


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
    found = np.unique(on_grid(values, low, high).numpy())
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / 255
    assert np.abs(found / step - np.rint(found / step)).max() < 1e-3
    assert found.min() >= low - step
    assert found.max() <= high + step
    assert on_grid(np.zeros(1, np.float32), low, high).item() == 0.0
    inside = values[(values > low) & (values < high)]
    rounded = on_grid(inside, low, high).numpy()
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
        rounded = on_grid(values, low, top).numpy()
        return ((rounded - values) ** 2).sum()

    best = choose_range(counts, low, high, "mse", 99.9)
    rounded = on_grid(values, *best).numpy()
    assert ((rounded - values) ** 2).sum() <= error(high) * 1.001


RANGES = {"both": (-3.0, 4.5), "above": (0.0, 2.0), "below": (-2.5, 0.0)}


@pytest.mark.parametrize("name", RANGES)
def test_values_and_gradients_of_an_activation_are_pytorchs(name):
    scale, zero = grids(paddle.to_tensor(np.array([RANGES[name]], np.float32)))
    x = paddle.to_tensor(TORCH["x"], stop_gradient=False)
    rounded = quantize_activation(x, scale, zero)
    # PyTorch multiplies with the reciprocal of the scale: of two neighbours it may take the other.
    steps = np.abs(rounded.numpy() - TORCH[f"{name}_values"]) / scale.item()
    assert (steps > 1e-3).mean() < 1e-3
    assert steps.max() < 1.001
    rounded.sum().backward()
    assert (x.grad.numpy() != TORCH[f"{name}_grad"]).mean() < 1e-3
    assert 0 < x.grad.numpy().mean() < 1


@pytest.mark.parametrize("axis", [0, 1])
def test_values_of_a_weight_are_pytorchs(axis):
    found = quantize_weight(paddle.to_tensor(TORCH["w"]), axis).numpy()
    off = np.abs(found - TORCH[f"w_axis{axis}"])
    assert (off > 1e-6).mean() < 1e-2
    assert off.max() < 1.01 * np.abs(TORCH["w"]).max() / 127


def test_a_tensor_of_zeros_stays_zero():
    assert on_grid(np.zeros(3, np.float32), 0.0, 0.0).numpy().tolist() == [0.0] * 3
    assert np.abs(on_grid(np.ones(1, np.float32), 0.0, 0.0).numpy()) < 1e-4


def highest(ends):
    return ends


def test_ranges_move_by_the_moving_average_of_the_ends():
    ranges = Ranges(["a", "b"])
    ranges.set({"a": (-1.0, 2.0), "b": (0.0, 1.0)})
    ranges.see("a", paddle.to_tensor([-3.0, 0.0]))  # two micro-batches of one step
    ranges.see("a", paddle.to_tensor([0.0, 6.0]))
    ranges.move(0.9, True, highest)
    found = ranges.to_dict()
    np.testing.assert_allclose(found["a"], [-0.9 - 0.3, 1.8 + 0.6], rtol=1e-6)
    assert found["b"] == [0.0, 1.0]  # it did not run
    ranges.move(0.9, True, highest)  # what was seen counts once
    assert ranges.to_dict() == found


@pytest.mark.parametrize("accepted", [False, paddle.to_tensor(False), paddle.to_tensor([0.0])])
def test_a_step_that_is_left_out_moves_no_range(accepted):
    ranges = Ranges(["a"])
    ranges.set({"a": (-1.0, 2.0)})
    ranges.see("a", paddle.to_tensor([5.0]))
    ranges.move(0.5, accepted, highest)
    assert ranges.to_dict() == {"a": [-1.0, 2.0]}
    ranges.move(0.5, True, highest)  # and what it saw is forgotten
    assert ranges.to_dict() == {"a": [-1.0, 2.0]}


@pytest.mark.parametrize("values", [[np.nan, np.inf], [1.0, np.nan, 3.0], [-np.inf, 0.0]])
def test_what_is_not_finite_moves_no_range(values):
    ranges = Ranges(["a"])
    ranges.set({"a": (-1.0, 2.0)})
    ranges.see("a", paddle.to_tensor(values, dtype="float32"))
    ranges.see("a", paddle.to_tensor([5.0]))
    ranges.move(0.5, True, highest)
    assert ranges.to_dict() == {"a": [-1.0, 2.0]}


def test_ranges_are_saved_exactly_and_an_unknown_one_is_told():
    ranges, again = Ranges(["a", "b"]), Ranges(["a", "b"])
    ranges.set({"a": (-1.0 / 3.0, 0.1)})
    again.set(ranges.to_dict())
    assert again.to_dict() == ranges.to_dict()
    with pytest.raises(PasslError, match="the range of b's input is not known"):
        again.grid("b")

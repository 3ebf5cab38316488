"""Initial weights: their distributions, and that a seed alone decides them."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from passl.layers import init


def _tensor(*shape: int) -> paddle.Tensor:
    return paddle.zeros(list(shape))


def test_truncated_normal_is_cut_at_two_standard_deviations():
    tensor = _tensor(500, 400)
    init.trunc_normal_(tensor, np.random.default_rng(0), std=0.02)
    values = tensor.numpy()
    assert np.abs(values).max() <= 0.04
    assert np.abs(values).max() > 0.0399  # cut there, not before
    # the standard deviation of a unit normal cut at +-2 is 0.8796; four standard errors of 200,000
    assert values.std() == pytest.approx(0.02 * 0.8796, rel=0.005)
    assert abs(values.mean()) < 4 * 0.0176 / np.sqrt(values.size)


def test_lecun_normal_has_variance_one_over_fan_in():
    tensor = _tensor(400, 300)
    init.lecun_normal_(tensor, np.random.default_rng(0))
    assert tensor.numpy().std() == pytest.approx(1 / np.sqrt(400), rel=0.005)


@pytest.mark.parametrize(("parts", "bound"), [(1, 6 / (4 * 96)), (3, 6 / (2 * 96))])
def test_xavier_bound_counts_the_matrices_that_share_a_weight(parts: int, bound: float):
    tensor = _tensor(96, 3 * 96)
    init.xavier_uniform_(tensor, np.random.default_rng(0), parts=parts)
    values = tensor.numpy()
    assert np.abs(values).max() <= np.sqrt(bound)
    assert np.abs(values).max() > 0.99 * np.sqrt(bound)
    assert values.std() == pytest.approx(np.sqrt(bound / 3), rel=0.02)


def test_fans_of_a_convolution_include_its_field():
    assert init.fans(_tensor(8, 3, 4, 5)) == (3 * 4 * 5, 8 * 4 * 5)
    assert init.fans(_tensor(3, 8)) == (3, 8)


def test_parameters_draw_from_generators_of_their_own():
    with init.init_seed(7):
        first = init.rng_for("blocks.0.attn.qkv.weight").random(4)
        other = init.rng_for("blocks.1.attn.qkv.weight").random(4)
        again = init.rng_for("blocks.0.attn.qkv.weight").random(4)
    with init.init_seed(8):
        reseeded = init.rng_for("blocks.0.attn.qkv.weight").random(4)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, reseeded)


def test_numbers_of_a_seed_are_fixed():
    """Other versions of numpy and Paddle must give these: runs are repeated by their seed."""
    with init.init_seed(2021):
        tensor = _tensor(2, 2)
        init.normal_(tensor, init.rng_for("pos_embed"), std=1.0)
    expected = [[0.719235, 0.63551199], [0.079333864, 0.24789132]]
    np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-6)


def test_without_a_seed_paddles_generator_decides():
    def drawn() -> np.ndarray:
        return init.rng_for("x").random(3)

    paddle.seed(3)
    first = drawn()
    second = drawn()
    paddle.seed(3)
    assert np.array_equal(drawn(), first)
    assert not np.array_equal(first, second)

"""Gradients of half weights: float32 sums over micro-batches, float32 norms."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from passl.optim.clip import ClipGradByGlobalNorm, global_norm
from passl.precision.gradients import WideGradients


def parameter(size: int, dtype: str) -> paddle.Tensor:
    tensor = paddle.zeros([size]).astype(dtype)
    tensor.stop_gradient = False
    return tensor


def leave(tensor: paddle.Tensor, value: np.ndarray) -> None:
    """What a backward pass does."""
    tensor.grad = paddle.to_tensor(value.astype(np.float32)).astype(tensor.dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_small_gradients_of_many_micro_batches_are_not_lost(dtype):
    weight = parameter(2, dtype)
    gradients = WideGradients([("weight", weight)])
    leave(weight, np.array([1.0, 2.0]))
    for _ in range(64):
        gradients.keep()
        assert weight.grad is None
        leave(weight, np.array([2.0**-12, 2.0**-12]))  # below half an ulp of both sums
    gradients.finish()
    assert weight.grad.dtype == paddle.float32
    np.testing.assert_array_equal(weight.grad.numpy(), np.float32([1.0, 2.0]) + 2.0**-6)


def test_sums_beyond_the_largest_half_number_are_finite():
    weight = parameter(1, "float16")
    gradients = WideGradients([("weight", weight)])
    for step in range(4):
        leave(weight, np.array([60000.0]))
        if step < 3:
            gradients.keep()
    gradients.finish()
    assert weight.grad.item() == 4 * float(np.float16(60000.0))


def test_the_norm_of_gradients_is_beyond_what_half_numbers_hold():
    weight = parameter(4096, "float16")
    named = [("weight", weight)]
    gradients = WideGradients(named)
    leave(weight, np.full(4096, 60000.0))
    gradients.finish()
    wanted = 64.0 * float(np.float16(60000.0))
    assert global_norm(named).item() == pytest.approx(wanted, rel=2e-6)
    norm = ClipGradByGlobalNorm(1.0)(named, 1024.0)
    assert norm.item() == pytest.approx(wanted / 1024.0, rel=2e-6)
    np.testing.assert_allclose(weight.grad.numpy(), np.full(4096, 1 / 64.0), rtol=1e-5)


def test_what_is_tiny_survives_the_division_by_the_scale():
    weight = parameter(1, "float16")
    named = [("weight", weight)]
    gradients = WideGradients(named)
    leave(weight, np.array([2.0**-14]))
    gradients.finish()
    ClipGradByGlobalNorm(1e9)(named, 65536.0)
    assert weight.grad.item() == 2.0**-30  # 0 in float16


def test_float32_parameters_keep_adding_up_where_they_are():
    norm, weight, unused = parameter(1, "float32"), parameter(1, "float16"), parameter(1, "float16")
    gradients = WideGradients([("norm", norm), ("weight", weight), ("unused", unused)])
    for _ in range(2):
        (norm * 3.0 + weight.astype("float32") * 5.0).sum().backward()
        gradients.keep()
    assert norm.grad.item() == 6.0
    gradients.finish()
    assert (norm.grad.item(), weight.grad.item(), unused.grad) == (6.0, 10.0, None)


def test_gradients_of_one_step_do_not_reach_the_next():
    weight = parameter(1, "float16")
    gradients = WideGradients([("weight", weight)])
    for value in (1.0, 2.0):
        (weight.astype("float32") * value).sum().backward()
        gradients.keep()
        (weight.astype("float32") * value).sum().backward()
        gradients.finish()
        assert weight.grad.item() == 2 * value
        weight.clear_gradient(False)


def test_the_wide_gradient_is_handed_over_and_not_copied():
    weight, made = parameter(3, "float16"), []

    class Seen(WideGradients):
        def take(self, parameter):
            total = super().take(parameter)
            made.append(total.data_ptr())
            return total

    gradients = Seen([("weight", weight)])
    for _ in range(2):  # also after the gradient of the step before was dropped
        (weight.astype("float32") * 2.0).sum().backward()
        gradients.finish()
        assert weight.grad.numpy().tolist() == [2.0, 2.0, 2.0]
        assert weight.grad.data_ptr() == made[-1]
        weight.clear_gradient(False)


def test_a_sum_of_the_processes_is_copied_out_of_their_buffer():
    weight = parameter(3, "float16")
    gradients = WideGradients([("weight", weight)])
    leave(weight, np.ones(3))
    buffer = paddle.arange(3, dtype="float32")
    gradients.put(weight, buffer)
    assert weight.grad.data_ptr() != buffer.data_ptr()
    weight.clear_gradient(False)
    assert buffer.numpy().tolist() == [0.0, 1.0, 2.0]


def test_a_gradient_is_taken_once():
    weight = parameter(1, "float16")
    gradients = WideGradients([("weight", weight)])
    leave(weight, np.array([1.0]))
    gradients.keep()
    leave(weight, np.array([2.0]))
    assert gradients.take(weight).item() == 3.0
    gradients.put(weight, paddle.to_tensor([7.0]))  # the sum over the processes
    gradients.finish()
    assert weight.grad.item() == 7.0
    assert gradients.take(parameter(1, "float16")) is None

"""Clipping: one norm over everything, exact in float32, PASSL's options."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from passl.optim import clip as clip_module
from passl.optim.clip import ClipGradByGlobalNorm, global_norm


def with_gradients(**gradients):
    parameters = []
    for name, value in gradients.items():
        value = np.asarray(value)
        tensor = paddle.zeros(value.shape, dtype="float32").astype(str(value.dtype))
        tensor.stop_gradient = False
        tensor.grad = paddle.to_tensor(value)
        parameters.append((name, tensor))
    return parameters


def gradients(parameters):
    return {name: param.grad.numpy() for name, param in parameters}


def f32(*values):
    return np.array(values, "float32")


@pytest.fixture(params=["host", "device"])
def path(request, monkeypatch):
    """Both ways to apply the factor: read on the host (CPU), or kept on the device (elsewhere)."""
    if request.param == "device":
        monkeypatch.setattr(clip_module, "on_cpu", lambda: False)


@pytest.mark.usefixtures("path")
def test_the_norm_is_taken_over_all_parameters_together():
    # PASSL clips group by group, which would give 1.0 and 1.0 for two groups.
    parameters = with_gradients(a=f32(3.0), b=f32(4.0))
    norm = ClipGradByGlobalNorm(1.0)(parameters)
    assert (norm.dtype, list(norm.shape), norm.item()) == (paddle.float32, [], 5.0)
    found = gradients(parameters)
    np.testing.assert_allclose([found["a"][0], found["b"][0]], [0.6, 0.8], rtol=1e-6)


@pytest.mark.usefixtures("path")
def test_clipping_equals_double_precision_over_many_shapes():
    rng = np.random.default_rng(0)
    shapes = {"a": (300, 200), "b": (7,), "c": (1, 5, 3), "d": ()}
    values = {name: np.asarray(rng.normal(size=s), "float32") for name, s in shapes.items()}
    parameters = with_gradients(**values)
    norm = ClipGradByGlobalNorm(2.0)(parameters)
    exact = np.sqrt(sum((v.astype(float) ** 2).sum() for v in values.values()))
    assert norm.item() == pytest.approx(exact, rel=1e-6)
    for name, found in gradients(parameters).items():
        np.testing.assert_allclose(found, values[name] * (2.0 / (exact + 1e-6)), rtol=1e-6)


@pytest.mark.usefixtures("path")
def test_small_gradients_are_untouched_unless_always_clip():
    values = f32(0.3, 0.4)
    parameters = with_gradients(a=values)
    ClipGradByGlobalNorm(1.0)(parameters)
    assert np.array_equal(gradients(parameters)["a"], values)
    ClipGradByGlobalNorm(1.0, always_clip=True)(parameters)
    np.testing.assert_allclose(gradients(parameters)["a"], [0.6, 0.8], rtol=1e-5)


@pytest.mark.usefixtures("path")
def test_clip_norm_max_bounds_the_factor():
    parameters = with_gradients(a=f32(0.3, 0.4))
    ClipGradByGlobalNorm(1.0, always_clip=True, clip_norm_max=1.5)(parameters)
    np.testing.assert_allclose(gradients(parameters)["a"], [0.45, 0.6], rtol=1e-6)


@pytest.mark.usefixtures("path")
def test_parameters_on_the_no_clip_list_count_for_nothing_and_keep_their_gradient():
    parameters = with_gradients(
        **{"head.weight": f32(30.0), "body.a": f32(3.0), "body.b": f32(4.0)}
    )
    norm = ClipGradByGlobalNorm(1.0, no_clip_list=["head"])(parameters)
    found = gradients(parameters)
    assert norm.item() == 5.0
    assert found["head.weight"][0] == 30.0
    assert found["body.a"][0] == pytest.approx(0.6, rel=1e-6)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_gradient_shows_in_the_norm(bad):
    parameters = with_gradients(a=f32(1.0, bad), b=f32(1.0))
    norm = ClipGradByGlobalNorm(1.0)(parameters).item()
    assert np.isnan(norm) if np.isnan(bad) else np.isinf(norm)


def test_squares_of_half_precision_gradients_are_taken_in_float32():
    # In float16 the squares underflow: PASSL's norm of these is 0.
    values = np.full(1000, 3e-5, "float16")
    parameters = with_gradients(a=values)
    norm = ClipGradByGlobalNorm(1e-4)(parameters)
    exact = np.sqrt((values.astype(float) ** 2).sum())
    assert norm.item() == pytest.approx(exact, rel=1e-6)
    expected = values.astype(float) * 1e-4 / (exact + 1e-6)
    smallest = 2.0**-24  # these are subnormal; Paddle 2.6 rounds them down, 3.3 to the nearest
    np.testing.assert_allclose(gradients(parameters)["a"], expected, rtol=0, atol=smallest)


def test_the_norm_of_many_equal_small_gradients_does_not_drift():
    # Adding one after another in float32, as paddle.dot does, stops growing long before the end.
    count = 20_000_000
    parameters = with_gradients(a=np.full(count, 1e-3, "float32"))
    exact = np.sqrt(count) * float(np.float32(1e-3))
    assert global_norm(parameters).item() == pytest.approx(exact, rel=1e-5)


def test_parameters_without_a_gradient_are_passed_over():
    parameters = with_gradients(a=f32(3.0), b=f32(4.0))
    parameters[0][1].clear_gradient(False)
    assert ClipGradByGlobalNorm(10.0)(parameters).item() == 4.0
    parameters[1][1].clear_gradient(False)
    assert ClipGradByGlobalNorm(10.0)(parameters).item() == 0.0


def test_bare_parameters_are_accepted_too():
    parameters = with_gradients(a=f32(3.0), b=f32(4.0))
    assert ClipGradByGlobalNorm(10.0)([param for _, param in parameters]).item() == 5.0


@pytest.mark.parametrize("norm", [0.0, -1.0, float("nan")])
def test_a_clip_norm_that_is_not_positive_is_refused(norm):
    with pytest.raises(ValueError, match="must be above 0"):
        ClipGradByGlobalNorm(norm)


@pytest.mark.parametrize("device", ["cpu", "accelerator"])
@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_the_loss_scale_goes_in_the_same_pass(device, limit, monkeypatch):
    monkeypatch.setattr("passl.optim.clip.on_cpu", lambda: device == "cpu")
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=(6, 5)).astype("float32") for name in ("a", "kept", "b")}
    clip = ClipGradByGlobalNorm(limit, no_clip_list=["kept"])

    def clipped(factor, **scale):
        named = [(name, paddle.ones([6, 5])) for name in values]
        for name, parameter in named:
            parameter.grad = paddle.to_tensor(values[name] * np.float32(factor))
        norm = clip(named, **scale)
        return norm.item(), {name: parameter.grad.numpy() for name, parameter in named}

    norm, plain = clipped(1.0)
    norm_of_scaled, scaled = clipped(4096.0, scale=4096.0)  # a power of two loses no bit
    assert norm_of_scaled == norm
    for name in values:
        np.testing.assert_allclose(scaled[name], plain[name], rtol=2e-7, err_msg=name)
    np.testing.assert_array_equal(scaled["kept"], values["kept"])


def test_gradients_of_half_precision_are_rounded_once():
    tiny = np.float16(6.1e-5)  # 1e-8 without the scale, below what float16 can hold
    weight = paddle.ones([1000], dtype="float16")
    weight.grad = paddle.full([1000], float(tiny), dtype="float16")
    norm = ClipGradByGlobalNorm(2e-2, always_clip=True)([("w", weight)], scale=6100.0)
    assert norm.item() == pytest.approx(float(tiny) / 6100 * np.sqrt(1000), rel=1e-5)
    expected = 2e-2 / (float(norm) + 1e-6) * float(tiny) / 6100
    np.testing.assert_allclose(weight.grad.numpy().astype(float), expected, rtol=1e-3)

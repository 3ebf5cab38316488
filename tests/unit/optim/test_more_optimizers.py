"""Adan, LARS, LARC, Adafactor, Lion, LAMB, SGD: timm's trajectories, their papers' formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest

from passl.optim import parallel
from passl.optim.adafactor import Adafactor
from passl.optim.adan import Adan
from passl.optim.groups import ParamGroup
from passl.optim.lamb import Lamb
from passl.optim.lars import LARS, MomentumLARS
from passl.optim.lion import Lion
from passl.optim.momentum import Momentum
from passl.registry import OPTIMIZERS

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "more_optimizers.npz")
#: case -> our class, its options, learning rate, weight decay of the matrix
CASES = {
    "adan": ("Adan", {}, 1e-2, 0.1),
    "adan_no_prox": ("Adan", {"no_prox": True, "eps": 1e-3}, 1e-2, 0.1),
    "lion": ("Lion", {}, 1e-3, 1.0),
    "lamb": ("Lamb", {}, 1e-2, 0.05),
    "lamb_clip": ("LAMB", {"always_adapt": True, "trust_clip": True}, 0.1, 0.05),
    "lars": ("LARS", {}, 1.0, 0.01),
    "lars_nesterov": ("LARS", {"use_nesterov": True, "trust_coefficient": 0.01}, 1.0, 0.01),
    "larc": ("MomentumLARC", {}, 0.05, 0.01),
    "adafactor": ("Adafactor", {"scale_parameter": False}, 1e-2, 0.1),
    "adafactor_beta1": (
        "Adafactor",
        {"betas": (0.9, 0.0), "clip_threshold": 0.5, "scale_parameter": False},
        1e-2,
        0.1,
    ),
    "adafactor_scaled": ("Adafactor", {}, 1e-2, 0.1),
}
EVERY = [Adan, Adafactor, LARS, Lamb, Lion, MomentumLARS, Momentum]


def parameter(value, dtype="float32"):
    tensor = paddle.to_tensor(np.asarray(value, "float32")).astype(dtype)
    tensor.stop_gradient = False
    return tensor


def arrays(state):
    return {key: tensor.numpy().copy() for key, tensor in state.items()}


@pytest.mark.parametrize("case", list(CASES))
def test_an_optimizer_follows_timm_step_for_step(case):
    name, options, lr, decay = CASES[case]
    weight, bias = parameter(GOLDEN["w0"]), parameter(GOLDEN["b0"])
    groups = [ParamGroup("w", [("w", weight)], decay), ParamGroup("b", [("b", bias)], 0.0)]
    optimizer = OPTIMIZERS.build({"name": name, **options}, groups=groups)
    for step, (grad_w, grad_b) in enumerate(zip(GOLDEN["grads_w"], GOLDEN["grads_b"])):
        weight.grad, bias.grad = paddle.to_tensor(grad_w), paddle.to_tensor(grad_b)
        optimizer.step(lr)
        np.testing.assert_allclose(
            weight.numpy(), GOLDEN[f"{case}/w"][step], rtol=2e-6, atol=2e-6, err_msg=f"step {step}"
        )
        np.testing.assert_allclose(
            bias.numpy(), GOLDEN[f"{case}/b"][step], rtol=2e-6, atol=2e-6, err_msg=f"step {step}"
        )


# -- the formulas, again and in double precision -----------------------------------------------


def adan(p, grads, rates, wd, b1=0.98, b2=0.92, b3=0.99, eps=1e-8):
    m = v = n = 0.0
    before = grads[0]
    for k, (g, lr) in enumerate(zip(grads, rates), 1):
        d, before = g - before, g
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * d
        n = b3 * n + (1 - b3) * (g + b2 * d) ** 2
        u = (m / (1 - b1**k) + b2 * v / (1 - b2**k)) / (np.sqrt(n / (1 - b3**k)) + eps)
        p = (p - lr * u) / (1 + lr * wd)
    return p


def lion(p, grads, rates, wd, b1=0.9, b2=0.99):
    m = np.zeros_like(p)
    for g, lr in zip(grads, rates):
        p = p - lr * (np.sign(b1 * m + (1 - b1) * g) + wd * p)
        m = b2 * m + (1 - b2) * g
    return p


def lamb(p, grads, rates, wd, b1=0.9, b2=0.999, eps=1e-6):
    m = v = 0.0
    for k, (g, lr) in enumerate(zip(grads, rates), 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        u = (m / (1 - b1**k)) / (np.sqrt(v / (1 - b2**k)) + eps) + wd * p
        p = p - lr * np.linalg.norm(p) / np.linalg.norm(u) * u
    return p


def lars(p, grads, rates, wd, mu=0.9, trust=0.001):
    v = 0.0
    for g, lr in zip(grads, rates):
        ratio = trust * np.linalg.norm(p) / (np.linalg.norm(g) + wd * np.linalg.norm(p) + 1e-8)
        v = mu * v + ratio * (g + wd * p)
        p = p - lr * v
    return p


def moco_lars(p, grads, rates, wd, mu=0.9, trust=0.001):
    v = 0.0
    for g, lr in zip(grads, rates):
        u = g + wd * p
        v = mu * v + trust * np.linalg.norm(p) / np.linalg.norm(u) * u
        p = p - lr * v
    return p


def larc(p, grads, rates, wd, mu=0.9, trust=0.02):
    v = 0.0
    for g, lr in zip(grads, rates):
        local = trust * np.linalg.norm(p) / (np.linalg.norm(g) + wd * np.linalg.norm(p) + 1e-8)
        v = mu * v + min(local / lr, 1.0) * (g + wd * p)
        p = p - lr * v
    return p


def adafactor(p, grads, rates, wd, decay_rate=-0.8, eps2=1e-3):
    rows = columns = 0.0
    for k, (g, lr) in enumerate(zip(grads, rates), 1):
        b = 1 - k**decay_rate
        squares = g * g + 1e-30
        rows = b * rows + (1 - b) * squares.sum(axis=1)  # sums, as in the paper
        columns = b * columns + (1 - b) * squares.sum(axis=0)
        u = g / np.sqrt(np.outer(rows, columns) / rows.sum())
        a = lr * max(eps2, np.sqrt(np.mean(p * p)))
        p = p - a * wd * p - a * u / max(1.0, np.sqrt(np.mean(u * u)))
    return p


def sgd(p, grads, rates, wd):
    for g, lr in zip(grads, rates):
        p = p - lr * (g + wd * p)
    return p


@pytest.mark.parametrize(
    ("name", "formula", "lr"),
    [
        ("Adan", adan, 0.01),
        ("Lion", lion, 0.001),
        ("Lamb", lamb, 0.01),
        ("LARS", lars, 1.0),
        ("MomentumLARS", moco_lars, 1.0),
        ("MomentumLARC", larc, 0.05),
        ("Adafactor", adafactor, 0.01),
        ("SGD", sgd, 0.1),
    ],
)
def test_an_optimizer_is_the_formula_of_its_paper(name, formula, lr):
    rng = np.random.default_rng(1)
    start = rng.normal(size=(7, 5)).astype("float32")
    grads = rng.normal(size=(20, 7, 5)).astype("float32")
    rates = [lr / (1 + 0.1 * k) for k in range(20)]
    weight = parameter(start)
    groups = [ParamGroup("g", [("w", weight)], 0.1, lr_scale=0.5)]
    optimizer = OPTIMIZERS.build({"name": name}, groups=groups)
    for grad, rate in zip(grads, rates):
        weight.grad = paddle.to_tensor(grad)
        optimizer.step(rate * 2)
    expected = formula(start.astype(float), grads.astype(float), rates, 0.1)
    np.testing.assert_allclose(weight.numpy(), expected, rtol=5e-6, atol=5e-6)


# -- what every optimizer promises -------------------------------------------------------------

SHAPES = {"scale": [], "weight": [5, 3], "bias": [3], "conv": [4, 3, 2, 2], "unused": [2]}


def trained(optimizer, parameters, set_gradients, steps):
    for step in steps:
        set_gradients(parameters, seed=step)
        parameters["unused"].clear_gradient(False)
        optimizer.step(1e-2 * (step + 1))
        optimizer.clear_grad()


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_restored_run_continues_bit_for_bit(
    make, dtype, make_parameters, set_gradients, make_groups
):
    straight = make_parameters(dtype=dtype, shapes=SHAPES)
    optimizer = make(groups=make_groups(straight, weight_decay=0.1, no_weight_decay_1d=True))
    trained(optimizer, straight, set_gradients, range(3))
    weights, saved = arrays(straight), arrays(optimizer.state_dict())
    trained(optimizer, straight, set_gradients, range(3, 6))

    resumed = make_parameters(seed=9, dtype=dtype, shapes=SHAPES)
    for name, tensor in resumed.items():
        tensor.set_value(weights[name])
    again = make(groups=make_groups(resumed, weight_decay=0.1, no_weight_decay_1d=True))
    again.load_state_dict(saved)
    trained(again, resumed, set_gradients, range(3, 6))
    final, final_again = arrays(optimizer.state_dict()), arrays(again.state_dict())
    assert final.keys() == final_again.keys()
    for key in final:
        np.testing.assert_array_equal(final_again[key], final[key], err_msg=key)
    for name in straight:
        np.testing.assert_array_equal(resumed[name].numpy(), straight[name].numpy(), err_msg=name)
        assert np.isfinite(straight[name].numpy()).all()


@pytest.mark.parametrize("make", EVERY)
def test_an_update_that_the_device_turns_down_changes_no_bit(
    make, make_parameters, set_gradients, make_groups
):
    plain, masked = (make_parameters(shapes=SHAPES) for _ in range(2))
    one, two = (make(groups=make_groups(each, weight_decay=0.1)) for each in (plain, masked))
    for step, accepted in enumerate([True, False, True]):
        for parameters in (plain, masked):
            set_gradients(parameters, seed=step, scale=1.0 if accepted else np.inf)
            parameters["unused"].clear_gradient(False)
        if accepted:
            one.step(0.1)
        two.step(0.1, paddle.to_tensor(accepted))
        two.settle([accepted])
    wanted, got = arrays(one.state_dict()), arrays(two.state_dict())
    assert wanted.keys() == got.keys()
    for key in wanted:
        np.testing.assert_array_equal(got[key], wanted[key], err_msg=key)
    for name in SHAPES:
        np.testing.assert_array_equal(masked[name].numpy(), plain[name].numpy(), err_msg=name)


@pytest.mark.parametrize("make", EVERY)
def test_the_result_does_not_depend_on_the_number_of_threads(
    make, monkeypatch, make_parameters, set_gradients, make_groups
):
    monkeypatch.setattr(parallel, "_WORTH_IT", 1)
    results = []
    for threads in (1, 3):
        monkeypatch.setattr(parallel, "_num_threads", lambda n=threads: n)
        parameters = make_parameters(shapes=SHAPES)
        optimizer = make(groups=make_groups(parameters, weight_decay=0.1))
        trained(optimizer, parameters, set_gradients, range(3))
        results.append(arrays(parameters))
    for name in SHAPES:
        np.testing.assert_array_equal(results[1][name], results[0][name], err_msg=name)


@pytest.mark.parametrize("make", EVERY)
def test_a_gradient_is_left_as_it_was(make, make_parameters, set_gradients, make_groups):
    parameters = make_parameters(shapes=SHAPES)
    optimizer = make(groups=make_groups(parameters, weight_decay=0.1))
    for step in range(2):
        set_gradients(parameters, seed=step)
        before = {name: tensor.grad.numpy().copy() for name, tensor in parameters.items()}
        optimizer.step(0.1)
        for name, tensor in parameters.items():
            np.testing.assert_array_equal(tensor.grad.numpy(), before[name], err_msg=name)


@pytest.mark.parametrize("name", ["LARS", "MomentumLARC", "MomentumLARS", "Lamb", "Adafactor"])
def test_zero_weights_and_zero_gradients_stay_finite(name):
    weight, still = parameter(np.zeros([4, 3])), parameter(np.ones([4, 3]))
    groups = [ParamGroup("g", [("w", weight), ("still", still)], 0.0)]
    optimizer = OPTIMIZERS.build({"name": name}, groups=groups)
    weight.grad, still.grad = paddle.ones([4, 3]), paddle.zeros([4, 3])
    for rate in (0.0, 0.1):
        optimizer.step(rate)
    assert np.isfinite(weight.numpy()).all()
    assert (weight.numpy() < 0).all()
    assert (still.numpy() == 1).all()


def test_adafactor_and_sgd_remember_next_to_nothing(make_parameters, make_groups):
    groups = make_groups(make_parameters(shapes={"w": [200, 300]}))
    sizes = {
        make.__name__: sum(v.size for k, v in make(groups=groups).state_dict().items() if "/" in k)
        for make in (Adafactor, Lion, Adan)
    }
    assert sizes == {"Adafactor": 501, "Lion": 60_001, "Adan": 240_001}
    assert list(Momentum(groups=groups, momentum=0.0).state_dict()) == ["__step__", "w/updates"]

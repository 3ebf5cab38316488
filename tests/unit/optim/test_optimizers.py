"""AdamW and Momentum: PyTorch's trajectories, exact continuation, groups, half precision."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import paddle
import pytest

from passl.errors import CheckpointError
from passl.optim import kernel_choice, kernels, parallel
from passl.optim.adamw import AdamW
from passl.optim.clip import ClipGradByGlobalNorm
from passl.optim.groups import ParamGroup
from passl.optim.momentum import Momentum

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "optimizers.npz")


def parameter(value, dtype="float32"):
    tensor = paddle.to_tensor(np.asarray(value, "float32")).astype(dtype)
    tensor.stop_gradient = False
    return tensor


def arrays(state):
    return {key: tensor.numpy().copy() for key, tensor in state.items()}


def golden_run(make, weight_decay, lr, bias_decays, clip):
    """The weights after each step of the recorded gradients, and the last bias."""
    weight, bias = parameter(GOLDEN["w0"]), parameter(GOLDEN["b0"])
    optimizer = make(
        groups=[
            ParamGroup("w", [("fc.weight", weight)], weight_decay),
            ParamGroup("b", [("fc.bias", bias)], weight_decay if bias_decays else 0.0),
        ]
    )
    trajectory = []
    for grad_w, grad_b in zip(GOLDEN["grads_w"], GOLDEN["grads_b"]):
        weight.grad, bias.grad = paddle.to_tensor(grad_w), paddle.to_tensor(grad_b)
        if clip is not None:
            ClipGradByGlobalNorm(clip)(optimizer.named_parameters)
        optimizer.step(lr)
        optimizer.clear_grad()
        trajectory.append(weight.numpy().copy())
    return np.stack(trajectory), bias.numpy()


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("form", list(kernels.ADAMW_FORMS))
def test_adamw_follows_pytorch_step_for_step(form, clip, monkeypatch):
    monkeypatch.setattr("passl.optim.adamw.adamw_kernel", lambda: kernels.ADAMW_FORMS[form])
    weights, bias = golden_run(AdamW, 0.3, 1e-2, bias_decays=False, clip=clip)
    key = f"adamw_lr1e-2_wd0.3_b0.9_0.999_eps1e-8_nodecaybias/clip{clip}"
    np.testing.assert_allclose(weights, GOLDEN[f"{key}/w"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(bias, GOLDEN[f"{key}/b_last"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("form", [kernels.momentum_fused, kernels.momentum_composed])
def test_momentum_follows_pytorch_step_for_step(form, clip, monkeypatch):
    monkeypatch.setattr("passl.optim.momentum.momentum_kernel", lambda: form)
    weights, bias = golden_run(Momentum, 1e-2, 3e-2, bias_decays=True, clip=clip)
    key = f"momentum_lr3e-2_m0.9_l2wd1e-2/clip{clip}"
    np.testing.assert_allclose(weights, GOLDEN[f"{key}/w"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(bias, GOLDEN[f"{key}/b_last"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("form", list(kernels.ADAMW_FORMS))
def test_adamw_equals_the_formula_in_double_precision(form, monkeypatch):
    monkeypatch.setattr("passl.optim.adamw.adamw_kernel", lambda: kernels.ADAMW_FORMS[form])
    rng = np.random.default_rng(0)
    p = rng.normal(size=(40, 30))
    weight = parameter(p)
    optimizer = AdamW(
        groups=[ParamGroup("g", [("w", weight)], 0.1, 0.5)], betas=(0.8, 0.95), eps=1e-3
    )
    p, m, v = weight.numpy().astype(float), 0.0, 0.0
    for k in range(1, 31):
        grad = rng.normal(size=p.shape).astype("float32")
        weight.grad = paddle.to_tensor(grad)
        optimizer.step(0.02 / k)
        g, lr = grad.astype(float), 0.5 * 0.02 / k
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
        p = p * (1 - lr * 0.1)
        p = p - lr * (m / (1 - 0.8**k)) / (np.sqrt(v / (1 - 0.95**k)) + 1e-3)
    np.testing.assert_allclose(weight.numpy(), p, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("form", [kernels.momentum_fused, kernels.momentum_composed])
@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_equals_the_formula(form, nesterov, monkeypatch):
    monkeypatch.setattr("passl.optim.momentum.momentum_kernel", lambda: form)
    rng = np.random.default_rng(0)
    weight = parameter(rng.normal(size=(6, 5)))
    optimizer = Momentum(
        groups=[ParamGroup("g", [("w", weight)], 0.1, 0.5)], momentum=0.7, use_nesterov=nesterov
    )
    p, v = weight.numpy().astype(float), 0.0
    for _ in range(10):
        grad = rng.normal(size=p.shape).astype("float32")
        weight.grad = paddle.to_tensor(grad)
        optimizer.step(0.2)
        g = grad + 0.1 * p
        v = 0.7 * v + g
        p = p - 0.1 * (g + 0.7 * v if nesterov else v)
    np.testing.assert_allclose(weight.numpy(), p, rtol=1e-5, atol=1e-6)


def test_decay_uses_the_weights_before_the_step_and_nothing_of_the_gradient():
    weight = parameter([2.0])
    optimizer = AdamW(groups=[ParamGroup("g", [("w", weight)], 0.5)])
    weight.grad = paddle.to_tensor([1e3])
    optimizer.step(0.1)
    assert weight.item() == pytest.approx(2.0 * (1 - 0.1 * 0.5) - 0.1, rel=1e-6)


def test_a_learning_rate_of_zero_changes_no_weight_but_feeds_the_moments():
    weight = parameter([2.0, -3.0])
    optimizer = AdamW(groups=[ParamGroup("g", [("w", weight)], 0.5)])
    weight.grad = paddle.to_tensor([1.0, 2.0])
    optimizer.step(0.0)
    assert weight.numpy().tolist() == [2.0, -3.0]
    np.testing.assert_allclose(optimizer.state_dict()["w/moment1"].numpy(), [0.1, 0.2], rtol=1e-6)


def train(optimizer, parameters, set_gradients, first, last, clip=None):
    for step in range(first, last):
        set_gradients(parameters, seed=step)
        if clip:
            clip(optimizer.named_parameters)
        optimizer.step(1e-2 * (step + 1))
        optimizer.clear_grad()


@pytest.mark.parametrize("make", [AdamW, Momentum])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_restored_run_continues_bit_for_bit_after_a_decoy_model(
    make, dtype, make_parameters, set_gradients, make_groups
):
    options = {"weight_decay": 0.1, "no_weight_decay_name": ["bias"]}
    straight = make_parameters(dtype=dtype)
    optimizer = make(groups=make_groups(straight, **options))
    train(optimizer, straight, set_gradients, 0, 3)
    weights = {name: tensor.numpy().copy() for name, tensor in straight.items()}
    saved = arrays(optimizer.state_dict())
    train(optimizer, straight, set_gradients, 3, 7)

    paddle.nn.Linear(3, 3)  # shifts Paddle's counters of names
    resumed = make_parameters(seed=9, dtype=dtype)
    for name, tensor in resumed.items():
        tensor.set_value(weights[name])
    again = make(groups=make_groups(resumed, **options))
    again.load_state_dict(saved)
    assert again.num_steps == 3
    train(again, resumed, set_gradients, 3, 7)
    for name in straight:
        assert np.array_equal(straight[name].numpy(), resumed[name].numpy())
    final, final_again = arrays(optimizer.state_dict()), arrays(again.state_dict())
    assert final.keys() == final_again.keys()
    assert all(np.array_equal(final[key], final_again[key]) for key in final)


def test_state_lives_under_the_names_of_the_model(make_parameters, make_groups):
    optimizer = AdamW(groups=make_groups(make_parameters(shapes={"head.weight": [2, 3]})))
    state = arrays(optimizer.state_dict())
    assert {key: value.shape for key, value in state.items()} == {
        "__step__": (),
        "head.weight/moment1": (2, 3),
        "head.weight/moment2": (2, 3),
        "head.weight/updates": (),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("norm.weight/moment1"), r"missing entries \(1\): norm.weight/moment1"),
        (
            lambda s: s.update({"nom.weight/moment1": s.pop("norm.weight/moment1")}),
            r"missing entries \(1\): norm.weight/moment1 \(nearest in the file: "
            r"nom.weight/moment1\); entries that belong to nothing \(1\): nom.weight/moment1",
        ),
        (
            lambda s: s.update({"pos_embed/moment2": np.zeros([1, 5, 3], "float32")}),
            r"pos_embed/moment2 has shape \[1, 5, 3\], here \[1, 4, 3\]",
        ),
        (lambda s: s.pop("__step__"), r"missing entries \(1\): __step__"),
    ],
)
def test_state_of_another_model_is_refused_and_changes_nothing(
    change, message, make_parameters, set_gradients, make_groups
):
    parameters = make_parameters()
    optimizer = AdamW(groups=make_groups(parameters))
    state = arrays(optimizer.state_dict())
    train(optimizer, parameters, set_gradients, 0, 2)
    before = arrays(optimizer.state_dict())
    change(state)
    with pytest.raises(CheckpointError, match=message):
        optimizer.load_state_dict(state)
    after = arrays(optimizer.state_dict())
    assert all(np.array_equal(before[key], after[key]) for key in before)


def test_state_of_another_optimizer_is_refused(make_parameters, make_groups):
    groups = make_groups(make_parameters())
    state = arrays(Momentum(groups=groups).state_dict())
    with pytest.raises(CheckpointError, match="does not fit AdamW"):
        AdamW(groups=groups).load_state_dict(state)


def test_half_precision_weights_move_through_float32_masters(make_parameters, make_groups):
    parameters = make_parameters(dtype="float16", shapes={"w": [8]})
    optimizer = Momentum(groups=make_groups(parameters), momentum=0.0)
    start = parameters["w"].numpy().astype("float32")
    for _ in range(100):  # each step is far below half a unit in the last place of float16
        parameters["w"].grad = paddle.to_tensor(np.full(8, 1e-3, "float16"))
        optimizer.step(1e-2)
    grad = np.float32(np.float16(1e-3))
    master = optimizer.state_dict()["w/master"]
    np.testing.assert_allclose(master.numpy(), start - grad * 1e-2 * 100, rtol=0, atol=1e-5)
    assert np.array_equal(parameters["w"].numpy(), master.astype("float16").numpy())


def test_masters_are_ignored_by_a_float32_run_and_demanded_by_a_half_precision_one(
    make_parameters, make_groups
):
    full = AdamW(groups=make_groups(make_parameters()))
    half = AdamW(groups=make_groups(make_parameters(dtype="float16")))
    full.load_state_dict(arrays(half.state_dict()))
    with pytest.raises(CheckpointError, match="holds no master weights"):
        half.load_state_dict(arrays(full.state_dict()))


def test_a_parameter_without_a_gradient_is_left_alone(make_parameters, set_gradients, make_groups):
    parameters = make_parameters()
    optimizer = AdamW(groups=make_groups(parameters, weight_decay=0.5))
    set_gradients(parameters, seed=0)
    parameters["pos_embed"].clear_gradient(False)
    before = parameters["pos_embed"].numpy().copy()
    optimizer.step(0.1)
    assert np.array_equal(parameters["pos_embed"].numpy(), before)
    state = arrays(optimizer.state_dict())
    assert (state["pos_embed/updates"], state["norm.weight/updates"]) == (0, 1)
    assert state["__step__"] == 1


def test_cleared_gradients_are_none_and_come_back_with_the_next_backward():
    weight = parameter([1.0, 2.0])
    optimizer = Momentum(groups=[ParamGroup("g", [("w", weight)])])
    for _ in range(2):
        (weight * weight).sum().backward()
        optimizer.step(0.1)
        optimizer.clear_grad()
        assert weight.grad is None
    np.testing.assert_allclose(weight.numpy(), [1 * 0.8 - 0.34, 2 * 0.8 - 0.68], rtol=1e-6)


@pytest.mark.parametrize("make", [AdamW, Momentum])
@pytest.mark.parametrize("form", ["fused", "decay_then_adam"])
def test_the_result_does_not_depend_on_the_number_of_threads(make, form, monkeypatch, make_groups):
    monkeypatch.setattr("passl.optim.adamw.adamw_kernel", lambda: kernels.ADAMW_FORMS[form])
    monkeypatch.setattr(parallel, "_WORTH_IT", 1)
    results = []
    for threads in (1, 3):
        monkeypatch.setattr(parallel, "_num_threads", lambda n=threads: n)
        rng = np.random.default_rng(0)
        parameters = {f"w{i}": parameter(rng.normal(size=(50, 10 * i + 1))) for i in range(6)}
        optimizer = make(groups=make_groups(parameters, weight_decay=0.1))
        clip = ClipGradByGlobalNorm(0.5)
        for _ in range(3):
            for tensor in parameters.values():
                tensor.grad = paddle.to_tensor(rng.normal(size=tensor.shape).astype("float32"))
            clip(optimizer.named_parameters)
            optimizer.step(0.1)
        results.append({name: tensor.numpy() for name, tensor in parameters.items()})
    assert all(np.array_equal(results[0][name], results[1][name]) for name in results[0])


def test_an_error_in_a_thread_reaches_the_caller(monkeypatch):
    monkeypatch.setattr(parallel, "_WORTH_IT", 1)
    monkeypatch.setattr(parallel, "_num_threads", lambda: 2)
    with pytest.raises(ZeroDivisionError):
        parallel.map_tensors(lambda x: 1 // x, [1, 1, 0, 1], [1, 1, 1, 1])


def test_the_kernels_of_this_paddle_are_known():
    # A new Paddle falls back on slow public operations; extend signatures after trying it.
    assert kernels.signatures() in ("3", "2.6")


@pytest.mark.parametrize("optimizer", [AdamW, Momentum])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_update_that_the_device_turns_down_changes_no_bit(
    make_parameters, make_groups, set_gradients, monkeypatch, optimizer, dtype
):
    monkeypatch.setattr("passl.optim.base._CHUNK_NUMEL", 16)  # several chunks
    shapes = {"scale": [], "weight": [5, 3], "bias": [3], "unused": [2]}
    plain, masked = (make_parameters(dtype=dtype, shapes=shapes) for _ in range(2))
    one, two = (optimizer(groups=make_groups(each, weight_decay=0.1)) for each in (plain, masked))
    verdicts = [True, False, False, True, True]
    for step, accepted in enumerate(verdicts):
        before = {k: v.numpy().copy() for k, v in two.state_dict().items() if "updates" not in k}
        for parameters in (plain, masked):
            set_gradients(parameters, seed=step, scale=1.0 if accepted else np.inf)
            parameters["unused"].clear_gradient(False)
        if accepted:
            one.step(0.1)
        two.step(0.1, paddle.to_tensor(accepted))
        two.settle([accepted])
        if not accepted:
            for name, value in before.items():
                np.testing.assert_array_equal(two.state_dict()[name].numpy(), value, err_msg=name)
    for name in shapes:
        np.testing.assert_array_equal(plain[name].numpy(), masked[name].numpy(), err_msg=name)
    wanted, got = one.state_dict(), two.state_dict()
    assert wanted.keys() == got.keys()
    for name in wanted:
        np.testing.assert_array_equal(got[name].numpy(), wanted[name].numpy(), err_msg=name)


def test_adamw_in_lists_is_adamw_one_by_one(monkeypatch):
    """Groups with their own numbers, a parameter that once had no gradient, a half one, chunks."""
    sizes, lengths = [5, 3, 7, 2, 4], []

    def run(form):
        monkeypatch.setattr("passl.optim.adamw.adamw_kernel", lambda: form)
        rng = np.random.default_rng(3)
        weights = [parameter(rng.normal(size=[size, 2])) for size in sizes]
        weights[4] = weights[4].astype("float16").detach()
        named = [(f"w{index}", weight) for index, weight in enumerate(weights)]
        groups = [ParamGroup("a", named[:3], 0.1, 1.0), ParamGroup("b", named[3:], 0.0, 0.5)]
        optimizer = AdamW(groups=groups)
        for step in range(3):
            for index, weight in enumerate(weights):
                values = rng.normal(size=weight.shape).astype("float32")
                weight.grad = paddle.to_tensor(values).astype(weight.dtype)
                if (step, index) == (1, 1):
                    weight.clear_gradient(False)
            optimizer.step(1e-2)
        return {name: value.numpy() for name, value in optimizer.state_dict().items()} | {
            name: weight.numpy() for name, weight in named
        }

    listed = kernels.ADAMW_FORMS["listed"]

    def update_list(params, *rest):
        lengths.append(len(params))
        listed.update_list(params, *rest)

    wanted = run(kernels.ADAMW_FORMS["fused"])
    monkeypatch.setattr("passl.optim.base._CHUNK_NUMEL", 36)  # w0 to w3, then w4
    found = run(dataclasses.replace(listed, update_list=update_list))
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert lengths == [3, 1, 1, 2, 2, 2, 1, 1, 1]  # w1 is one update behind in the last step


@pytest.mark.parametrize(
    ("device", "form"), [("gpu:0", "listed"), ("npu:0", "fused"), ("xpu:1", "fused")]
)
def test_lists_are_for_gpus(device, form, monkeypatch):
    monkeypatch.setattr(paddle.device, "get_device", lambda: device)
    assert kernel_choice.adamw_kernel().name == form


def test_without_the_operator_for_lists_parameters_go_one_by_one(monkeypatch):
    monkeypatch.setattr(paddle.device, "get_device", lambda: "gpu:0")
    monkeypatch.delattr(paddle._C_ops, "fused_adam_")
    assert kernel_choice.adamw_kernel().name == "fused"


def is_not_there(*_):
    raise RuntimeError("no kernel for this device")


def forgets_all_but_60(params, grads, m, v, scalars):
    kernels._adamw_listed(params[:60], grads[:60], m[:60], v[:60], scalars)


def forgets_the_second_chunk(params, grads, m, v, scalars):
    wanted = [(param.clone(), first.clone(), second.clone())
              for param, first, second in zip(params, m, v)]  # fmt: skip
    kernels._adamw_listed(params, grads, m, v, scalars)
    for (param, first, second), *ours in zip(wanted, params, m, v):
        for tensor, before in zip(ours, (param, first, second)):
            kept = paddle.concat([tensor[: kernels.LAUNCH_CHUNK], before[kernels.LAUNCH_CHUNK :]])
            paddle.assign(kept, output=tensor)


@pytest.fixture
def nothing_tried(monkeypatch):
    monkeypatch.setattr("passl.trial._FOUND", {})


@pytest.mark.parametrize(
    ("update_list", "reason"),
    [
        (is_not_there, "failed with RuntimeError: no kernel"),
        (forgets_all_but_60, "the parameter it computes is wrong"),
        (forgets_the_second_chunk, "the parameter it computes is wrong"),
    ],
)
def test_lists_that_do_not_work_on_a_gpu_are_left_alone(
    update_list, reason, monkeypatch, nothing_tried
):
    monkeypatch.setattr(paddle.device, "get_device", lambda: "gpu:0")
    broken = dataclasses.replace(kernels.ADAMW_FORMS["listed"], update_list=update_list)
    monkeypatch.setitem(kernels.ADAMW_FORMS, "listed", broken)
    with pytest.warns(UserWarning, match=reason):
        assert kernel_choice.adamw_kernel().name == "fused"


@pytest.mark.parametrize("device", ["cpu", "gpu:0", "xpu:0"])
def test_kernels_that_want_other_numbers_give_way_to_public_operations(
    device, monkeypatch, nothing_tried
):
    """As those of later Paddle, which read the learning rate in double precision."""
    monkeypatch.setattr(paddle.device, "get_device", lambda: device)
    for name in ("adamw_", "merged_adam_", "fused_adam_", "momentum_"):
        monkeypatch.setattr(paddle._C_ops, name, is_not_there)
    with pytest.warns(UserWarning, match="no kernel"):
        assert kernel_choice.adamw_kernel().name == "composed"
    with pytest.warns(UserWarning, match="no kernel"):
        assert kernel_choice.momentum_kernel() is kernels.momentum_composed


def test_a_momentum_that_computes_something_else_is_not_used(monkeypatch, nothing_tried):
    def is_always_nesterov(param, grad, velocity, lr, momentum, decay, _nesterov):
        kernels.momentum_composed(param, grad, velocity, lr, momentum, decay, True)

    monkeypatch.setattr(kernel_choice, "momentum_fused", is_always_nesterov)
    with pytest.warns(UserWarning, match="the parameter it computes is wrong"):
        assert kernel_choice.momentum_kernel() is kernels.momentum_composed

"""Tensors in one buffer are what they were before, and stay in it."""

from __future__ import annotations

import weakref

import numpy as np
import paddle
import pytest

from passl.optim import packed as packed_module
from passl.optim.adamw import AdamW
from passl.optim.groups import ParamGroup
from passl.optim.lion import Lion
from passl.optim.packed import Loose, Packed


@pytest.fixture(params=[0, 1], ids=["copying slices", "views"])
def strides(request):
    """On a CPU our commands switch Paddle's views off; on a GPU they are on."""
    flag = "FLAGS_use_stride_kernel"
    before = paddle.get_flags(flag)
    paddle.set_flags({flag: request.param})
    yield
    paddle.set_flags(before)


def numbers(shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype("float32")


def parameter(value):
    tensor = value if isinstance(value, paddle.Tensor) else paddle.to_tensor(value)
    tensor.stop_gradient = False
    return tensor


def test_a_packed_tensor_has_its_values_shape_and_gradient(strides):
    values = [numbers(shape) for shape in ([3, 5], [], [70], [0, 2], [2, 1, 4])]
    tensors = [parameter(value) for value in values]
    packed = Packed(tensors)
    for tensor, value in zip(tensors, values):
        assert list(tensor.shape) == list(value.shape)
        np.testing.assert_array_equal(tensor.numpy(), value)
    assert packed.is_whole
    addresses = [tensor.data_ptr() - tensors[0].data_ptr() for tensor in tensors if tensor.size]
    assert addresses == [0, 256, 512, 1024]  # in bytes
    (tensors[0] * tensors[0]).sum().backward()
    np.testing.assert_allclose(tensors[0].grad.numpy(), 2 * values[0], rtol=1e-6)


@pytest.mark.parametrize("kind", [Packed, Loose])
@pytest.mark.parametrize("accepted", [True, False])
def test_what_is_written_in_any_way_is_kept_or_put_back_bit_for_bit(strides, accepted, kind):
    tensors = [paddle.to_tensor(numbers(shape)) for shape in ([3, 5], [], [70])]
    packed = kind(tensors)
    start, before = [tensor.numpy() for tensor in tensors], packed.copy()
    tensors[0].scale_(float("nan"))
    tensors[1].set_value(np.array(7.0, "float32"))
    paddle.assign(paddle.full([70], float("inf")), output=tensors[2])
    written = [tensor.numpy() for tensor in tensors]
    assert packed.is_whole
    packed.keep_if(paddle.to_tensor(accepted), before)
    for tensor, old, new in zip(tensors, start, written):
        np.testing.assert_array_equal(tensor.numpy(), new if accepted else old)


def test_a_tensor_that_was_given_another_storage_is_packed_again():
    first, second = parameter(numbers([4])), parameter(numbers([3, 2]))
    optimizer = AdamW(groups=[ParamGroup("g", [("first", first), ("second", second)], 0.1)])

    def masked_step(accepted):
        for tensor in (first, second):
            tensor.grad = paddle.full(tensor.shape, 1.0 if accepted else float("nan"))
        optimizer.step(0.1, paddle.to_tensor(accepted))

    masked_step(True)
    other = paddle.to_tensor(numbers([4]))
    first.get_tensor()._share_data_with(other.get_tensor())
    before = first.numpy()
    masked_step(False)
    np.testing.assert_array_equal(first.numpy(), before)
    masked_step(True)
    assert np.isfinite(first.numpy()).all()
    assert (first.numpy() != before).all()


def test_a_state_that_is_loaded_later_is_what_a_refused_step_leaves():
    first = parameter(numbers([4]))
    optimizer = AdamW(groups=[ParamGroup("g", [("first", first)], 0.1)])
    first.grad = paddle.ones([4])
    optimizer.step(0.1, paddle.to_tensor(True))
    state = {key: np.array(value.numpy()) for key, value in optimizer.state_dict().items()}
    state["first/moment1"] = np.full(4, 9.0, np.float32)
    optimizer.load_state_dict(state)
    first.grad = paddle.full([4], float("nan"))
    optimizer.step(0.1, paddle.to_tensor(False))
    assert optimizer.state_dict()["first/moment1"].numpy().tolist() == [9.0] * 4


def test_copies_of_one_part_are_gone_before_those_of_the_next(monkeypatch):
    monkeypatch.setattr("passl.optim.base._CHUNK_NUMEL", 4)
    copies, alive = [], []
    real = Packed.copy

    def copy(packed):
        alive.append(sum(one() is not None for one in copies))
        made = real(packed)
        copies.append(weakref.ref(made))
        return made

    monkeypatch.setattr(Packed, "copy", copy)
    named = [(name, parameter(numbers([4]))) for name in "abc"]
    optimizer = AdamW(groups=[ParamGroup("g", named, 0.1)])
    for _, weight in named:
        weight.grad = paddle.ones([4])
    optimizer.step(0.1, paddle.to_tensor(True))
    assert alive == [0, 1, 2] * 3


@pytest.fixture
def nothing_tried(monkeypatch):
    """Whether a device can pack is asked anew, now and by the next test."""
    monkeypatch.setattr("passl.trial._FOUND", {})


def test_a_device_where_storage_does_not_move_is_told_and_its_tensors_stay(
    nothing_tried, monkeypatch
):
    monkeypatch.setattr(Packed, "_move", lambda *_: None)
    tensors = [paddle.to_tensor(numbers([4]))]
    with pytest.warns(UserWarning, match="do not have their numbers there; a step launches more"):
        assert isinstance(packed_module.pack(tensors), Loose)


def test_a_paddle_without_what_packing_needs_is_told(nothing_tried, monkeypatch):
    def fails(*_):
        raise AttributeError("no _share_data_with")

    monkeypatch.setattr(Packed, "_move", fails)
    with pytest.warns(UserWarning, match="AttributeError: no _share_data_with"):
        assert isinstance(packed_module.pack([paddle.ones([2])]), Loose)


@pytest.mark.parametrize("kind", [Packed, Loose])
@pytest.mark.parametrize("make", [AdamW, Lion])
def test_half_weights_follow_their_masters_in_one_piece_on_a_device(make, kind, monkeypatch):
    monkeypatch.setattr("passl.optim.base.pack", kind)
    dtypes = {"a": "float16", "b": "float32", "c": "bfloat16", "d": "float16"}
    found = []
    for on_device in (False, True):
        if on_device:
            monkeypatch.setattr("passl.optim.base.on_cpu", lambda: False)
            monkeypatch.setattr("passl.optim.base.write_back", None)  # would be one at a time
        draw, named = np.random.default_rng(0), []
        for name, dtype in dtypes.items():
            value = paddle.to_tensor(draw.normal(size=[3, 2]).astype("float32")).astype(dtype)
            named.append((name, parameter(value)))
        optimizer = make(groups=[ParamGroup("g", named, 0.1)])
        for step in range(4):
            for name, weight in named:
                value = draw.normal(size=[3, 2]).astype("float32")
                if (step, name) != (2, "d"):  # one without a gradient
                    weight.grad = paddle.to_tensor(value).astype(weight.dtype)
            optimizer.step(0.01)
            optimizer.clear_grad()
        found.append({name: weight.astype("float32").numpy() for name, weight in named})
        assert [str(weight.dtype) for _, weight in named] == [
            f"paddle.{dtype}" for dtype in dtypes.values()
        ]
    for name, value in found[0].items():
        np.testing.assert_array_equal(found[1][name], value, err_msg=name)

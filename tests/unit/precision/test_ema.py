"""The average of the weights: its values, what it leaves alone, what it survives."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddle import nn

from passl.errors import CheckpointError
from passl.optim.adamw import AdamW
from passl.optim.groups import build_param_groups
from passl.precision.ema import WeightAverage


class Small(nn.Layer):
    """Two trainable layers, a frozen one and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.frozen, self.last = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        for parameter in self.frozen.parameters():
            parameter.stop_gradient = True
        self.register_buffer("seen", paddle.zeros([1]))


@pytest.fixture
def model() -> Small:
    paddle.seed(3)
    return Small()


def trainable(model: nn.Layer) -> list[tuple[str, paddle.Tensor]]:
    return [(name, p) for name, p in model.named_parameters() if not p.stop_gradient]


def move(model: nn.Layer, rng: np.random.Generator, scale: float = 1.0) -> dict[str, np.ndarray]:
    """New weights; what they are."""
    for _, parameter in trainable(model):
        step = (scale * rng.normal(size=parameter.shape)).astype(np.float32)
        parameter.set_value(parameter.numpy() + step)
    return {name: parameter.numpy() for name, parameter in trainable(model)}


def arrays(average: WeightAverage) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in average.weights().items()}


@pytest.mark.parametrize("warmup", [False, True])
@pytest.mark.parametrize("every", [1, 3])
def test_the_average_is_that_of_numpy_in_float64(model, warmup, every):
    average = WeightAverage(model, trainable(model), decay=0.97, warmup=warmup, every=every)
    wanted = {name: p.numpy().astype(np.float64) for name, p in trainable(model)}
    rng = np.random.default_rng(0)
    count = 0
    for step in range(1, 400):
        weights = move(model, rng, 0.1)
        average.update()
        if step % every == 0:
            decay = min(0.97, (1 + count) / (10 + count)) if warmup else 0.97
            for name, weight in weights.items():
                wanted[name] = decay * wanted[name] + (1 - decay) * weight
            count += 1
    assert average.state_dict() == {"updates": count, "steps": 399}
    for name, value in wanted.items():
        np.testing.assert_allclose(arrays(average)[name], value, rtol=2e-5, atol=2e-6)


def test_a_slow_average_moves_where_one_in_float16_would_stand_still(model):
    average = WeightAverage(model, trainable(model), decay=0.9999, warmup=False)
    for _, parameter in trainable(model):
        parameter.set_value(np.ones(parameter.shape, np.float32))
    average.restart()
    for _, parameter in trainable(model):
        parameter.set_value(np.full(parameter.shape, 1.1, np.float32))
    for _ in range(1000):
        average.update()
    # Each update adds 1e-5, a hundredth of what float16 can see beside 1.
    moved = arrays(average)["first.weight"] - 1.0
    np.testing.assert_allclose(moved, 0.1 * (1 - 0.9999**1000), rtol=0.01)


def test_it_averages_the_masters_of_a_model_in_half_precision():
    layer = nn.Layer()
    layer.a = layer.create_parameter([1], dtype="float16")
    optimizer = AdamW(groups=build_param_groups(layer.named_parameters()))
    ((name, master),) = optimizer.named_weights
    assert (name, master.dtype) == ("a", paddle.float32)
    average = WeightAverage(layer, optimizer.named_weights, decay=0.9, warmup=False)
    begin = float(master.item())
    master.set_value(np.float32([begin + 1e-4]))
    average.update()
    value = average.weights()["a"]
    assert value.dtype == paddle.float32
    np.testing.assert_allclose(float(value.item()) - begin, 1e-5, rtol=0.05)
    with average.swapped_in():
        assert layer.a.dtype == paddle.float16


def test_frozen_weights_and_buffers_are_the_models_own(model):
    average = WeightAverage(model, trainable(model), decay=0.9)
    model.frozen.weight.set_value(np.full([4, 4], 5.0, np.float32))
    model.seen.set_value(np.float32([7.0]))
    average.update()
    got = arrays(average)
    assert got.keys() == model.state_dict().keys()
    assert (got["frozen.weight"] == 5.0).all()
    assert got["seen"] == 7.0


def test_a_step_that_the_device_turned_down_changes_no_bit_and_is_taken_back(model):
    average = WeightAverage(model, trainable(model), decay=0.9, every=2)
    rng = np.random.default_rng(1)
    verdicts = [True, False, True, False, True]
    for accepted in verdicts:
        before = arrays(average)
        if accepted:
            move(model, rng)
        average.update(paddle.to_tensor(accepted))
        if not accepted:
            assert all((arrays(average)[name] == before[name]).all() for name in before)
    assert average.num_steps == 5
    average.settle(verdicts)
    assert (average.num_steps, average.num_updates) == (3, 0)
    average.settle([])


def test_swapping_in_gives_the_weights_back_after_any_exception(model):
    average = WeightAverage(model, trainable(model), decay=0.9, warmup=False)
    own = move(model, np.random.default_rng(2))
    expected = arrays(average)
    inside = {}

    def evaluate() -> None:
        with average.swapped_in():
            inside.update({name: p.numpy().copy() for name, p in trainable(model)})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate()
    assert inside.keys() == own.keys()
    assert all((inside[name] == expected[name]).all() for name in inside)
    after = {name: p.numpy() for name, p in trainable(model)}
    assert all((after[name] == own[name]).all() for name in own)
    assert not model.first.weight.stop_gradient


def test_it_continues_bit_for_bit(model):
    first = WeightAverage(model, trainable(model), decay=0.99)
    rng = np.random.default_rng(4)
    for _ in range(5):
        move(model, rng)
        first.update()
    second = WeightAverage(model, trainable(model), decay=0.99)
    second.load(arrays(first), first.state_dict(), "a file")
    move(model, rng)
    for average in (first, second):
        average.update()
    assert first.state_dict() == second.state_dict()
    assert all((arrays(first)[name] == arrays(second)[name]).all() for name in arrays(first))


def test_what_does_not_fit_is_refused_and_nothing_is_changed(model):
    average = WeightAverage(model, trainable(model))
    before = arrays(average)
    other = {name: value + 1.0 for name, value in before.items()}
    other["last.bias"] = np.zeros(3, np.float32)
    del other["first.weight"]
    with pytest.raises(CheckpointError, match=r"first.weight: missing, here \[3, 4\]") as error:
        average.load(other, {"updates": 1, "steps": 1}, "x/ema.pdparams")
    assert "last.bias: [3], here [2]" in str(error.value)
    assert all((arrays(average)[name] == before[name]).all() for name in before)


@pytest.mark.parametrize(("start", "epochs"), [(0, [1, 2, 3]), (2, [3]), (None, [])])
def test_the_epochs_in_which_it_is_evaluated(model, start, epochs):
    average = WeightAverage(model, trainable(model), eval_start_epoch=start)
    assert [epoch for epoch in (1, 2, 3) if average.is_evaluated(epoch)] == epochs

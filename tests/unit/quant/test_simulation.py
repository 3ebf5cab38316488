"""What rounds inside a model, and that the model itself is left alone."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from passl.models import create_model
from passl.quant.rounding import FP16, TF32
from passl.quant.simulation import Simulation

SMALL = {
    "img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 3, "class_num": 5,
}


@pytest.fixture
def model():
    model = create_model("VisionTransformer", seed=1, **SMALL)
    rng = np.random.default_rng(0)
    for parameter in model.parameters():  # zeros round to zeros
        value = rng.normal(size=parameter.shape) * 0.3 + (len(parameter.shape) == 1)
        parameter.set_value(value.astype("float32"))
    model.eval()
    return model


@pytest.fixture
def images():
    return paddle.to_tensor(np.random.default_rng(2).normal(size=(3, 3, 16, 16)).astype("float32"))


def by_hand(model, x, r, outputs, sums):
    """The transformer written out: ``r`` rounds inputs and weights, the others their results."""

    def linear(layer, x):
        return outputs(F.linear(r(x), r(layer.weight), layer.bias))

    def norm(layer, x):
        width = [layer.weight.shape[0]]
        return outputs(F.layer_norm(r(x), width, r(layer.weight), layer.bias, layer._epsilon))

    proj = model.patch_embed.proj
    x = outputs(F.conv2d(r(x), r(proj.weight), proj.bias, stride=8)).flatten(2).transpose([0, 2, 1])
    token = model.cls_token.expand([x.shape[0], -1, -1])
    x = sums(paddle.concat([token, x], axis=1) + model.pos_embed)
    for block in model.blocks:
        attn = block.attn
        y = linear(attn.qkv, norm(block.norm1, x))
        q, k, v = y.reshape([-1, 5, 3, 3, 4]).transpose([2, 0, 3, 1, 4]).unbind(0)
        y = paddle.matmul(attn.probabilities(q, k), v).transpose([0, 2, 1, 3]).reshape([-1, 5, 12])
        x = sums(x + linear(attn.proj, y))
        y = F.gelu(linear(block.mlp.fc1, norm(block.norm2, x)))
        x = sums(x + linear(block.mlp.fc2, y))
    return linear(model.head, norm(model.norm, x)[:, 0])


def same(x):
    return x


@pytest.mark.parametrize(
    ("name", "rounder", "rounds_results"),
    [("FP16_32", FP16.round, False), ("FP16_16", FP16.round, True), ("TF32", TF32.round, False)],
)
def test_a_format_rounds_where_its_table_says(model, images, name, rounder, rounds_results):
    plain = model(images).numpy()
    results = rounder if rounds_results else same
    with paddle.no_grad():
        wanted = by_hand(model, images, rounder, results, results).numpy()
        simulation = Simulation(model, name)
        found = model(images).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    assert np.abs(found - plain).max() > 1e-5
    with simulation.off():
        np.testing.assert_array_equal(model(images).numpy(), plain)
    simulation.remove()
    np.testing.assert_array_equal(model(images).numpy(), plain)


def test_the_weights_are_left_as_they_are(model, images):
    before = {name: value.numpy() for name, value in model.state_dict().items()}
    Simulation(model, "FP16_32")
    model(images)
    after = model.state_dict()
    assert after.keys() == before.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name].numpy(), value, err_msg=name)


def test_training_rounds_only_if_asked_and_gradients_reach_the_weights(model, images):
    model.train()
    plain = model(images).numpy()
    once = Simulation(model, "FP16_32")
    np.testing.assert_array_equal(model(images).numpy(), plain)
    once.remove()
    Simulation(model, "FP16_32", in_training=True)
    logits = model(images)
    assert np.abs(logits.numpy() - plain).max() > 1e-6
    (logits**2).sum().backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert missing == []


def test_gradients_are_those_of_the_rounded_model(model, images):
    """Straight through: the gradient at the rounded weights, taken for that of the weights."""
    model.train()
    linear = model.head
    weight = linear.weight.numpy()
    Simulation(model, "FP16_32", in_training=True)
    seen = []
    handle = linear.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    logits = model(images)
    handle.remove()
    logits.sum().backward()
    x = seen[0].numpy()
    np.testing.assert_allclose(
        linear.weight.grad.numpy(), np.tile(x.sum(0)[:, None], (1, 5)), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(linear.weight.numpy(), weight)


def test_sizes(model):
    count = sum(int(p.size) for p in model.parameters())
    kept = sum(int(p.size) for n, p in model.named_parameters()
               if n.endswith("bias") or n in ("cls_token", "pos_embed"))  # fmt: skip
    assert Simulation(model, "FP16_32").size() == (4 * count, 4 * kept + 2 * (count - kept))
    assert Simulation(model, "TF32").size() == (4 * count, 4 * count)
    before, after = Simulation(model, "int8").size()
    norms = 5 * 12
    channels = 12 + 2 * (36 + 12 + 48 + 12) + 5
    assert after == 4 * (kept + norms) + (count - kept - norms) + 4 * channels
    assert before == 4 * count


def test_a_model_that_follows_other_roundings_tells_how_far_they_are(model, images):
    simulation = Simulation(model, "int8")
    simulation.ranges.set(dict.fromkeys(simulation.ranges.names, (-3.0, 4.0)))
    model.eval()
    chosen: dict[str, np.ndarray] = {}

    def note(name):
        def at_input(layer, inputs):
            scale, zero = (value.item() for value in simulation.ranges.grid(name))
            chosen[name] = np.rint(inputs[0].numpy() / np.float32(scale) + zero).astype(np.uint8)

        return at_input

    handles = [
        simulation.layers[name].register_forward_pre_hook(note(name))
        for name in simulation.ranges.names
    ]
    with paddle.no_grad():
        wanted = model(images).numpy()
        for handle in handles:
            handle.remove()
        with simulation.following(chosen) as off_by:
            np.testing.assert_array_equal(model(images).numpy(), wanted)
        assert off_by.keys() == chosen.keys()
        assert 0.4 < max(off_by.values()) < 0.501
        name = simulation.ranges.names[1]
        with simulation.following({**chosen, name: chosen[name] ^ 1}) as off_by:
            model(images)
        assert off_by[name] > 0.9
        np.testing.assert_array_equal(model(images).numpy(), wanted)  # and is itself again

"""Which weights are half at O2, and that their float32 numbers are kept bit for bit."""

from __future__ import annotations

import re

import numpy as np
import paddle
import pytest
from forced_amp import cast_truncates
from paddle import nn

from passl.models import create_model
from passl.optim.adamw import AdamW
from passl.optim.groups import build_param_groups
from passl.optim.momentum import Momentum
from passl.precision.half_weights import HalfWeights, cast_weights, castable_parameters

SMALL = {"img_size": 32, "embed_dim": 32, "depth": 1, "num_heads": 2, "class_num": 3}
#: Model -> what stays float32, as regular expressions that must all be found.
KEPT = {
    "VisionTransformer": (SMALL, [r"norm\d?\.(weight|bias)$"]),
    "DistilledVisionTransformer": (SMALL, [r"norm\d?\.(weight|bias)$"]),
    "deit3": (
        {**SMALL, "init_values": 1e-6, "qk_norm": True},
        [r"norm\d?\.(weight|bias)$", r"ls[12]\.gamma$", r"attn\.[qk]_norm\."],
    ),
    "iLLaMA": (SMALL, [r"norm\d?\.weight$"]),
    "HybridVisionTransformer": (
        {**SMALL, "backbone_layers": (1,), "backbone_width": 32},
        [r"norm\d?\.(weight|bias)$", r"conv\d?\.weight$", r"downsample\."],
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_stays_float32_in_each_family(name):
    arguments, patterns = KEPT[name]
    model = create_model("VisionTransformer" if name == "deit3" else name, seed=1, **arguments)
    names = {each for each, _ in model.named_parameters()}
    cast = {each for each, _ in castable_parameters(model)}
    kept = names - cast
    for pattern in patterns:
        assert any(re.search(pattern, each) for each in kept), pattern
    assert all(any(re.search(p, each) for p in patterns) for each in kept), sorted(kept)
    for each in ("head.weight", "pos_embed", "cls_token", "patch_embed.proj.weight"):
        assert each in cast


class Net(nn.Layer):
    """A product, a norm of its own, a parameter shared with it, and one that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.ln = nn.Linear(3, 4), nn.LayerNorm(4)
        self.my_norm = MyNorm()
        self.wide = Declared()
        self.shared = self.my_norm.weight
        self.frozen = nn.Linear(4, 2)
        for parameter in self.frozen.parameters():
            parameter.stop_gradient = True
        self.register_buffer("table", paddle.ones([2]))


class MyNorm(nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.weight = self.create_parameter([4])


class Declared(nn.Layer):
    keep_fp32 = True

    def __init__(self) -> None:
        super().__init__()
        self.gamma = self.create_parameter([4])


@pytest.fixture
def net() -> Net:
    paddle.seed(3)
    net = Net()
    net.fc.weight.set_value(paddle.rand([3, 4]))
    return net


CAST = {"fc.weight", "fc.bias", "frozen.weight", "frozen.bias"}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_masters_are_the_weights_bit_for_bit_and_parameters_their_rounding(net, dtype):
    before = {name: each.numpy().copy() for name, each in net.state_dict().items()}
    objects = dict(net.named_parameters())
    half = HalfWeights(net, dtype, net.state_dict())
    for name, parameter in net.named_parameters():
        assert parameter is objects[name]
        assert str(parameter.dtype) == f"paddle.{dtype if name in CAST else 'float32'}", name
        rounded = paddle.to_tensor(before[name]).astype(parameter.dtype)
        assert bool((rounded == parameter).all()), name
    assert str(net.table.dtype) == "paddle.float32"
    assert half.masters.keys() == {"fc.weight", "fc.bias"}
    exact = half.exact(net.state_dict())
    for name, value in before.items():
        found = exact[name] if isinstance(exact[name], np.ndarray) else exact[name].numpy()
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, value, err_msg=name)
    assert isinstance(exact["frozen.weight"], np.ndarray)  # costs the device nothing


def test_frozen_weights_that_no_checkpoint_holds_are_kept_nowhere(net):
    saved = {k: v for k, v in net.state_dict().items() if not k.startswith("frozen.")}
    half = HalfWeights(net, "float16", saved)
    whole = half.exact(net.state_dict())
    assert whole["frozen.weight"] is net.frozen.weight


def test_a_model_that_only_runs_is_rounded_alike(net):
    twin = Net()
    twin.set_state_dict(net.state_dict())
    HalfWeights(net, "bfloat16", {})
    cast_weights(twin, "bfloat16")
    for (name, one), (_, other) in zip(net.named_parameters(), twin.named_parameters()):
        assert one.dtype == other.dtype, name
        assert bool((one == other).all()), name


@pytest.mark.skipif(cast_truncates(), reason="Paddle 2.6 does not round on a CPU")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", [AdamW, Momentum])
def test_updates_below_half_an_ulp_add_up_in_the_master_until_the_weight_moves(dtype, kind):
    layer = nn.Linear(1, 1, bias_attr=False)
    layer.weight.set_value(np.ones([1, 1], np.float32))
    optimizer = kind(groups=build_param_groups(layer.named_parameters()))
    half = HalfWeights(layer, dtype, layer.state_dict())
    optimizer.use_masters(half.masters)
    ulp_below_one = 2.0**-11 if dtype == "float16" else 2.0**-8
    weights = []
    for _ in range(64):
        layer.weight.grad = paddle.ones([1, 1])
        optimizer.step(ulp_below_one / 64)  # at least a 64th of an ulp a step
        weights.append(layer.weight.astype("float32").item())
    assert weights[0] == 1.0  # rounding alone would stay here for ever
    assert weights[-1] < 1.0 - ulp_below_one / 2
    master = half.masters["weight"]
    assert 1.0 - master.item() > 0.9 * ulp_below_one
    assert layer.weight.astype("float32").item() == master.astype(dtype).astype("float32").item()


def test_a_master_is_no_part_of_the_optimizer_state_which_is_that_of_float32(net):
    groups = build_param_groups(net.named_parameters())
    plain = AdamW(groups=groups).state_dict()
    optimizer = AdamW(groups=groups)
    optimizer.use_masters(HalfWeights(net, "float16", {}).masters)
    state = optimizer.state_dict()
    assert state.keys() == plain.keys()
    assert all(value.dtype == plain[key].dtype for key, value in state.items())
    names = dict(optimizer.named_weights)
    assert {str(each.dtype) for each in names.values()} == {"paddle.float32"}


def test_a_frozen_llama_block_keeps_the_precision_it_is_stored_in():
    block = {"llama_dim": 16, "llama_num_heads": 2, "llama_hidden_dim": 24}
    model = create_model("ViT_LLaMA", seed=1, **SMALL, **block, llama_dtype="bfloat16")
    before = {name: str(each.dtype) for name, each in model.named_parameters()}
    half = HalfWeights(model, "float16", model.state_dict())
    for name, each in model.named_parameters():
        if name.startswith("llama.layers") and "norm" not in name:
            assert before[name] == str(each.dtype) == "paddle.bfloat16"
        elif "norm" in name:
            assert str(each.dtype) == "paddle.float32", name
        else:
            assert str(each.dtype) == "paddle.float16", name
    assert not [name for name in half.masters if name.startswith("llama.")]

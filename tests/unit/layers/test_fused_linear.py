"""The fused linear layer is called with the right arguments, checked first, and never in between.

There is no GPU here: the operator is replaced by a plain re-expression of its documentation.
"""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from passl.layers import fused, linear
from passl.layers.linear import Linear
from passl.models import create_model

SIZES = {
    "img_size": 16, "patch_size": 8, "in_chans": 3, "class_num": 5, "embed_dim": 16,
    "depth": 2, "num_heads": 2, "mlp_ratio": 2.0, "qkv_bias": True, "init_scheme": "timm",
}


def re_expressed(x, weight, bias=None, transpose_weight=False, name=None):
    """``x weight + bias``, the product and the sum alone."""
    assert not transpose_weight
    return paddle.matmul(x, weight) + bias


@pytest.fixture
def calls(monkeypatch):
    """The operator exists, works, and float32 on the CPU counts as half precision on a GPU."""
    seen = []

    def operator(x, weight, bias=None, **options):
        seen.append((list(x.shape), list(weight.shape), list(bias.shape)))
        return re_expressed(x, weight, bias, **options)

    monkeypatch.setattr(linear, "fused_linear_works", lambda: True)
    monkeypatch.setattr(fused, "on_gpu_in_half", lambda x: True)
    monkeypatch.setattr(paddle.incubate.nn.functional, "fused_linear", operator)
    return seen


def _outcome(model, images):
    logits = model(images)
    (logits * paddle.cos(logits)).sum().backward()
    return {
        "logits": logits.numpy(),
        **{name: param.grad.numpy() for name, param in model.named_parameters()},
    }


def test_every_linear_layer_of_the_blocks_is_fused_and_computes_the_same(calls):
    images = paddle.to_tensor(np.random.default_rng(0).standard_normal((3, 3, 16, 16), "float32"))
    models = []
    for wanted in (True, False):
        paddle.seed(0)
        models.append(create_model("VisionTransformer", fused_linear=wanted, **SIZES))
    models[0].set_state_dict(models[1].state_dict())
    found = _outcome(models[0], images)
    block = [
        ([3, 5, 16], [16, 48], [48]), ([3, 5, 16], [16, 16], [16]),
        ([3, 5, 16], [16, 32], [32]), ([3, 5, 32], [32, 16], [16]),
    ]
    assert calls == block * 2
    wanted = _outcome(models[1], images)
    assert len(calls) == 8  # not without the key
    assert found.keys() == wanted.keys()  # the parameters have the same names
    for name, value in wanted.items():
        np.testing.assert_allclose(
            found[name], value, rtol=0, atol=2e-6 * max(1.0, np.abs(value).max()), err_msg=name
        )


def test_plain_layers_where_the_operator_does_not_fit(calls):
    x = paddle.ones([2, 8])
    x.stop_gradient = False
    frozen = Linear(8, 8, fused=True)
    frozen.weight.stop_gradient = True
    for layer in (frozen, Linear(8, 8, bias=False, fused=True), Linear(8, 10, fused=True)):
        layer(x)
    layer = Linear(8, 8, fused=True)
    layer(x.detach())  # no gradient for the input is wanted
    assert calls == []
    with paddle.no_grad():
        layer(x)
    layer(x)
    assert len(calls) == 2


def test_only_half_precision_on_a_gpu_is_taken():
    layer = Linear(8, 8)
    x = paddle.ones([2, 8])
    assert not fused.takes_fused_linear(x, layer.weight, layer.bias)
    assert not fused.on_gpu_in_half(x.astype("float16"))


def test_a_build_without_cuda_does_not_ask_and_does_not_warn(recwarn):
    if paddle.is_compiled_with_cuda():
        pytest.skip("this Paddle has CUDA")
    assert not Linear(8, 8, fused=True).fused
    assert not [warning for warning in recwarn if "fused" in str(warning.message)]


def _in_float32(operator):
    """Of an operator for half precision: a CPU multiplies no float16."""
    return lambda x, weight, bias: operator(
        *(tensor.astype("float32") for tensor in (x, weight, bias))
    ).astype(x.dtype)


def test_the_probe_accepts_the_formula_and_names_what_is_wrong():
    def blind_to_the_bias(x, weight, bias):
        return re_expressed(x, weight, bias.detach()) + 0 * bias

    assert fused.probe(_in_float32(re_expressed)) is None
    assert "its value" in str(fused.probe(_in_float32(lambda x, w, b: x @ w + 2 * b)))
    assert "gradient of the bias" in str(fused.probe(_in_float32(blind_to_the_bias)))


def test_an_operator_that_fails_its_check_is_replaced_with_a_warning(monkeypatch):
    assert not fused.fused_linear_works()  # on a CPU, which says nothing of a GPU
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device, "get_device", lambda: "gpu:0")
    monkeypatch.setattr(
        paddle.incubate.nn.functional, "fused_linear", _in_float32(lambda x, w, b: x @ w + 2 * b)
    )
    monkeypatch.setattr("passl.trial._FOUND", {})
    with pytest.warns(UserWarning, match="its value is wrong; the plain one"):
        assert not fused.fused_linear_works()

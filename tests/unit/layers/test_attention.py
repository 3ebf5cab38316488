"""Self-attention against a computation in plain numpy."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from passl.layers.attention import Attention
from passl.layers.errors import ModelArgumentError


def _filled(layer: paddle.nn.Layer) -> paddle.nn.Layer:
    rng = np.random.default_rng(0)
    for parameter in layer.parameters():
        parameter.set_value(rng.standard_normal(tuple(parameter.shape)).astype("float32") * 0.3)
    return layer


def _numpy_attention(layer: Attention, x: np.ndarray, scale: float) -> np.ndarray:
    channels, heads = x.shape[2], layer.num_heads
    size = channels // heads
    qkv = x.astype("float64") @ layer.qkv.weight.numpy() + layer.qkv.bias.numpy()
    mixed = np.empty_like(x, dtype="float64")
    for head in range(heads):
        q, k, v = (
            qkv[:, :, part * channels + head * size : part * channels + (head + 1) * size]
            for part in range(3)
        )
        scores = np.exp(q @ k.transpose(0, 2, 1) * scale)
        probs = scores / scores.sum(-1, keepdims=True)
        mixed[:, :, head * size : (head + 1) * size] = probs @ v
    return mixed @ layer.proj.weight.numpy() + layer.proj.bias.numpy()


@pytest.mark.parametrize(("qk_scale", "scale"), [(None, 6**-0.5), (0.11, 0.11)])
def test_equals_the_formula(qk_scale: float | None, scale: float):
    layer = _filled(Attention(24, 4, qk_scale=qk_scale))
    x = np.random.default_rng(1).standard_normal((2, 5, 24)).astype("float32")
    found = layer(paddle.to_tensor(x)).numpy()
    np.testing.assert_allclose(found, _numpy_attention(layer, x, scale), rtol=1e-4, atol=1e-5)


def test_probabilities_are_rows_that_sum_to_one():
    layer = Attention(24, 4)
    q, k = paddle.randn([2, 4, 5, 6]), paddle.randn([2, 4, 5, 6])
    probs = layer.probabilities(q, k)
    assert probs.shape == [2, 4, 5, 5]
    np.testing.assert_allclose(probs.sum(-1).numpy(), 1.0, rtol=1e-6)


def test_large_scores_do_not_overflow():
    layer = Attention(24, 4)
    q = paddle.full([1, 4, 3, 6], 1e4)
    assert np.isfinite(layer.probabilities(q, q).numpy()).all()


def test_fused_branch_computes_the_same(monkeypatch: pytest.MonkeyPatch):
    """The branch for GPUs, forced on the CPU, where Paddle 3 falls back to plain maths."""
    layer = _filled(Attention(24, 4)).astype("float32")
    layer.eval()
    x = paddle.randn([2, 5, 24])
    plain = layer(x).numpy()
    calls = []
    kernel = F.scaled_dot_product_attention

    def counted(*args, **kwargs):
        calls.append(kwargs)
        return kernel(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    monkeypatch.setattr(layer, "_fused", lambda qkv: True)
    np.testing.assert_allclose(layer(x).numpy(), plain, rtol=1e-5, atol=1e-6)
    assert calls == [{"dropout_p": 0.0, "training": False}]


def test_fused_kernel_is_not_given_dropout_in_evaluation(monkeypatch: pytest.MonkeyPatch):
    """Paddle 2.6 drops whenever the rate is above zero, in evaluation too."""
    layer = _filled(Attention(24, 4, attn_drop_rate=0.5))
    layer.eval()
    rates = []

    def kernel(query, key, value, dropout_p, training):
        rates.append(dropout_p)
        return query

    monkeypatch.setattr(F, "scaled_dot_product_attention", kernel)
    monkeypatch.setattr(layer, "_fused", lambda qkv: True)
    layer(paddle.randn([2, 5, 24]))
    layer.train()
    layer(paddle.randn([2, 5, 24]))
    assert rates == [0.0, 0.5]


def test_fused_kernel_is_left_alone_on_a_cpu():
    layer = Attention(24, 4)
    assert not layer._fused(paddle.zeros([1, 2, 3, 4, 6], "float16"))


def test_attention_dropout_acts_in_training_alone():
    layer = _filled(Attention(24, 4, attn_drop_rate=0.5))
    x = paddle.randn([2, 5, 24])
    layer.eval()
    calm = layer(x).numpy()
    assert np.array_equal(calm, layer(x).numpy())
    layer.train()
    assert not np.allclose(calm, layer(x).numpy())


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ModelArgumentError) as error:
        Attention(48, 5)
    assert str(error.value) == (
        "embed_dim 48 cannot be shared by 5 heads; num_heads must divide it, for example 4 or 6"
    )
    assert isinstance(error.value, ValueError)

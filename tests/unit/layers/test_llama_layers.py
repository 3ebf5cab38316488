"""The layers of the LLaMA families against their definitions written out in NumPy."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from passl.layers.errors import ModelArgumentError
from passl.layers.frozen_linear import FrozenLinear
from passl.layers.llama_block import LlamaBlocks, LlamaSizes
from passl.layers.rms_norm import RMSNorm
from passl.layers.rotary import Rotary
from passl.layers.soft_mask import (
    attention_by_kernels,
    fused_kernel,
    soft_mask,
    soft_masked_attention,
)
from passl.layers.swiglu import gated_width, swiglu


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_rms_norm_divides_by_the_root_mean_square(rng):
    x = rng.standard_normal((2, 3, 8)).astype(np.float32)
    norm = RMSNorm(8, epsilon=1e-2)
    weight = rng.random(8).astype(np.float32)
    norm.weight.set_value(weight)
    expected = x / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + 1e-2) * weight
    np.testing.assert_allclose(norm(paddle.to_tensor(x)).numpy(), expected, rtol=1e-5)


def test_rms_norm_of_half_precision_is_computed_wide(rng):
    """In bfloat16 throughout the root alone would be off by up to 0.4%."""
    x = paddle.to_tensor(rng.standard_normal((4, 64)).astype(np.float32)).astype("bfloat16")
    found = RMSNorm(64)(x)
    assert found.dtype == paddle.bfloat16
    exact = RMSNorm(64)(x.astype("float32")).astype("bfloat16")
    assert np.array_equal(found.astype("float32").numpy(), exact.astype("float32").numpy())


@pytest.mark.parametrize(
    ("width", "hidden"), [(192, 512), (384, 1024), (768, 2048), (1024, 2816), (4096, 11008)]
)
def test_gated_width_is_llamas(width: int, hidden: int):
    assert gated_width(4 * width, 256) == hidden


def test_a_gated_width_is_never_nothing():
    assert gated_width(1, 8) == 8


# -- rotary positions ------------------------------------------------------------------------------


def test_rotary_frequencies():
    rotary = Rotary(64, 2)
    angles = np.arctan2(rotary.sin.numpy()[1], rotary.cos.numpy()[1])
    np.testing.assert_allclose(angles[:3], [1.0, 0.749894209, 0.562341325], rtol=1e-6)
    assert angles[-1] == pytest.approx(1.333521432e-4, rel=1e-6)


def test_rotary_turns_neighbouring_channels_by_position(rng):
    x = rng.standard_normal((2, 3, 5, 8)).astype(np.float32)
    pairs = (x[..., 0::2] + 1j * x[..., 1::2]).astype(np.complex128)
    angles = np.outer(np.arange(5), 10000.0 ** (-np.arange(0, 8, 2) / 8))
    turned = pairs * np.exp(1j * angles)
    expected = np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)
    np.testing.assert_allclose(Rotary(8, 5)(paddle.to_tensor(x)).numpy(), expected, atol=1e-6)


def test_rotary_scores_depend_on_distance_only(rng):
    q, k = (paddle.to_tensor(rng.standard_normal((1, 8)).astype(np.float32)) for _ in range(2))
    rotary = Rotary(8, 12)
    turned_q, turned_k = rotary(q.expand([12, 8])), rotary(k.expand([12, 8]))
    scores = paddle.matmul(turned_q, turned_k, transpose_y=True).numpy()
    for distance in range(-11, 12):
        along = np.diagonal(scores, distance)
        np.testing.assert_allclose(along, along[0], atol=1e-5)


def test_rotary_keeps_the_dtype_and_has_no_state():
    rotary = Rotary(8, 5)
    assert rotary(paddle.ones([5, 8], "float16")).dtype == paddle.float16
    assert rotary.state_dict() == {}


# -- the soft mask ---------------------------------------------------------------------------------


def test_soft_mask_of_four_tokens():
    mask = soft_mask(4, 0.3)
    np.testing.assert_allclose(mask[0], [1, 0.3, 0.3, 0.3])
    np.testing.assert_allclose(mask[2], [1, 1, 1, 0.3])
    assert mask.dtype == np.float32
    assert (np.diagonal(mask) == 1).all()


def _softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


@pytest.mark.parametrize("rate", [0.0, 0.37])
def test_soft_masked_attention_masks_after_the_softmax(rng, rate: float):
    scores = rng.standard_normal((2, 3, 5, 5))
    v = rng.standard_normal((2, 3, 5, 4))
    mask = soft_mask(5, rate)
    expected = (_softmax(scores) * mask) @ v
    tensors = [paddle.to_tensor(array.astype(np.float32)) for array in (scores, v, mask)]
    np.testing.assert_allclose(soft_masked_attention(*tensors).numpy(), expected, atol=1e-6)


def test_gradient_of_soft_masked_attention_is_the_plain_ones(rng):
    arrays = [
        rng.standard_normal(shape).astype(np.float32) for shape in ((2, 3, 5, 5), (2, 3, 5, 4))
    ]
    mask = paddle.to_tensor(soft_mask(5, 0.2))
    weight = paddle.to_tensor(rng.standard_normal((2, 3, 5, 4)).astype(np.float32))

    def gradients(attention) -> list[np.ndarray]:
        scores, v = (paddle.to_tensor(array, stop_gradient=False) for array in arrays)
        (attention(scores, v) * weight).sum().backward()
        return [scores.grad.numpy(), v.grad.numpy()]

    found = gradients(lambda scores, v: soft_masked_attention(scores, v, mask))
    plain = gradients(
        lambda scores, v: paddle.matmul(paddle.nn.functional.softmax(scores) * mask, v)
    )
    for ours, theirs in zip(found, plain):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def _plain_kernel(q, k, v, is_causal):
    """What a fused kernel computes, with the logarithm of the softmax's denominator."""
    q, k, v = (tensor.numpy().transpose(0, 2, 1, 3).astype(np.float64) for tensor in (q, k, v))
    scores = q @ k.transpose(0, 1, 3, 2) * q.shape[-1] ** -0.5
    if is_causal:
        scores = np.where(np.tril(np.ones(scores.shape[-2:], bool)), scores, -np.inf)
    lse = np.log(np.exp(scores).sum(-1))
    out = (np.exp(scores - lse[..., None]) @ v).transpose(0, 2, 1, 3)
    return paddle.to_tensor(out.astype(np.float32)), paddle.to_tensor(lse.astype(np.float32))


@pytest.mark.parametrize("rate", [0.0, 0.37, 1.0])
def test_attention_by_kernels_is_the_plain_form(rng, rate: float):
    q, k, v = (
        paddle.to_tensor(3 * rng.standard_normal((2, 7, 3, 4)).astype(np.float32))
        for _ in range(3)
    )
    found = attention_by_kernels(q, k, v, rate, _plain_kernel)
    scores = paddle.matmul(
        q.transpose([0, 2, 1, 3]) * 0.5, k.transpose([0, 2, 1, 3]), transpose_y=True
    )
    mask = paddle.to_tensor(soft_mask(7, rate))
    plain = soft_masked_attention(scores, v.transpose([0, 2, 1, 3]), mask)
    np.testing.assert_allclose(found.numpy(), plain.transpose([0, 2, 1, 3]), rtol=1e-5, atol=2e-6)


def test_there_is_no_fused_kernel_on_a_cpu():
    with paddle.no_grad():
        assert fused_kernel(paddle.ones([1, 4, 2, 8], "float16")) is None


# -- the frozen block ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_weight_computes_wide_and_passes_the_gradient(rng, dtype: str):
    layer = FrozenLinear(6, 4, dtype=dtype)
    weight = rng.standard_normal((6, 4)).astype(np.float32)
    layer.weight.set_value(paddle.to_tensor(weight).astype(dtype))
    stored = layer.weight.astype("float32").numpy()
    x = paddle.to_tensor(rng.standard_normal((2, 3, 6)).astype(np.float32), stop_gradient=False)
    y = layer(x)
    y.backward(paddle.ones_like(y))
    assert y.dtype == paddle.float32
    np.testing.assert_allclose(y.numpy(), x.numpy() @ stored, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(x.grad.numpy()[0, 0], stored.sum(1), rtol=1e-5, atol=1e-6)
    assert layer.weight.stop_gradient
    assert layer.weight.grad is None


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (4, 1), (6, 3)])
def test_block_with_shared_keys_and_values(rng, heads: int, kv_heads: int):
    sizes = LlamaSizes(24, heads, kv_heads, 40, 1e-5)
    blocks = LlamaBlocks(sizes, 1)
    arrays = {}
    for name, parameter in blocks.named_parameters():
        arrays[name] = rng.standard_normal(parameter.shape).astype(np.float32) * 0.2
        parameter.set_value(arrays[name])
    x = rng.standard_normal((2, 5, 24)).astype(np.float32)
    expected = _llama(x.astype(np.float64), arrays, sizes)
    np.testing.assert_allclose(blocks(paddle.to_tensor(x)).numpy(), expected, rtol=2e-5, atol=2e-6)
    assert all(parameter.stop_gradient for parameter in blocks.parameters())


def _llama(x: np.ndarray, arrays: dict[str, np.ndarray], sizes: LlamaSizes) -> np.ndarray:
    def norm(values, name):
        return values / np.sqrt((values**2).mean(-1, keepdims=True) + sizes.epsilon) * arrays[name]

    def product(values, name):
        return values @ arrays[f"layers.0.{name}.weight"]

    y = norm(x, "layers.0.attention_norm.weight")
    q, k, v = (product(y, f"attention.{name}") for name in ("wq", "wk", "wv"))
    dim, outs = sizes.head_dim, []
    for head in range(sizes.num_heads):
        shared = head * sizes.num_kv_heads // sizes.num_heads
        keys = slice(shared * dim, (shared + 1) * dim)
        scores = q[..., head * dim : (head + 1) * dim] @ k[..., keys].transpose(0, 2, 1)
        outs.append(_softmax(scores / dim**0.5) @ v[..., keys])
    x = x + product(np.concatenate(outs, -1), "attention.wo")
    y = norm(x, "layers.0.ffn_norm.weight")
    gate = product(y, "feed_forward.w1")
    hidden = gate / (1 + np.exp(-gate)) * product(y, "feed_forward.w3")
    return norm(x + product(hidden, "feed_forward.w2"), "norm.weight")


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ModelArgumentError, match="24 channels cannot have 5 heads over 5"):
        LlamaSizes(24, 5, 5, 40, 1e-5)


def test_a_gate_that_is_shut_has_a_gradient_of_zero():
    """Paddle's own is infinite at -88 and NaN at -100."""
    gate = paddle.to_tensor([-1000.0, -100.0, -88.0, -20.0, 0.0, 3.0], stop_gradient=False)
    value = paddle.full([6], 2.0)
    result = swiglu(gate, value)
    result.sum().backward()
    x = gate.numpy().astype("float64")
    share = 1 / (1 + np.exp(-np.maximum(x, -80)))
    np.testing.assert_allclose(result.numpy(), 2 * x * share, rtol=1e-6, atol=1e-30)
    expected = 2 * share * (1 + x * (1 - share))
    np.testing.assert_allclose(gate.grad.numpy(), expected, rtol=1e-6, atol=1e-30)

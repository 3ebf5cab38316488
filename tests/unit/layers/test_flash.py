"""The fused attention is asked for only where Paddle has a kernel: elsewhere the call raises."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from passl.layers import flash
from passl.layers.attention import Attention
from passl.layers.illama_attention import ILlamaAttention
from passl.layers.llama_block import LlamaBlocks, LlamaSizes
from passl.layers.soft_mask import fused_kernel


@pytest.fixture
def gpu(monkeypatch):
    """Describes the GPU and the Paddle that the layers believe they run on."""

    def describe(capability=(8, 0), cuda="11.8", version="2.6.2", rocm=False) -> None:
        flash._largest_head.cache_clear()
        monkeypatch.setattr(
            paddle.device.cuda, "get_device_capability", lambda device=None: capability
        )
        monkeypatch.setattr(paddle.version, "cuda", lambda: cuda)
        monkeypatch.setattr(paddle, "__version__", version)
        monkeypatch.setattr(paddle, "is_compiled_with_rocm", lambda: rocm)

    yield describe
    flash._largest_head.cache_clear()


def on_gpu(dtype=paddle.float16, shape=(1, 4, 2, 64)) -> SimpleNamespace:
    place = SimpleNamespace(is_gpu_place=lambda: True, gpu_device_id=lambda: 0)
    return SimpleNamespace(dtype=dtype, place=place, shape=list(shape))


@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (8, 9), (9, 0)])
@pytest.mark.parametrize("dtype", [paddle.float16, paddle.bfloat16])
def test_ampere_and_newer_have_it(gpu, capability, dtype):
    gpu(capability)
    assert flash.has_flash_kernel(on_gpu(dtype), 64)


@pytest.mark.parametrize(
    "machine",
    [
        {"capability": (7, 0)},  # V100
        {"capability": (7, 5)},  # T4
        {"cuda": "11.2"},
        {"cuda": "False"},
        {"rocm": True},
        {"capability": (12, 0)},  # newer than Paddle 2.6
        {"capability": (13, 0), "cuda": "13.0", "version": "3.3.1"},
    ],
    ids=str,
)
def test_other_machines_compute_in_float16_without_it(gpu, machine):
    gpu(**machine)
    assert not flash.has_flash_kernel(on_gpu(), 64)
    assert not Attention(128, 2)._fused(on_gpu())
    with paddle.no_grad():
        assert fused_kernel(on_gpu()) is None
    q = on_gpu()
    assert ILlamaAttention(128, 2, mode="causal")._fused(q, q, q, None, 0.0) is None


def test_the_layers_ask_for_it_where_it_is(gpu):
    gpu()
    assert Attention(128, 2)._fused(on_gpu())
    with paddle.no_grad():
        found = fused_kernel(on_gpu())
    assert (found is not None) is hasattr(paddle.nn.functional, "flashmask_attention")


def test_a_newer_paddle_knows_newer_gpus(gpu):
    gpu((12, 0), "12.9", "3.3.1")
    assert flash.has_flash_kernel(on_gpu(), 64)


@pytest.mark.parametrize("head_dim", [12, 63, 264])
def test_heads_that_the_kernel_refuses_are_written_out(gpu, head_dim):
    gpu()
    assert not flash.has_flash_kernel(on_gpu(), head_dim)
    assert not Attention(2 * head_dim, 2)._fused(on_gpu())


@pytest.mark.parametrize(
    ("capability", "fits"), [((8, 0), True), ((9, 0), True), ((8, 6), False), ((8, 9), False)]
)
def test_heads_whose_backward_pass_is_for_some_gpus_only(gpu, capability, fits):
    gpu(capability)
    assert flash.has_flash_kernel(on_gpu(), 192)
    assert flash.has_flash_kernel(on_gpu(), 200) is fits
    assert flash.has_flash_kernel(on_gpu(), 256) is fits


def test_float32_and_cpus_are_written_out(gpu):
    gpu()
    assert not flash.has_flash_kernel(on_gpu(paddle.float32), 64)
    assert not flash.has_flash_kernel(paddle.zeros([1, 4, 2, 64], "float16"), 64)


def test_a_llama_block_asks_with_the_size_of_its_heads(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "passl.layers.llama_block.has_flash_kernel", lambda x, size: bool(asked.append(size))
    )
    block = LlamaBlocks(LlamaSizes(32, 4, 2, 8, 1e-6), 1)
    block(paddle.ones([1, 3, 32]))
    assert asked == [8]


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_heads_that_share_keys_mean_the_same_in_the_fused_kernel(monkeypatch, kv_heads):
    block = LlamaBlocks(LlamaSizes(32, 4, kv_heads, 8, 1e-6), 1)
    for index, parameter in enumerate(block.parameters()):
        draw = np.random.default_rng(index)
        parameter.set_value(draw.normal(size=parameter.shape).astype("float32"))
    x = paddle.to_tensor(np.random.default_rng(9).normal(size=[2, 3, 32]).astype("float32"))
    written_out = block(x).numpy()
    monkeypatch.setattr("passl.layers.llama_block.has_flash_kernel", lambda *_: True)
    np.testing.assert_allclose(block(x).numpy(), written_out, rtol=1e-4, atol=1e-5)


def test_float16_keys_are_repeated_by_what_has_a_float16_kernel():
    attention = LlamaBlocks(LlamaSizes(32, 4, 2, 8, 1e-6), 1).layers[0].attention
    keys = paddle.arange(12, dtype="float32").reshape([1, 3, 2, 2])
    found = attention._repeated(keys.astype("float16"))
    assert found.dtype == paddle.float16
    np.testing.assert_array_equal(found.numpy(), np.repeat(keys.numpy(), 2, axis=2))

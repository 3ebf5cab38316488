"""With half activations every softmax sees float32, and what it gives is half again."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from passl.layers.attention import Attention
from passl.layers.illama_attention import ILlamaAttention, attention_mask
from passl.layers.llama_block import LlamaBlocks, LlamaSizes
from passl.losses.combined import CombinedLoss
from passl.losses.cross_entropy import CELoss, ViTCELoss

TOKENS, HEADS, WIDTH = 5, 2, 4


@pytest.fixture
def softmax_inputs(monkeypatch) -> list[str]:
    """The dtypes that F.softmax is called with; products of half numbers, as a GPU has them."""
    seen: list[str] = []
    product, scaled, softmax = paddle.matmul, paddle.Tensor.__mul__, F.softmax

    def half_matmul(x, y, **keywords):
        found = product(x.astype("float32"), y.astype("float32"), **keywords)
        return found.astype(x.dtype)

    def half_scale(x, factor):
        return scaled(x.astype("float32"), factor).astype(x.dtype)

    def watched(x, **keywords):
        seen.append(str(x.dtype))
        return softmax(x, **keywords)

    monkeypatch.setattr(paddle, "matmul", half_matmul)
    monkeypatch.setattr(paddle.Tensor, "__mul__", half_scale)
    monkeypatch.setattr(F, "softmax", watched)
    return seen


def half(*shape: int) -> paddle.Tensor:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return paddle.to_tensor(values).astype("bfloat16")


def qkv() -> list[paddle.Tensor]:
    return [half(1, HEADS, TOKENS, WIDTH) for _ in range(3)]


def test_of_the_vision_transformer(softmax_inputs):
    q, k, _ = qkv()
    found = Attention(HEADS * WIDTH, HEADS).probabilities(q, k)
    assert softmax_inputs == ["paddle.float32"]
    assert found.dtype == paddle.bfloat16


@pytest.mark.parametrize("mode", ["released", "causal", "modified", "bidirectional"])
def test_of_illama(softmax_inputs, mode):
    layer = ILlamaAttention(HEADS * WIDTH, HEADS, mode=mode)
    mask = attention_mask(mode, TOKENS, 0.25)
    with paddle.no_grad():
        found = layer._plain(*qkv(), None if mask is None else paddle.to_tensor(mask))
    assert softmax_inputs == ["paddle.float32"]
    assert found.dtype == paddle.bfloat16


def test_of_llama(softmax_inputs):
    sizes = LlamaSizes(HEADS * WIDTH, HEADS, HEADS, 8, 1e-6)
    layer = LlamaBlocks(sizes, 1).layers[0].attention
    found = layer._plain(*(each.transpose([0, 2, 1, 3]) for each in qkv()))
    assert softmax_inputs == ["paddle.float32"]
    assert found.dtype == paddle.bfloat16


@pytest.mark.parametrize("loss", [CELoss(), CELoss(epsilon=0.1), ViTCELoss()])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_loss_of_half_logits_is_that_of_their_float32_numbers(loss, dtype):
    values = np.random.default_rng(1).normal(scale=20.0, size=[4, 3]).astype(np.float32)
    logits, target = paddle.to_tensor(values).astype(dtype), paddle.to_tensor([0, 1, 2, 0])
    combined = CombinedLoss([("loss", 1.0, loss)])
    found = combined(logits, target)["loss"]
    assert found.dtype == paddle.float32
    assert found.item() == combined(logits.astype("float32"), target)["loss"].item()

"""The attention probabilities of every layer and head, without a word of it in the models.

    with attention_of(model) as attention, paddle.no_grad():
        logits = model(images)
    attention["blocks.0.attn"]      # float32 [b, h, n, n]

A hook on each attention layer computes the probabilities again from the layer's own input: the
forward pass is what it always is (fused kernels included), and nothing is kept while nobody looks.
They are those before the dropout of attention.  Under iLLaMA's mask as released they are the
probabilities as masked, whose rows sum to less than 1 for all tokens but the last.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from passl.errors import ConfigError
from passl.layers.attention import Attention
from passl.layers.illama_attention import ILlamaAttention
from passl.layers.llama_block import LlamaBlocks

__all__ = ["attention_layers", "attention_of"]

#: The positional inputs of a layer's forward pass -> probabilities [b, h, n, n].
Probabilities = Callable[..., paddle.Tensor]


@contextmanager
def attention_of(model: nn.Layer) -> Iterator[dict[str, np.ndarray]]:
    """Collect the attention of each forward pass inside the block; the last one stays.

    Args:
        model: put it in evaluation mode first, or its blocks see what dropout left over.

    Yields:
        layer's name -> float32 [b, h, n, n], query (row) and key (column), in the order of the
        layers; empty before the first forward pass.

    Raises:
        ConfigError: the model has no attention layer that is known here.
    """
    found: dict[str, np.ndarray] = {}
    hooks = [
        layer.register_forward_post_hook(_collector(found, name, probabilities))
        for name, (layer, probabilities) in attention_layers(model).items()
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def attention_layers(model: nn.Layer) -> dict[str, tuple[nn.Layer, Probabilities]]:
    """Each attention layer of the model by its name, with what computes its probabilities.

    A layer of your own takes part by a method ``attention_probabilities``, which gets what
    ``forward`` gets and returns [b, h, n, n].

    Raises:
        ConfigError: there is none.
    """
    found: dict[str, tuple[nn.Layer, Probabilities]] = {}
    for name, layer in model.named_sublayers(include_self=True):
        own = getattr(layer, "attention_probabilities", None)
        if own is not None:
            found[name] = layer, own
        elif isinstance(layer, Attention):
            found[name] = layer, _of(layer, _plain)
        elif isinstance(layer, ILlamaAttention):
            found[name] = layer, _of(layer, _illama)
        elif isinstance(layer, LlamaBlocks):
            for number, block in enumerate(layer.layers):
                inner = block.attention
                found[f"{name}.layers.{number}.attention"] = inner, _of(inner, _llama)
    if not found:
        raise ConfigError(
            f"{type(model).__name__} has no attention layer that is known: neither one of "
            "passl.layers nor one with a method attention_probabilities(*inputs) -> [b, h, n, n]"
        )
    return found


def _collector(
    found: dict[str, np.ndarray], name: str, probabilities: Probabilities
) -> Callable[[nn.Layer, Any, Any], None]:
    def collect(layer: nn.Layer, inputs: Any, output: Any) -> None:  # noqa: ARG001
        with paddle.no_grad():
            found[name] = probabilities(*inputs).astype("float32").numpy()

    return collect


def _of(layer: Any, function: Callable[..., paddle.Tensor]) -> Probabilities:
    return lambda *inputs: function(layer, *inputs)


def _plain(layer: Attention, x_bnc: paddle.Tensor) -> paddle.Tensor:
    q_bhnd, k_bhnd = _queries_and_keys(layer, x_bnc)
    if layer.qk_norm:
        q_bhnd, k_bhnd = layer.q_norm(q_bhnd), layer.k_norm(k_bhnd)
    return layer.probabilities(q_bhnd, k_bhnd)


def _illama(
    layer: ILlamaAttention, x_bnc: paddle.Tensor, rotary: Any, mask_nn: Any, *_: Any
) -> paddle.Tensor:
    q_bhnd, k_bhnd = (rotary(part) for part in _queries_and_keys(layer, x_bnc))
    scores_bhnn = _scores(q_bhnd, k_bhnd, layer.scale)
    if mask_nn is None:
        return F.softmax(scores_bhnn, axis=-1)
    if layer.mode == "released":
        return F.softmax(scores_bhnn, axis=-1) * mask_nn
    return F.softmax(scores_bhnn + mask_nn, axis=-1)


def _llama(layer: Any, x_bnc: paddle.Tensor) -> paddle.Tensor:
    tokens, heads = x_bnc.shape[1], layer.num_kv_heads
    # the queries of a group share a head of keys: [b, kv, g, n, d] and [b, kv, 1, n, d]
    q = layer.wq(x_bnc).reshape([-1, tokens, heads, layer.group, layer.head_dim])
    k = layer.wk(x_bnc).reshape([-1, tokens, heads, 1, layer.head_dim])
    q, k = (part.transpose([0, 2, 3, 1, 4]) for part in (q, k))
    probs = F.softmax(_scores(q, k, layer.head_dim**-0.5), axis=-1)
    return probs.reshape([-1, heads * layer.group, tokens, tokens])


def _queries_and_keys(layer: Any, x_bnc: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Of a layer with a joint projection: [b, h, n, d] each."""
    tokens = x_bnc.shape[1]
    qkv = layer.qkv(x_bnc).reshape([-1, tokens, 3, layer.num_heads, layer.head_dim])
    q_bhnd, k_bhnd, _ = qkv.transpose([2, 0, 3, 1, 4]).unbind(0)
    return q_bhnd, k_bhnd


def _scores(q: paddle.Tensor, k: paddle.Tensor, scale: float) -> paddle.Tensor:
    return paddle.matmul(q * scale, k, transpose_y=True).astype("float32")

"""LLaMA's decoder block as a frozen encoder of visual tokens: no rotary positions and no mask.

    h = x + attention(attention_norm(x));   out = h + w2(silu(w1 y) * w3 y),   y = ffn_norm(h)

Every linear layer is without bias.  The names of parameters are those of Meta's checkpoints.

Source: Touvron et al. 2023, "LLaMA", section 2.2; Pang et al. 2024, "Frozen Transformers in
Language Models Are Effective Visual Encoder Layers", for what is left out; Ainslie et al. 2023,
"GQA", for keys and values shared by groups of heads (Llama 2 and later).
"""

from __future__ import annotations

from dataclasses import dataclass

import paddle
import paddle.nn.functional as F
from paddle import nn

from passl.layers.errors import ModelArgumentError
from passl.layers.flash import has_flash_kernel
from passl.layers.frozen_linear import FrozenLinear
from passl.layers.rms_norm import RMSNorm
from passl.layers.swiglu import swiglu

__all__ = ["LLAMA_7B", "LlamaBlocks", "LlamaSizes"]


@dataclass(frozen=True)
class LlamaSizes:
    """What a checkpoint says of its blocks.

    Attributes:
        dim: channels.
        num_heads: heads of the queries.
        num_kv_heads: heads of keys and values; divides ``num_heads``.
        hidden_dim: hidden width of the gated perceptron.
        epsilon: of the normalisations.

    Raises:
        ModelArgumentError: heads that do not divide.
    """

    dim: int
    num_heads: int
    num_kv_heads: int
    hidden_dim: int
    epsilon: float

    def __post_init__(self) -> None:
        if self.dim % self.num_heads or self.num_heads % self.num_kv_heads:
            raise ModelArgumentError(
                f"a LLaMA block of {self.dim} channels cannot have {self.num_heads} heads over "
                f"{self.num_kv_heads} heads of keys and values; the heads must divide the "
                "channels, and those of keys and values the heads"
            )

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return self.dim // self.num_heads


#: LLaMA v1, 7B.  Llama 2's differs by epsilon 1e-5.
LLAMA_7B = LlamaSizes(dim=4096, num_heads=32, num_kv_heads=32, hidden_dim=11008, epsilon=1e-6)


class LlamaBlocks(nn.Layer):
    """``x [b, n, dim] -> [b, n, dim]``: some blocks in a row, then a last normalisation.

    Parameters ``layers.<i>...`` and ``norm.weight``; the linear weights start at zero, the
    normalisations at one.

    Args:
        sizes: of each block.
        num_blocks: how many.
        dtype: how the linear weights are stored; normalisations are always fp32.
        trainable: False freezes everything.
    """

    def __init__(
        self, sizes: LlamaSizes, num_blocks: int, *, dtype: str = "float32", trainable: bool = False
    ) -> None:
        super().__init__()
        self.sizes = sizes
        self.layers = nn.LayerList(
            [_LlamaBlock(sizes, dtype, trainable) for _ in range(num_blocks)]
        )
        self.norm = RMSNorm(sizes.dim, epsilon=sizes.epsilon, trainable=trainable)

    def forward(self, x_bnc: paddle.Tensor) -> paddle.Tensor:
        """Same shape and dtype as ``x``."""
        for layer in self.layers:
            x_bnc = layer(x_bnc)
        return self.norm(x_bnc)

    def is_empty(self) -> bool:
        """The weights were never put in place: a block of zeros."""
        return not bool((self.layers[0].attention.wq.weight != 0).any())


class _LlamaBlock(nn.Layer):
    def __init__(self, sizes: LlamaSizes, dtype: str, trainable: bool) -> None:
        super().__init__()
        self.attention = _Attention(sizes, dtype, trainable)
        self.feed_forward = _FeedForward(sizes, dtype, trainable)
        self.attention_norm = RMSNorm(sizes.dim, epsilon=sizes.epsilon, trainable=trainable)
        self.ffn_norm = RMSNorm(sizes.dim, epsilon=sizes.epsilon, trainable=trainable)

    def forward(self, x_bnc: paddle.Tensor) -> paddle.Tensor:
        x_bnc = x_bnc + self.attention(self.attention_norm(x_bnc)).astype(x_bnc.dtype)
        return x_bnc + self.feed_forward(self.ffn_norm(x_bnc)).astype(x_bnc.dtype)


class _FeedForward(nn.Layer):
    def __init__(self, sizes: LlamaSizes, dtype: str, trainable: bool) -> None:
        super().__init__()
        self.w1 = FrozenLinear(sizes.dim, sizes.hidden_dim, dtype=dtype, trainable=trainable)
        self.w2 = FrozenLinear(sizes.hidden_dim, sizes.dim, dtype=dtype, trainable=trainable)
        self.w3 = FrozenLinear(sizes.dim, sizes.hidden_dim, dtype=dtype, trainable=trainable)

    def forward(self, x_bnc: paddle.Tensor) -> paddle.Tensor:
        return self.w2(swiglu(self.w1(x_bnc), self.w3(x_bnc)))


class _Attention(nn.Layer):
    """Every token sees every other; ``g`` query heads share a head of keys and values."""

    def __init__(self, sizes: LlamaSizes, dtype: str, trainable: bool) -> None:
        super().__init__()
        self.num_kv_heads, self.head_dim = sizes.num_kv_heads, sizes.head_dim
        self.group = sizes.num_heads // sizes.num_kv_heads
        shared = sizes.num_kv_heads * sizes.head_dim
        self.wq = FrozenLinear(sizes.dim, sizes.dim, dtype=dtype, trainable=trainable)
        self.wk = FrozenLinear(sizes.dim, shared, dtype=dtype, trainable=trainable)
        self.wv = FrozenLinear(sizes.dim, shared, dtype=dtype, trainable=trainable)
        self.wo = FrozenLinear(sizes.dim, sizes.dim, dtype=dtype, trainable=trainable)

    def forward(self, x_bnc: paddle.Tensor) -> paddle.Tensor:
        tokens = x_bnc.shape[1]
        q, k, v = self.wq(x_bnc), self.wk(x_bnc), self.wv(x_bnc)
        q_bnhd = q.reshape([-1, tokens, self.num_kv_heads * self.group, self.head_dim])
        k_bnhd = k.reshape([-1, tokens, self.num_kv_heads, self.head_dim])
        v_bnhd = v.reshape([-1, tokens, self.num_kv_heads, self.head_dim])
        if has_flash_kernel(q, self.head_dim):
            k_bnhd, v_bnhd = self._repeated(k_bnhd), self._repeated(v_bnhd)
            mixed = F.scaled_dot_product_attention(q_bnhd, k_bnhd, v_bnhd, training=self.training)
        else:
            mixed = self._plain(q_bnhd, k_bnhd, v_bnhd)
        return self.wo(mixed.reshape([-1, tokens, q.shape[2]]))

    def _repeated(self, x_bnhd: paddle.Tensor) -> paddle.Tensor:
        """Keys or values once for each query head; ``repeat_interleave`` has no float16 kernel."""
        if self.group == 1:
            return x_bnhd
        batch, tokens, heads, dim = x_bnhd.shape
        one = x_bnhd.reshape([batch, tokens, heads, 1, dim])
        wide = one.expand([batch, tokens, heads, self.group, dim])
        return wide.reshape([batch, tokens, heads * self.group, dim])

    def _plain(
        self, q_bnhd: paddle.Tensor, k_bnhd: paddle.Tensor, v_bnhd: paddle.Tensor
    ) -> paddle.Tensor:
        """Written out, softmax in fp32; the queries of a group are rows of one matrix."""
        tokens, heads, dim = q_bnhd.shape[1], self.num_kv_heads, self.head_dim
        rows = [-1, heads, self.group * tokens, dim]
        q = (q_bnhd.transpose([0, 2, 1, 3]) * dim**-0.5).reshape(rows)  # [b, kv, g n, d]
        k, v = k_bnhd.transpose([0, 2, 1, 3]), v_bnhd.transpose([0, 2, 1, 3])  # [b, kv, n, d]
        scores = paddle.matmul(q, k, transpose_y=True).astype("float32")
        mixed = paddle.matmul(F.softmax(scores, axis=-1).astype(v.dtype), v)
        return mixed.reshape([-1, heads * self.group, tokens, dim]).transpose([0, 2, 1, 3])

"""A vision transformer as a Paddle tutorial would write it, for the benchmarks to compare with.

`paddle.nn` layers, their default initialisers, slices of a joint query-key-value tensor, and
`paddle.optimizer.AdamW`; nothing chosen for speed.
"""

from __future__ import annotations

import paddle
from paddle import nn


class Attention(nn.Layer):
    """Multi-head self-attention, [B, N, D] to the same."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Attend."""
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape([batch, tokens, 3, self.num_heads, self.head_dim])
        qkv = qkv.transpose([2, 0, 3, 1, 4])
        query, key, value = qkv[0], qkv[1], qkv[2]
        weights = nn.functional.softmax(
            paddle.matmul(query, key, transpose_y=True) * self.head_dim**-0.5, axis=-1
        )
        x = paddle.matmul(weights, value).transpose([0, 2, 1, 3]).reshape([batch, tokens, dim])
        return self.proj(x)


class Block(nn.Layer):
    """One encoder layer, normalisation first."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, epsilon=1e-6), nn.LayerNorm(dim, epsilon=1e-6)
        self.attn = Attention(dim, num_heads)
        hidden = int(dim * mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Add attention, then the MLP."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class StockViT(nn.Layer):
    """Images [B, in_chans, img_size, img_size] float32 to logits [B, class_num]."""

    def __init__(
        self,
        img_size: int,
        patch_size: int,
        in_chans: int,
        class_num: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
    ) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2D(in_chans, embed_dim, patch_size, stride=patch_size)
        tokens = (img_size // patch_size) ** 2 + 1
        self.cls_token = self.create_parameter([1, 1, embed_dim])
        self.pos_embed = self.create_parameter([1, tokens, embed_dim])
        self.blocks = nn.LayerList([Block(embed_dim, num_heads, mlp_ratio) for _ in range(depth)])
        self.norm = nn.LayerNorm(embed_dim, epsilon=1e-6)
        self.head = nn.Linear(embed_dim, class_num)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Classify."""
        x = self.patch_embed(x).flatten(2).transpose([0, 2, 1])
        x = paddle.concat([self.cls_token.expand([x.shape[0], -1, -1]), x], axis=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])

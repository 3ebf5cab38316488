"""iLLaMA and ViT-LLaMA as one would write them in torch, for the benchmark to compare with.

Linear layers, products and softmax written out; nothing chosen for speed, nothing slow on purpose:
mask and rotation are made once.  Names of parameters are those of the released checkpoints.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class RMSNorm(nn.Module):
    """Over the last axis."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise."""
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class Attention(nn.Module):
    """Multi-head attention; rotated queries and keys and a mask behind the softmax, if given."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, rotation: Any = None, mask: Any = None) -> torch.Tensor:
        """[b, n, c] to the same."""
        b, n, c = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        if mask is not None:
            weights = weights * mask
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, c))


def rotate(x: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """Neighbouring channels as complex numbers."""
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2).contiguous())
    return torch.view_as_real(pairs * rotation).flatten(-2)


class SwiGLU(nn.Module):
    """``fc2(silu(fc1 x) fc3 x)``."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden, bias=False)
        self.fc2 = nn.Linear(hidden, dim, bias=False)
        self.fc3 = nn.Linear(dim, hidden, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[b, n, c] to the same."""
        return self.fc2(F.silu(self.fc1(x)) * self.fc3(x))


class Mlp(nn.Module):
    """Two layers with a GELU between them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[b, n, c] to the same."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Normalisation first, in both halves."""

    def __init__(self, dim: int, num_heads: int, hidden: int = 0) -> None:
        super().__init__()
        self.norm1 = RMSNorm(dim) if hidden else nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads)
        self.norm2 = RMSNorm(dim) if hidden else nn.LayerNorm(dim, eps=1e-6)
        self.mlp = SwiGLU(dim, hidden) if hidden else Mlp(dim)

    def forward(self, x: torch.Tensor, *arguments: Any) -> torch.Tensor:
        """[b, n, c] to the same."""
        x = x + self.attn(self.norm1(x), *arguments)
        return x + self.mlp(self.norm2(x))


class LlamaAttention(nn.Module):
    """LLaMA's, without rotation and mask."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.wq, self.wk, self.wv, self.wo = (nn.Linear(dim, dim, bias=False) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[b, n, c] to the same."""
        b, n, c = x.shape
        q, k, v = (
            layer(x).view(b, n, self.num_heads, -1).transpose(1, 2)
            for layer in (self.wq, self.wk, self.wv)
        )
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        return self.wo((weights @ v).transpose(1, 2).reshape(b, n, c))


class LlamaBlock(nn.Module):
    """A block of LLaMA."""

    def __init__(self, dim: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.attention = LlamaAttention(dim, num_heads)
        self.feed_forward = nn.ModuleDict({
            "w1": nn.Linear(dim, hidden, bias=False),
            "w2": nn.Linear(hidden, dim, bias=False),
            "w3": nn.Linear(dim, hidden, bias=False),
        })
        self.attention_norm, self.ffn_norm = RMSNorm(dim), RMSNorm(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[b, n, c] to the same."""
        x = x + self.attention(self.attention_norm(x))
        y, ffn = self.ffn_norm(x), self.feed_forward
        return x + ffn["w2"](F.silu(ffn["w1"](y)) * ffn["w3"](y))


class _Vision(nn.Module):
    """Patches to tokens, and a head."""

    def __init__(self, size: int, patch: int, dim: int, classes: int) -> None:
        super().__init__()
        tokens = (size // patch) ** 2 + 1
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.randn(1, tokens, dim) * 0.02)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, patch, patch)})
        self.head = nn.Linear(dim, classes)

    def patches(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens of the patches, and the class token."""
        x = self.patch_embed["proj"](x).flatten(2).transpose(1, 2)
        return x, self.cls_token.expand(len(x), -1, -1)


class PlainILlama(_Vision):
    """iLLaMA with its mask as released, soft-mask rate 0."""

    def __init__(
        self, dim: int, num_heads: int, hidden: int, depth: int = 12, size: int = 224,
        patch: int = 16, classes: int = 1000,
    ) -> None:
        super().__init__(size, patch, dim, classes)
        self.blocks = nn.ModuleList([Block(dim, num_heads, hidden) for _ in range(depth)])
        self.norm = RMSNorm(dim)
        tokens, width = self.pos_embed.shape[1], dim // num_heads
        rates = 10000.0 ** (-torch.arange(0, width, 2) / width)
        angles = torch.outer(torch.arange(tokens), rates)
        self.register_buffer("rotation", torch.polar(torch.ones_like(angles), angles), False)
        self.register_buffer("mask", torch.ones(tokens, tokens).tril(), False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = torch.cat(self.patches(x), 1) + self.pos_embed
        for block in self.blocks:
            x = block(x, self.rotation, self.mask)
        return self.head(self.norm(x)[:, -1])


class PlainViTLlama(_Vision):
    """ViT-LLaMA with a frozen block."""

    def __init__(
        self, dim: int, num_heads: int, llama: tuple[int, int, int] = (4096, 32, 11008),
        depth: int = 12, size: int = 224, patch: int = 16, classes: int = 1000,
    ) -> None:
        super().__init__(size, patch, dim, classes)
        self.blocks = nn.ModuleList([Block(dim, num_heads) for _ in range(depth)])
        self.llama = nn.ModuleDict({
            "layers": nn.ModuleList([LlamaBlock(*llama)]), "norm": RMSNorm(llama[0])
        })
        self.llama.requires_grad_(False)
        self.llama_dim_mapper1 = nn.Linear(dim, llama[0], bias=False)
        self.llama_dim_mapper2 = nn.Linear(llama[0], dim, bias=False)
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        patches, cls = self.patches(x)
        x = torch.cat([cls, patches], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        x = self.llama["norm"](self.llama["layers"][0](self.llama_dim_mapper1(x)))
        return self.head(self.norm(self.llama_dim_mapper2(x))[:, 0])

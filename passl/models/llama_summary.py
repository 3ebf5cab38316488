"""Parameters and multiply-adds of iLLaMA and ViT-LLaMA, from their arguments alone.

Attention is counted in full, masked or not, as the published figures are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["illama_cost", "vit_llama_cost"]


def illama_cost(args: Mapping[str, Any]) -> tuple[int, int]:
    """(parameters, multiply-adds), part by part as in ``ILlama.__init__``."""
    dim, depth, classes = args["embed_dim"], args["depth"], args["class_num"]
    patches, embedding = _embedding(args)
    tokens = patches + 1
    multiple = args["multiple_of"]
    hidden = multiple * -(-int(2 * int(dim * args["mlp_ratio"]) / 3) // multiple)

    linears = 4 * dim * dim + 3 * dim * hidden
    biases = (3 * dim if args["qkv_bias"] else 0) + dim
    parameters = embedding + depth * (linears + biases + 2 * dim) + dim + _head(dim, classes)
    macs = depth * (tokens * linears + 2 * tokens * tokens * dim)
    return parameters, macs + _patch_macs(args, patches) + dim * classes


def vit_llama_cost(args: Mapping[str, Any]) -> tuple[int, int]:
    """(trained parameters, multiply-adds), part by part as in ``ViTLlama.__init__``.

    Sizes of the LLaMA block that the arguments leave open are those of LLaMA 7B.
    """
    dim, depth, classes = args["embed_dim"], args["depth"], args["class_num"]
    patches, embedding = _embedding(args)
    tokens = patches + 1
    hidden = int(dim * args["mlp_ratio"])
    wide = args["llama_dim"] or 4096
    heads = args["llama_num_heads"] or 32
    shared = wide // heads * (args["llama_num_kv_heads"] or heads)  # keys, or values, of a token
    llama_hidden = args["llama_hidden_dim"] or 11008

    linears = 4 * dim * dim + 2 * dim * hidden
    biases = (3 * dim if args["qkv_bias"] else 0) + dim + hidden + dim
    block = linears + biases + 2 * 2 * dim
    frozen_linears = 2 * wide * wide + 2 * wide * shared + 3 * wide * llama_hidden
    frozen = args["llama_layers"] * (frozen_linears + 2 * wide) + wide
    mappers = 2 * dim * wide
    parameters = embedding + depth * block + mappers + 2 * dim + _head(dim, classes)
    parameters += frozen if args["llama_trainable"] else 0
    macs = depth * (tokens * linears + 2 * tokens * tokens * dim) + tokens * mappers
    macs += args["llama_layers"] * (tokens * frozen_linears + 2 * tokens * tokens * wide)
    return parameters, macs + _patch_macs(args, patches) + dim * classes


def _embedding(args: Mapping[str, Any]) -> tuple[int, int]:
    """Number of patches; parameters of projection, class token and positions."""
    size, patch, dim = args["img_size"], args["patch_size"], args["embed_dim"]
    height, width = (size, size) if isinstance(size, int) else size
    patches = (height // patch) * (width // patch)
    return patches, args["in_chans"] * patch * patch * dim + dim + dim + (patches + 1) * dim


def _patch_macs(args: Mapping[str, Any], patches: int) -> int:
    return int(patches * args["in_chans"] * args["patch_size"] ** 2 * args["embed_dim"])


def _head(dim: int, classes: int) -> int:
    return (dim + 1) * classes

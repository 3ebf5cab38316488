"""Attention rollout: how much each patch reaches the token that is classified, over all layers.

    A_k = mean over heads of the probabilities of layer k, plus the identity, each row over its sum
    J_0 = A_0,   J_k = A_k J_(k-1)

The identity stands for the way around the attention.  Rows of every ``J`` sum to 1, whatever the
rows of the probabilities sum to (less than 1 under iLLaMA's mask as released).

Source: Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers"; the picture of
Dosovitskiy et al. 2021, figure 6, and of ViT-pytorch's notebook.  Fusing heads by ``max`` or
``min`` and leaving out the lowest entries are later custom (vit-explain).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Literal, Optional

import numpy as np

from passl.errors import ConfigError
from passl.layers.patch_embed import PatchEmbed

__all__ = ["HeadFusion", "TokenLayout", "fuse_heads", "rollout", "token_layout"]

HeadFusion = Literal["mean", "max", "min"]


def fuse_heads(attention_hnn: np.ndarray, how: HeadFusion = "mean") -> np.ndarray:
    """One matrix [n, n] float64 of a layer's [h, n, n]."""
    wide = np.asarray(attention_hnn, np.float64)
    reduce: dict[str, Callable[..., np.ndarray]] = {"mean": np.mean, "max": np.max, "min": np.min}
    return reduce[how](wide, axis=0)


def rollout(
    layers: Sequence[np.ndarray], *, head_fusion: HeadFusion = "mean", discard_ratio: float = 0.0
) -> np.ndarray:
    """``J`` after each layer, float64 [layers, n, n]: of each token (row), the part of each input.

    Args:
        layers: probabilities [h, n, n] of each layer, the first one first; h may differ.
        head_fusion: how the heads of a layer become one.
        discard_ratio: the part of a layer's entries, the lowest ones, taken as 0; 0 to below 1.

    Raises:
        ValueError: no layer, or a ratio out of range.
    """
    if not layers or not 0.0 <= discard_ratio < 1.0:
        raise ValueError(f"rollout of {len(layers)} layers with discard_ratio={discard_ratio}")
    flows: list[np.ndarray] = []
    for attention_hnn in layers:
        fused_nn = _without_lowest(fuse_heads(attention_hnn, head_fusion), discard_ratio)
        step_nn = fused_nn + np.eye(len(fused_nn))
        step_nn /= step_nn.sum(axis=1, keepdims=True)
        flows.append(step_nn @ flows[-1] if flows else step_nn)
    return np.stack(flows)


@dataclass(frozen=True)
class TokenLayout:
    """Where the patches are among the tokens, and which token is classified.

    Attributes:
        grid: rows and columns of patches.
        prefix, suffix: tokens before and after the patches.
        query: the token that is classified; None where the average of the patches is.
        coverage: parts of the image's height and width that the patches fill.
    """

    grid: tuple[int, int]
    prefix: int
    suffix: int
    query: Optional[int]
    coverage: tuple[float, float] = (1.0, 1.0)

    def maps(self, tokens: np.ndarray) -> np.ndarray:
        """What the classified token sees of each patch: [..., n, n] -> [..., rows, columns].

        Raises:
            ValueError: there are not as many tokens as the layout says.
        """
        rows, columns = self.grid
        wanted = self.prefix + rows * columns + self.suffix
        if tokens.shape[-2:] != (wanted, wanted):
            raise ValueError(
                f"attention of {list(tokens.shape[-2:])} tokens, and {self.prefix} + "
                f"{rows} x {columns} + {self.suffix} = {wanted} are known of"
            )
        patches = slice(self.prefix, wanted - self.suffix)
        if self.query is None:
            seen = tokens[..., patches, patches].mean(axis=-2)
        else:
            seen = tokens[..., self.query, patches]
        return seen.reshape([*seen.shape[:-1], rows, columns])


def token_layout(model: Any) -> TokenLayout:
    """The layout of a model's tokens.

    It is read from ``grid_size``, ``num_prefix_tokens`` (default 0), ``num_suffix_tokens`` (0) and
    ``global_pool`` (``token``), as this package's models have them.  The classified token is the
    first one (of DeiT's two: the class token), or the last one of a model with tokens after the
    patches only.

    Raises:
        ConfigError: the model does not say its grid.
    """
    grid = getattr(model, "grid_size", None)
    if grid is None:
        raise ConfigError(
            f"{type(model).__name__} has no grid_size, so nobody knows where in the image its "
            "tokens are; give it the attribute grid_size = (rows, columns), and num_prefix_tokens "
            "if there are tokens before the patches"
        )
    prefix = int(getattr(model, "num_prefix_tokens", 0))
    suffix = int(getattr(model, "num_suffix_tokens", 0))
    rows, columns = (int(side) for side in grid)
    query: Optional[int] = None
    if getattr(model, "global_pool", "token") == "token" and prefix + suffix:
        query = 0 if prefix else prefix + rows * columns + suffix - 1
    return TokenLayout((rows, columns), prefix, suffix, query, _coverage(model, rows, columns))


def _without_lowest(matrix_nn: np.ndarray, ratio: float) -> np.ndarray:
    """``matrix`` with its lowest entries 0; of equal ones the first go first."""
    count = int(matrix_nn.size * ratio)
    if count == 0:
        return matrix_nn
    flat = matrix_nn.ravel().copy()
    flat[np.argsort(flat, kind="stable")[:count]] = 0.0
    return flat.reshape(matrix_nn.shape)


def _coverage(model: Any, rows: int, columns: int) -> tuple[float, float]:
    embed = getattr(model, "patch_embed", None)
    if not isinstance(embed, PatchEmbed):
        return 1.0, 1.0
    height, width = embed.img_size
    return rows * embed.patch_size / height, columns * embed.patch_size / width

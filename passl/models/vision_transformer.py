"""The vision transformer, and the named sizes of PASSL, Google and timm.

Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words: Transformers for Image Recognition
at Scale" (tiny to huge); Zhai et al. 2022, "Scaling Vision Transformers" (g, G).

A name in PASSL's spelling (``ViT_base_patch16_224``) has PASSL's settings; timm's spelling
(``vit_base_patch16_224``) and Google's (``ViT-B_16``) have theirs.  Where all agree they are
aliases.  ``docs/models.md`` lists the differences.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Optional, Union

import paddle
from paddle import nn

from passl.layers.block import Block
from passl.layers.drop_path import drop_path_rates
from passl.layers.errors import ModelArgumentError
from passl.layers.linear import Linear
from passl.layers.patch_embed import PatchEmbed
from passl.layers.pre_logits import PreLogits
from passl.layers.recompute import run_blocks
from passl.models.vit_init import initialize
from passl.registry import MODELS, Range

__all__ = ["VisionTransformer"]


@MODELS.register()
class VisionTransformer(nn.Layer):
    """Images [b, in_chans, height, width] float32 -> logits [b, class_num].

    Patches become tokens, a class token goes first, positions are added, ``depth`` blocks mix
    them, and the class token, normalised, is classified.

    Args:
        img_size: side of the images in pixels, or [height, width]; a multiple of ``patch_size``.
        patch_size: side of a patch in pixels.
        in_chans: channels of the images.
        class_num: number of classes; 0 for a model that returns features [b, num_features].
        embed_dim: channels of a token; a multiple of ``num_heads``.
        depth: number of blocks.
        num_heads: heads of each attention.
        mlp_ratio: hidden width of the perceptrons as a multiple of ``embed_dim``, rounded down.
        qkv_bias: add a bias to query, key and value.
        qk_scale: factor of the attention scores; null is 1 / sqrt(embed_dim / num_heads).
        drop_rate: dropout after the positions are added, after each attention and twice in each
            perceptron.
        attn_drop_rate: dropout of the attention probabilities.
        drop_path_rate: part of the samples that skip a branch of the last block in training;
            grows linearly from 0 at the first block.
        epsilon: added to the variance in every normalisation.
        representation_size: width of a layer (with tanh) between class token and classifier; null
            for none.
        head_bias_init: initial bias of the classifier; null is the scheme's own (``passl``: -10
            behind a representation layer, else 0; the others: 0).
        init_scheme: how the weights start: as in PASSL, Google's vision_transformer or timm.
        ignore_border: accept an ``img_size`` that is no multiple of ``patch_size``; the last rows
            and columns, which fill no patch, go unseen.

    Raises:
        ModelArgumentError: sizes that do not divide, or a number out of range.

    Attributes:
        num_features: width of what the classifier sees.
        grid_size: rows and columns of patches.
        num_prefix_tokens: tokens before the patches (1, the class token).
        recompute_every: see :func:`passl.layers.recompute.run_blocks`.
    """

    num_prefix_tokens = 1
    recompute_every = 0

    def __init__(
        self,
        img_size: Union[
            Annotated[int, Range(min=1)],
            tuple[Annotated[int, Range(min=1)], Annotated[int, Range(min=1)]],
        ] = 224,
        patch_size: Annotated[int, Range(min=1)] = 16,
        in_chans: Annotated[int, Range(min=1)] = 3,
        class_num: Annotated[int, Range(min=0)] = 1000,
        embed_dim: Annotated[int, Range(min=1)] = 768,
        depth: Annotated[int, Range(min=1)] = 12,
        num_heads: Annotated[int, Range(min=1)] = 12,
        mlp_ratio: Annotated[float, Range(min=0.0, min_open=True)] = 4.0,
        qkv_bias: bool = False,
        qk_scale: Optional[float] = None,
        drop_rate: Annotated[float, Range(min=0.0, max=1.0, max_open=True)] = 0.0,
        attn_drop_rate: Annotated[float, Range(min=0.0, max=1.0, max_open=True)] = 0.0,
        drop_path_rate: Annotated[float, Range(min=0.0, max=1.0, max_open=True)] = 0.0,
        epsilon: Annotated[float, Range(min=0.0, min_open=True)] = 1e-5,
        representation_size: Optional[Annotated[int, Range(min=1)]] = None,
        head_bias_init: Optional[float] = None,
        init_scheme: Literal["passl", "google", "timm"] = "passl",
        ignore_border: bool = False,
    ) -> None:
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.class_num, self.embed_dim, self.depth = class_num, embed_dim, depth
        self.num_features = representation_size or embed_dim
        hidden_dim = _hidden_dim(embed_dim, mlp_ratio)
        zero = nn.initializer.Constant(0.0)

        self.patch_embed = PatchEmbed(
            (height, width), patch_size, in_chans, embed_dim, ignore_border=ignore_border
        )
        self.grid_size = self.patch_embed.grid_size
        tokens = self.num_prefix_tokens + self.patch_embed.num_patches
        self.cls_token = self.create_parameter([1, 1, embed_dim], default_initializer=zero)
        self.pos_embed = self.create_parameter([1, tokens, embed_dim], default_initializer=zero)
        self.pos_drop = nn.Dropout(drop_rate)
        self.blocks = nn.LayerList(
            [
                Block(
                    embed_dim,
                    num_heads,
                    hidden_dim,
                    qkv_bias=qkv_bias,
                    qk_scale=qk_scale,
                    drop_rate=drop_rate,
                    attn_drop_rate=attn_drop_rate,
                    drop_path_rate=rate,
                    epsilon=epsilon,
                )
                for rate in drop_path_rates(drop_path_rate, depth)
            ]
        )
        self.norm = nn.LayerNorm(embed_dim, epsilon=epsilon)
        self.pre_logits = (
            PreLogits(embed_dim, representation_size) if representation_size else nn.Identity()
        )
        self.head = Linear(self.num_features, class_num) if class_num else nn.Identity()
        initialize(self, init_scheme, head_bias_init)

    def forward(self, x_bchw: paddle.Tensor) -> paddle.Tensor:
        """Logits [b, class_num], or features [b, num_features] if there are no classes.

        Raises:
            InputShapeError: the images are not of the size the model was built for.
        """
        return self.forward_head(self.forward_features(x_bchw))

    def forward_features(self, x_bchw: paddle.Tensor) -> paddle.Tensor:
        """All tokens after the last normalisation, class token first [b, n, embed_dim]."""
        x_bnc = self.patch_embed(x_bchw)
        cls_b1c = self.cls_token.expand([x_bnc.shape[0], -1, -1])
        x_bnc = paddle.concat([cls_b1c.astype(x_bnc.dtype), x_bnc], axis=1) + self.pos_embed
        x_bnc = self.pos_drop(x_bnc)
        x_bnc = run_blocks(self.blocks, x_bnc, recompute_every=self.recompute_every)
        return self.norm(x_bnc)

    def forward_head(self, tokens_bnc: paddle.Tensor) -> paddle.Tensor:
        """Classify the class token of what :meth:`forward_features` returns."""
        return self.head(self.pre_logits(tokens_bnc[:, 0]))

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay should leave alone whatever the recipe's rules."""
        return {"cls_token", "pos_embed"}

    def layer_ids(self) -> dict[str, int]:
        """Depth of each parameter, 0 to depth + 1, for a learning rate that decays with depth.

        The embeddings are 0, block ``i`` is ``i + 1``, the last normalisation belongs to the last
        block, the classifier and its representation layer are ``depth + 1``.  Source: timm.
        """
        return {name: self._layer_id(name) for name, _ in self.named_parameters()}

    def _layer_id(self, name: str) -> int:
        part, _, rest = name.partition(".")
        if part == "blocks":
            return int(rest.partition(".")[0]) + 1
        if part == "norm":
            return self.depth
        return self.depth + 1 if part in ("pre_logits", "head") else 0


def _hidden_dim(embed_dim: int, mlp_ratio: float) -> int:
    hidden_dim = int(embed_dim * mlp_ratio)
    if hidden_dim < 1:
        raise ModelArgumentError(
            f"mlp_ratio {mlp_ratio} of embed_dim {embed_dim} leaves the perceptron no hidden "
            f"channel; mlp_ratio must be at least {1 / embed_dim:g}"
        )
    return hidden_dim


_TINY: dict[str, Any] = {
    "embed_dim": 192,
    "depth": 12,
    "num_heads": 3,
    "qkv_bias": True,
    "epsilon": 1e-6,
}
_SMALL: dict[str, Any] = {
    "embed_dim": 384,
    "depth": 12,
    "num_heads": 6,
    "qkv_bias": True,
    "epsilon": 1e-6,
}
_BASE: dict[str, Any] = {
    "embed_dim": 768,
    "depth": 12,
    "num_heads": 12,
    "qkv_bias": True,
    "epsilon": 1e-6,
}
_LARGE: dict[str, Any] = {
    "embed_dim": 1024,
    "depth": 24,
    "num_heads": 16,
    "qkv_bias": True,
    "epsilon": 1e-6,
}
_HUGE: dict[str, Any] = {
    "embed_dim": 1280,
    "depth": 32,
    "num_heads": 16,
    "qkv_bias": True,
    "epsilon": 1e-6,
}
# PASSL's huge differs from its other sizes in two settings, which look like an oversight; kept,
# because its checkpoints have no such biases.
_PASSL_HUGE: dict[str, Any] = {
    "embed_dim": 1280,
    "depth": 32,
    "num_heads": 16,
    "qkv_bias": False,
    "epsilon": 1e-5,
}
_GIANT: dict[str, Any] = {  # hidden 6144
    "embed_dim": 1408,
    "depth": 40,
    "num_heads": 16,
    "mlp_ratio": 4.364,
    "qkv_bias": True,
    "epsilon": 1e-6,
}
_GIGANTIC: dict[str, Any] = {  # hidden 8192
    "embed_dim": 1664,
    "depth": 48,
    "num_heads": 16,
    "mlp_ratio": 4.9231,
    "qkv_bias": True,
    "epsilon": 1e-6,
}
_6B: dict[str, Any] = {  # hidden 11495
    "embed_dim": 2320,
    "depth": 80,
    "num_heads": 16,
    "mlp_ratio": 4.955,
    "qkv_bias": True,
    "epsilon": 1e-6,
}

# PASSL's, and the sizes on which everybody agrees.
MODELS.variant(
    "ViT_tiny_patch16_224",
    VisionTransformer,
    **_TINY,
    patch_size=16,
    img_size=224,
    aliases=("vit_tiny_patch16_224", "ViT-Ti_16"),
)
MODELS.variant(
    "ViT_tiny_patch16_384",
    VisionTransformer,
    **_TINY,
    patch_size=16,
    img_size=384,
    aliases=("vit_tiny_patch16_384",),
)
MODELS.variant(
    "ViT_small_patch8_224",
    VisionTransformer,
    **_SMALL,
    patch_size=8,
    img_size=224,
    aliases=("vit_small_patch8_224",),
)
MODELS.variant(
    "ViT_small_patch16_224",
    VisionTransformer,
    **_SMALL,
    patch_size=16,
    img_size=224,
    aliases=("vit_small_patch16_224", "ViT-S_16"),
)
MODELS.variant(
    "ViT_small_patch16_384",
    VisionTransformer,
    **_SMALL,
    patch_size=16,
    img_size=384,
    aliases=("vit_small_patch16_384",),
)
MODELS.variant(
    "ViT_small_patch32_224",
    VisionTransformer,
    **_SMALL,
    patch_size=32,
    img_size=224,
    aliases=("vit_small_patch32_224", "ViT-S_32"),
)
MODELS.variant(
    "ViT_small_patch32_384",
    VisionTransformer,
    **_SMALL,
    patch_size=32,
    img_size=384,
    aliases=("vit_small_patch32_384",),
)
MODELS.variant(
    "ViT_base_patch8_224",
    VisionTransformer,
    **_BASE,
    patch_size=8,
    img_size=224,
    aliases=("vit_base_patch8_224", "ViT-B_8"),
)
MODELS.variant(
    "ViT_base_patch16_224",
    VisionTransformer,
    **_BASE,
    patch_size=16,
    img_size=224,
    representation_size=768,
)
MODELS.variant(
    "ViT_base_patch16_384",
    VisionTransformer,
    **_BASE,
    patch_size=16,
    img_size=384,
    aliases=("vit_base_patch16_384",),
)
MODELS.variant(
    "ViT_base_patch32_224",
    VisionTransformer,
    **_BASE,
    patch_size=32,
    img_size=224,
    representation_size=768,
)
MODELS.variant(
    "ViT_base_patch32_384",
    VisionTransformer,
    **_BASE,
    patch_size=32,
    img_size=384,
    aliases=("vit_base_patch32_384",),
)
MODELS.variant(
    "ViT_large_patch14_224",
    VisionTransformer,
    **_LARGE,
    patch_size=14,
    img_size=224,
    aliases=("vit_large_patch14_224",),
)
MODELS.variant(
    "ViT_large_patch16_224",
    VisionTransformer,
    **_LARGE,
    patch_size=16,
    img_size=224,
    representation_size=1024,
)
MODELS.variant(
    "ViT_large_patch16_384",
    VisionTransformer,
    **_LARGE,
    patch_size=16,
    img_size=384,
    aliases=("vit_large_patch16_384",),
)
MODELS.variant(
    "ViT_large_patch32_224",
    VisionTransformer,
    **_LARGE,
    patch_size=32,
    img_size=224,
    representation_size=1024,
)
MODELS.variant(
    "ViT_large_patch32_384",
    VisionTransformer,
    **_LARGE,
    patch_size=32,
    img_size=384,
    aliases=("vit_large_patch32_384",),
)
MODELS.variant(
    "ViT_huge_patch14_224",
    VisionTransformer,
    **_PASSL_HUGE,
    patch_size=14,
    img_size=224,
    representation_size=1280,
)
# 384 pixels are 27 patches and 6 pixels, which PASSL's convolution leaves out.
MODELS.variant(
    "ViT_huge_patch14_384",
    VisionTransformer,
    **_PASSL_HUGE,
    patch_size=14,
    img_size=384,
    ignore_border=True,
)
MODELS.variant(
    "ViT_g_patch14_224",
    VisionTransformer,
    **_GIANT,
    patch_size=14,
    img_size=224,
    representation_size=1408,
)
MODELS.variant(
    "ViT_G_patch14_224",
    VisionTransformer,
    **_GIGANTIC,
    patch_size=14,
    img_size=224,
    representation_size=1664,
)
MODELS.variant(
    "ViT_6B_patch14_224",
    VisionTransformer,
    **_6B,
    patch_size=14,
    img_size=224,
    representation_size=2320,
)

# timm's and Google's, where PASSL's model of that size has a representation layer.
MODELS.variant(
    "vit_base_patch16_224",
    VisionTransformer,
    **_BASE,
    patch_size=16,
    img_size=224,
    aliases=("ViT-B_16",),
)
MODELS.variant(
    "vit_base_patch32_224",
    VisionTransformer,
    **_BASE,
    patch_size=32,
    img_size=224,
    aliases=("ViT-B_32",),
)
MODELS.variant("vit_large_patch16_224", VisionTransformer, **_LARGE, patch_size=16, img_size=224)
MODELS.variant(
    "vit_large_patch32_224",
    VisionTransformer,
    **_LARGE,
    patch_size=32,
    img_size=224,
    aliases=("ViT-L_32",),
)
MODELS.variant("vit_huge_patch14_224", VisionTransformer, **_HUGE, patch_size=14, img_size=224)
MODELS.variant("vit_giant_patch14_224", VisionTransformer, **_GIANT, patch_size=14, img_size=224)
MODELS.variant(
    "vit_gigantic_patch14_224",
    VisionTransformer,
    **_GIGANTIC,
    patch_size=14,
    img_size=224,
)

# Google's with dropout.
MODELS.variant(
    "ViT-L_16",
    VisionTransformer,
    **_LARGE,
    patch_size=16,
    img_size=224,
    drop_rate=0.1,
)
MODELS.variant("ViT-H_14", VisionTransformer, **_HUGE, patch_size=14, img_size=224, drop_rate=0.1)

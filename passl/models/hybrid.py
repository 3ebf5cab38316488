"""Google's hybrids: a transformer whose patches are cut from a residual network's features.

Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words" (R50+ViT-B/16); Steiner et al.
2021, "How to train your ViT?" (R+Ti/16, R26+S/32, R50+L/32).

A name in PASSL's spelling and timm's have no dropout; Google's R50 names (``R50+ViT-B_16``) have
0.1, as its configs do.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Optional, Union

from passl.layers.hybrid_embed import HybridEmbed
from passl.models.vision_transformer import VisionTransformer
from passl.registry import MODELS, Range

__all__ = ["HybridVisionTransformer"]


@MODELS.register()
class HybridVisionTransformer(VisionTransformer):
    """Images [b, in_chans, height, width] float32 -> logits [b, class_num].

    A :class:`~passl.models.vision_transformer.VisionTransformer` whose patches are cut from the
    features of a :class:`~passl.layers.resnet.ResNet`.

    Args:
        img_size: side of the images in pixels, or [height, width].
        patch_size: side of a patch, in cells of the feature map.
        in_chans: channels of the images.
        class_num: number of classes; 0 for a model that returns features [b, num_features].
        backbone_layers: bottlenecks of each stage; each stage but the first halves the sides,
            which the stem has quartered. Empty for the stem alone.
        backbone_width: channels of the stem; a multiple of 32.
        hybrid_style: constants of the backbone. ``google`` standardises weights by their standard
            deviation + 1e-5 and adds 1e-6 to the variance of a group; ``timm`` by the root of the
            variance + 1e-8, and adds 1e-5.
        embed_dim: channels of a token; a multiple of ``num_heads``.
        depth: number of blocks.
        num_heads: heads of each attention.
        mlp_ratio: hidden width of the perceptrons as a multiple of ``embed_dim``, rounded down.
        qkv_bias: add a bias to query, key and value.
        drop_rate: dropout after the positions are added, after each attention and twice in each
            perceptron.
        attn_drop_rate: dropout of the attention probabilities.
        drop_path_rate: part of the samples that skip a branch of the last block in training;
            grows linearly from 0 at the first block.
        epsilon: added to the variance in every normalisation of the transformer.
        representation_size: width of a layer (with tanh) between what is pooled and the classifier;
            null for none.
        head_bias_init: initial bias of the classifier; null is the scheme's own.
        init_scheme: how the weights start: as in Google's vision_transformer, timm or PASSL.
        global_pool: what is classified: the class ``token``, or the average (``avg``) of the
            patches' tokens.
        act: activation of the perceptrons: exact GELU, or its approximation by tanh.
        fused_attn: on a GPU in half precision, let Paddle's fused kernel compute the attention.
        fused_linear: on a GPU at level O2, let Paddle's fused kernel compute the linear layers of
            the blocks: product and bias in one launch.

    Raises:
        ModelArgumentError: sizes that do not divide, or a number out of range.
    """

    def __init__(
        self,
        img_size: Union[
            Annotated[int, Range(min=1)],
            tuple[Annotated[int, Range(min=1)], Annotated[int, Range(min=1)]],
        ] = 224,
        patch_size: Annotated[int, Range(min=1)] = 1,
        in_chans: Annotated[int, Range(min=1)] = 3,
        class_num: Annotated[int, Range(min=0)] = 1000,
        backbone_layers: tuple[Annotated[int, Range(min=1)], ...] = (3, 4, 9),
        backbone_width: Annotated[int, Range(min=1)] = 64,
        hybrid_style: Literal["google", "timm"] = "google",
        embed_dim: Annotated[int, Range(min=1)] = 768,
        depth: Annotated[int, Range(min=1)] = 12,
        num_heads: Annotated[int, Range(min=1)] = 12,
        mlp_ratio: Annotated[float, Range(min=0.0, min_open=True)] = 4.0,
        qkv_bias: bool = True,
        drop_rate: Annotated[float, Range(min=0.0, max=1.0, max_open=True)] = 0.0,
        attn_drop_rate: Annotated[float, Range(min=0.0, max=1.0, max_open=True)] = 0.0,
        drop_path_rate: Annotated[float, Range(min=0.0, max=1.0, max_open=True)] = 0.0,
        epsilon: Annotated[float, Range(min=0.0, min_open=True)] = 1e-6,
        representation_size: Optional[Annotated[int, Range(min=1)]] = None,
        head_bias_init: Optional[float] = None,
        init_scheme: Literal["passl", "google", "timm"] = "google",
        global_pool: Literal["token", "avg"] = "token",
        act: Literal["gelu", "gelu_tanh", "quick_gelu"] = "gelu",
        fused_attn: bool = True,
        fused_linear: bool = False,
    ) -> None:
        super().__init__(
            img_size=img_size,
            patch_size=patch_size,
            in_chans=in_chans,
            class_num=class_num,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            drop_rate=drop_rate,
            attn_drop_rate=attn_drop_rate,
            drop_path_rate=drop_path_rate,
            epsilon=epsilon,
            representation_size=representation_size,
            head_bias_init=head_bias_init,
            init_scheme=init_scheme,
            global_pool=global_pool,
            act=act,
            fused_attn=fused_attn,
            fused_linear=fused_linear,
            patch_embed=HybridEmbed(
                (img_size, img_size) if isinstance(img_size, int) else img_size,
                patch_size,
                in_chans,
                embed_dim,
                layers=backbone_layers,
                width=backbone_width,
                style=hybrid_style,
            ),
        )


_TINY: dict[str, Any] = {"embed_dim": 192, "depth": 12, "num_heads": 3}
_SMALL: dict[str, Any] = {"embed_dim": 384, "depth": 12, "num_heads": 6}
_BASE: dict[str, Any] = {"embed_dim": 768, "depth": 12, "num_heads": 12}
_LARGE: dict[str, Any] = {"embed_dim": 1024, "depth": 24, "num_heads": 16}

# The stem alone: 4 pixels to a cell and 8 cells to a patch make 32 pixels to a token, whatever the
# 16 in its name says.
_R: dict[str, Any] = {"backbone_layers": (), "patch_size": 8}
_R26: dict[str, Any] = {"backbone_layers": (2, 2, 2, 2)}
_R50: dict[str, Any] = {"backbone_layers": (3, 4, 9)}  # 16 pixels to a cell
_R50_32: dict[str, Any] = {"backbone_layers": (3, 4, 6, 3)}  # 32 pixels to a cell

MODELS.variant(
    "R_ViT_tiny_patch16_224", HybridVisionTransformer, **_R, **_TINY, img_size=224,
    aliases=("vit_tiny_r_s16_p8_224", "R+ViT-Ti_16"),
)
MODELS.variant(
    "R_ViT_tiny_patch16_384", HybridVisionTransformer, **_R, **_TINY, img_size=384,
    aliases=("vit_tiny_r_s16_p8_384",),
)
MODELS.variant(
    "R26_ViT_small_patch32_224", HybridVisionTransformer, **_R26, **_SMALL, img_size=224,
    aliases=("vit_small_r26_s32_224", "R26+ViT-S_32"),
)
MODELS.variant(
    "R26_ViT_small_patch32_384", HybridVisionTransformer, **_R26, **_SMALL, img_size=384,
    aliases=("vit_small_r26_s32_384",),
)
MODELS.variant(
    "R26_ViT_base_patch32_224", HybridVisionTransformer, **_R26, **_BASE, img_size=224,
    aliases=("vit_base_r26_s32_224", "R26+ViT-B_32"),
)
MODELS.variant(
    "R50_ViT_base_patch16_224", HybridVisionTransformer, **_R50, **_BASE, img_size=224,
    aliases=("vit_base_r50_s16_224",),
)
MODELS.variant(
    "R50_ViT_base_patch16_384", HybridVisionTransformer, **_R50, **_BASE, img_size=384,
    aliases=("vit_base_r50_s16_384",),
)
MODELS.variant(
    "R50_ViT_large_patch32_224", HybridVisionTransformer, **_R50_32, **_LARGE, img_size=224,
    aliases=("vit_large_r50_s32_224",),
)
MODELS.variant(
    "R50_ViT_large_patch32_384", HybridVisionTransformer, **_R50_32, **_LARGE, img_size=384,
    aliases=("vit_large_r50_s32_384",),
)

# Google's with dropout.
MODELS.variant(
    "R50+ViT-B_16", HybridVisionTransformer, **_R50, **_BASE, img_size=224, drop_rate=0.1,
    aliases=("R50-ViT-B_16",),
)
MODELS.variant(
    "R50+ViT-L_32", HybridVisionTransformer, **_R50_32, **_LARGE, img_size=224, drop_rate=0.1,
)

"""DeiT: the vision transformer with a recipe, and with a second token that learns from a teacher.

Source: Touvron et al. 2021, "Training data-efficient image transformers & distillation through
attention" (tiny to base, distilled); Touvron et al. 2022, "DeiT III: Revenge of the ViT" (deit3).

Plain DeiT and DeiT III are :class:`~passl.models.vision_transformer.VisionTransformer` with other
settings; a distilled DeiT has two tokens and two classifiers.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Optional, Union

import paddle
from paddle import nn

from passl.layers.linear import Linear
from passl.models.vision_transformer import VisionTransformer
from passl.registry import MODELS, Range

__all__ = ["DistilledVisionTransformer"]


@MODELS.register()
class DistilledVisionTransformer(VisionTransformer):
    """Images [b, in_chans, height, width] float32 -> logits [b, class_num], the mean of two heads.

    A class token and a distillation token (``dist_token``) go before the patches, in this order;
    ``head`` classifies the one and ``head_dist`` the other.  In training as in evaluation
    :meth:`forward` returns the mean of the two logits, so that any loss and metric works without a
    teacher.  :meth:`forward_distilled` returns the two apart, for a loss that compares the second
    with a teacher.

    Args:
        img_size: side of the images in pixels, or [height, width]; a multiple of ``patch_size``.
        patch_size: side of a patch in pixels.
        in_chans: channels of the images.
        class_num: number of classes; 0 for a model that returns features [b, embed_dim], the mean
            of the two tokens.
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
        epsilon: added to the variance in every normalisation.
        head_bias_init: initial bias of both classifiers; null is 0.
        init_scheme: how the weights start: as in timm (and DeiT's own code), PASSL's ViT or
            Google's.
        act: activation of the perceptrons: exact GELU, or its approximation by tanh.
        fused_attn: on a GPU in half precision, let Paddle's fused kernel compute the attention.
        fused_linear: on a GPU at level O2, let Paddle's fused kernel compute the linear layers of
            the blocks: product and bias in one launch.

    Raises:
        ModelArgumentError: sizes that do not divide, or a number out of range.
    """

    head_prefixes = ("head.", "head_dist.")

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
        qkv_bias: bool = True,
        drop_rate: Annotated[float, Range(min=0.0, max=1.0, max_open=True)] = 0.0,
        attn_drop_rate: Annotated[float, Range(min=0.0, max=1.0, max_open=True)] = 0.0,
        drop_path_rate: Annotated[float, Range(min=0.0, max=1.0, max_open=True)] = 0.0,
        epsilon: Annotated[float, Range(min=0.0, min_open=True)] = 1e-6,
        head_bias_init: Optional[float] = None,
        init_scheme: Literal["passl", "google", "timm"] = "timm",
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
            head_bias_init=head_bias_init,
            init_scheme=init_scheme,
            act=act,
            fused_attn=fused_attn,
            fused_linear=fused_linear,
        )

    def forward_distilled(self, x_bchw: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Logits of the class token and of the distillation token, [b, class_num] each.

        Raises:
            InputShapeError: the images are not of the size the model was built for.
        """
        return self._both_heads(self.forward_features(x_bchw))

    def forward_head(self, tokens_bnc: paddle.Tensor) -> paddle.Tensor:
        """The mean of the logits of both tokens [b, class_num]."""
        return self.merge_heads(*self._both_heads(tokens_bnc))

    @staticmethod
    def merge_heads(logits_bc: paddle.Tensor, logits_dist_bc: paddle.Tensor) -> paddle.Tensor:
        """What of both logits is the prediction: their mean."""
        return (logits_bc + logits_dist_bc) / 2

    def _both_heads(self, tokens_bnc: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        return self.head(tokens_bnc[:, 0]), self.head_dist(tokens_bnc[:, 1])

    def _create_prefix_tokens(self, class_token: bool, reg_tokens: int) -> None:
        super()._create_prefix_tokens(class_token, reg_tokens)
        zero = nn.initializer.Constant(0.0)
        self.dist_token = self.create_parameter(
            [1, 1, self.embed_dim], default_initializer=zero
        )
        self._prefix_names = (*self._prefix_names, "dist_token")
        self.num_prefix_tokens += 1

    def _create_heads(self, representation_size: Optional[int]) -> None:
        super()._create_heads(representation_size)
        self.head_dist = (
            Linear(self.embed_dim, self.class_num) if self.class_num else nn.Identity()
        )


_TINY: dict[str, Any] = {"embed_dim": 192, "depth": 12, "num_heads": 3}
_SMALL: dict[str, Any] = {"embed_dim": 384, "depth": 12, "num_heads": 6}
_MEDIUM: dict[str, Any] = {"embed_dim": 512, "depth": 12, "num_heads": 8}
_BASE: dict[str, Any] = {"embed_dim": 768, "depth": 12, "num_heads": 12}
_LARGE: dict[str, Any] = {"embed_dim": 1024, "depth": 24, "num_heads": 16}
_HUGE: dict[str, Any] = {"embed_dim": 1280, "depth": 32, "num_heads": 16}

# Normals of 0.02, as in DeiT's own code; PASSL's are of 0.002.
_DEIT: dict[str, Any] = {
    "patch_size": 16, "qkv_bias": True, "epsilon": 1e-6, "init_scheme": "timm",
}
MODELS.variant(
    "DeiT_tiny_patch16_224", VisionTransformer, **_TINY, **_DEIT, img_size=224,
    aliases=("deit_tiny_patch16_224",),
)
MODELS.variant(
    "DeiT_small_patch16_224", VisionTransformer, **_SMALL, **_DEIT, img_size=224,
    aliases=("deit_small_patch16_224",),
)
MODELS.variant(
    "DeiT_base_patch16_224", VisionTransformer, **_BASE, **_DEIT, img_size=224,
    aliases=("deit_base_patch16_224",),
)
MODELS.variant(
    "DeiT_base_patch16_384", VisionTransformer, **_BASE, **_DEIT, img_size=384,
    aliases=("deit_base_patch16_384",),
)

MODELS.variant(
    "DeiT_tiny_distilled_patch16_224", DistilledVisionTransformer, **_TINY, img_size=224,
    aliases=("deit_tiny_distilled_patch16_224",),
)
MODELS.variant(
    "DeiT_tiny_distilled_patch16_384", DistilledVisionTransformer, **_TINY, img_size=384,
)
MODELS.variant(
    "DeiT_small_distilled_patch16_224", DistilledVisionTransformer, **_SMALL, img_size=224,
    aliases=("deit_small_distilled_patch16_224",),
)
MODELS.variant(
    "DeiT_small_distilled_patch16_384", DistilledVisionTransformer, **_SMALL, img_size=384,
)
MODELS.variant(
    "DeiT_base_distilled_patch16_224", DistilledVisionTransformer, **_BASE, img_size=224,
    aliases=("deit_base_distilled_patch16_224",),
)
MODELS.variant(
    "DeiT_base_distilled_patch16_384", DistilledVisionTransformer, **_BASE, img_size=384,
    aliases=("deit_base_distilled_patch16_384",),
)

# The paper starts the scales of the branches at 1e-4, timm at 1e-6.
_DEIT3: dict[str, Any] = {
    "qkv_bias": True, "epsilon": 1e-6, "init_scheme": "timm", "init_values": 1e-6,
    "no_embed_class": True,
}
MODELS.variant(
    "deit3_small_patch16_224", VisionTransformer, **_SMALL, **_DEIT3, patch_size=16, img_size=224,
    aliases=("DeiT3_small_patch16_224",),
)
MODELS.variant(
    "deit3_small_patch16_384", VisionTransformer, **_SMALL, **_DEIT3, patch_size=16, img_size=384,
    aliases=("DeiT3_small_patch16_384",),
)
MODELS.variant(
    "deit3_medium_patch16_224", VisionTransformer, **_MEDIUM, **_DEIT3, patch_size=16,
    img_size=224, aliases=("DeiT3_medium_patch16_224",),
)
MODELS.variant(
    "deit3_base_patch16_224", VisionTransformer, **_BASE, **_DEIT3, patch_size=16, img_size=224,
    aliases=("DeiT3_base_patch16_224",),
)
MODELS.variant(
    "deit3_base_patch16_384", VisionTransformer, **_BASE, **_DEIT3, patch_size=16, img_size=384,
    aliases=("DeiT3_base_patch16_384",),
)
MODELS.variant(
    "deit3_large_patch16_224", VisionTransformer, **_LARGE, **_DEIT3, patch_size=16, img_size=224,
    aliases=("DeiT3_large_patch16_224",),
)
MODELS.variant(
    "deit3_large_patch16_384", VisionTransformer, **_LARGE, **_DEIT3, patch_size=16, img_size=384,
    aliases=("DeiT3_large_patch16_384",),
)
MODELS.variant(
    "deit3_huge_patch14_224", VisionTransformer, **_HUGE, **_DEIT3, patch_size=14, img_size=224,
    aliases=("DeiT3_huge_patch14_224",),
)

"""The distilled vision transformer of myrtle-vision, whose distillation token comes last.

It differs from DeiT's in three ways.  The distillation token is appended behind the patches, after
the positions are added, so it has none.  Its classifier is a normalisation of its own and a linear
layer.  And a prediction is made without it: evaluation and inference run the plain vision
transformer, in whose attention the token does not take part.

Source: myrtle-vision's classification code, commit d5089bc, and the vit-pytorch code under it.
There token and classifier live in a wrapper that checkpoints leave out; here they are parameters of
the model and are saved, averaged and continued like any other.
"""

from __future__ import annotations

from typing import Annotated, Any, Union

import paddle
from paddle import nn

from passl.layers.init import constant_, init_enabled, normal_, rng_for
from passl.layers.layer_norm import LayerNorm
from passl.layers.linear import Linear
from passl.models.vision_transformer import VisionTransformer
from passl.registry import MODELS, Range

__all__ = ["MyrtleDistilledVisionTransformer"]


@MODELS.register()
class MyrtleDistilledVisionTransformer(VisionTransformer):
    """Images [b, in_chans, height, width] float32 -> logits [b, class_num] of the class token.

    :meth:`forward` is the plain vision transformer, in training as in evaluation.
    :meth:`forward_distilled` runs the blocks with the distillation token as well.

    Args:
        img_size: side of the images in pixels, or [height, width]; a multiple of ``patch_size``.
        patch_size: side of a patch in pixels.
        in_chans: channels of the images.
        class_num: number of classes.
        embed_dim: channels of a token; a multiple of ``num_heads``.
        depth: number of blocks.
        num_heads: heads of each attention; myrtle's models have one for 64 channels.
        mlp_ratio: hidden width of the perceptrons as a multiple of ``embed_dim``, rounded down.
        qkv_bias: add a bias to query, key and value; myrtle's first version has none.
        drop_rate: dropout of the tokens, after each attention and twice in each perceptron.
        attn_drop_rate: dropout of the attention probabilities.
        drop_path_rate: part of the samples that skip a branch of the last block in training.
        epsilon: added to the variance in every normalisation.

    Raises:
        ModelArgumentError: sizes that do not divide, or a number out of range.
    """

    head_prefixes = ("head.", "head_dist.")
    #: Without one, the second token and its classifier would never be trained.
    needs_teacher = True

    def __init__(
        self,
        img_size: Union[
            Annotated[int, Range(min=1)],
            tuple[Annotated[int, Range(min=1)], Annotated[int, Range(min=1)]],
        ] = 224,
        patch_size: Annotated[int, Range(min=1)] = 16,
        in_chans: Annotated[int, Range(min=1)] = 3,
        class_num: Annotated[int, Range(min=1)] = 1000,
        embed_dim: Annotated[int, Range(min=1)] = 192,
        depth: Annotated[int, Range(min=1)] = 12,
        num_heads: Annotated[int, Range(min=1)] = 3,
        mlp_ratio: Annotated[float, Range(min=0.0, min_open=True)] = 4.0,
        qkv_bias: bool = False,
        drop_rate: Annotated[float, Range(min=0.0, max=1.0, max_open=True)] = 0.0,
        attn_drop_rate: Annotated[float, Range(min=0.0, max=1.0, max_open=True)] = 0.0,
        drop_path_rate: Annotated[float, Range(min=0.0, max=1.0, max_open=True)] = 0.0,
        epsilon: Annotated[float, Range(min=0.0, min_open=True)] = 1e-5,
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
            init_scheme="timm",
        )
        self.dist_token = self.create_parameter(
            [1, 1, embed_dim], default_initializer=nn.initializer.Constant(0.0)
        )
        self.head_dist = nn.Sequential(
            LayerNorm(embed_dim, epsilon=epsilon), Linear(embed_dim, class_num)
        )
        if init_enabled():
            for name in ("cls_token", "pos_embed", "dist_token"):
                normal_(getattr(self, name), rng_for(name), std=1.0)
            constant_(self.head_dist[0].weight, 1.0)
            normal_(self.head_dist[1].weight, rng_for("head_dist.1.weight"), std=0.02)

    def forward_distilled(self, x_bchw: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Logits of the class token and of the distillation token, [b, class_num] each.

        Raises:
            InputShapeError: the images are not of the size the model was built for.
        """
        x_bnc = self.embed(x_bchw)
        token = self.dist_token.expand([x_bnc.shape[0], -1, -1]).astype(x_bnc.dtype)
        x_bnc = self.encode(paddle.concat([x_bnc, token], axis=1))
        return self.forward_head(self.norm(x_bnc)), self.head_dist(x_bnc[:, -1])

    @staticmethod
    def merge_heads(logits_bc: paddle.Tensor, logits_dist_bc: paddle.Tensor) -> paddle.Tensor:
        """What of both logits is the prediction: the first."""
        del logits_dist_bc
        return logits_bc

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay should leave alone whatever the recipe's rules."""
        return {*super().no_weight_decay(), "dist_token"}


_MYRTLE: dict[str, Any] = {"img_size": 224, "patch_size": 16, "class_num": 45, "depth": 12}
MODELS.variant(
    "Myrtle_DeiT_tiny_patch16_224", MyrtleDistilledVisionTransformer, **_MYRTLE,
    embed_dim=192, num_heads=3,
)
MODELS.variant(
    "Myrtle_DeiT_small_patch16_224", MyrtleDistilledVisionTransformer, **_MYRTLE,
    embed_dim=384, num_heads=6,
)
MODELS.variant(
    "Myrtle_DeiT_base_patch16_224", MyrtleDistilledVisionTransformer, **_MYRTLE,
    embed_dim=768, num_heads=12,
)

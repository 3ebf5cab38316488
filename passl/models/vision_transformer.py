"""The vision transformer, with the options of PASSL's, Google's and timm's.

Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words: Transformers for Image Recognition
at Scale".  The named sizes are in :mod:`passl.models.vit_variants`.
"""

from __future__ import annotations

from typing import Annotated, Literal, Optional, Union

import paddle
from paddle import nn

from passl.layers.block import Block
from passl.layers.drop_path import drop_path_rates
from passl.layers.errors import ModelArgumentError
from passl.layers.layer_norm import LayerNorm
from passl.layers.linear import Linear
from passl.layers.mlp import hidden_width
from passl.layers.patch_embed import PatchEmbed
from passl.layers.pre_logits import PreLogits
from passl.layers.recompute import run_blocks
from passl.models.vit_init import initialize
from passl.registry import MODELS, Range, Runtime

__all__ = ["VisionTransformer"]


@MODELS.register()
class VisionTransformer(nn.Layer):
    """Images [b, in_chans, height, width] float32 -> logits [b, class_num].

    Patches become tokens, a class token goes first, positions are added, ``depth`` blocks mix
    them, and the class token, normalised, is classified.  Options that PASSL does not have are
    called as in timm.

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
        representation_size: width of a layer (with tanh) between what is pooled and the classifier;
            null for none.
        head_bias_init: initial bias of the classifier; null is the scheme's own (``passl``: -10
            behind a representation layer, else 0; the others: 0).
        init_scheme: how the weights start: as in PASSL, Google's vision_transformer or timm.
        ignore_border: accept an ``img_size`` that is no multiple of ``patch_size``; the last rows
            and columns, which fill no patch, go unseen.
        global_pool: what is classified: the class ``token``, or the average (``avg``) of the
            patches' tokens.
        fc_norm: normalise what is pooled in place of every token (``fc_norm.*`` in place of
            ``norm.*``); null does so where the average is pooled.
        class_token: put a class token first.
        reg_tokens: number of learned tokens (registers) after the class token.
        no_embed_class: positions for the patches alone, not for the tokens before them.
        pre_norm: normalise the tokens before the first block too (``norm_pre.*``); the projection
            of the patches then has no bias.
        init_values: what a learned factor for each channel of each branch (LayerScale) starts with;
            null for no such factors.
        qk_norm: normalise the queries and keys of each head.
        act: activation of the perceptrons: exact GELU, its approximation by tanh, or the
            ``x sigmoid(1.702 x)`` of OpenAI's CLIP.
        fused_attn: on a GPU in half precision, let Paddle's fused kernel compute the attention.
        fused_linear: on a GPU at level O2, let Paddle's fused kernel compute the linear layers of
            the blocks: product and bias in one launch.
        patch_embed: what makes tokens of images, in place of patches (given by a subclass).

    Raises:
        ModelArgumentError: sizes that do not divide, a number out of range, or no class token
            where one is to be classified.

    Attributes:
        num_features: width of what the classifier sees.
        grid_size: rows and columns of patches.
        num_prefix_tokens: tokens before the patches.
        head_prefixes: how the names of parameters start that belong to the classes.
        recompute_every: see :func:`passl.layers.recompute.run_blocks`.
    """

    head_prefixes: tuple[str, ...] = ("head.", "pre_logits.")
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
        global_pool: Literal["token", "avg"] = "token",
        fc_norm: Optional[bool] = None,
        class_token: bool = True,
        reg_tokens: Annotated[int, Range(min=0)] = 0,
        no_embed_class: bool = False,
        pre_norm: bool = False,
        init_values: Optional[Annotated[float, Range(min=0.0)]] = None,
        qk_norm: bool = False,
        act: Literal["gelu", "gelu_tanh", "quick_gelu"] = "gelu",
        fused_attn: bool = True,
        fused_linear: bool = False,
        patch_embed: Annotated[Optional[nn.Layer], Runtime()] = None,
    ) -> None:
        super().__init__()
        if global_pool == "token" and not class_token:
            raise ModelArgumentError(
                "class_token: false leaves no class token to classify; add global_pool: avg"
            )
        self.class_num, self.embed_dim, self.depth = class_num, embed_dim, depth
        hidden_dim = hidden_width(embed_dim, mlp_ratio)

        if patch_embed is None:
            size = (img_size, img_size) if isinstance(img_size, int) else img_size
            patch_embed = PatchEmbed(
                size, patch_size, in_chans, embed_dim, ignore_border=ignore_border,
                bias=not pre_norm,
            )
        self.patch_embed = patch_embed
        self.grid_size = self.patch_embed.grid_size
        self.global_pool, self.no_embed_class = global_pool, no_embed_class
        self._create_prefix_tokens(class_token, reg_tokens)
        self._create_pos_embed()
        self.pos_drop = nn.Dropout(drop_rate)
        self.norm_pre = LayerNorm(embed_dim, epsilon=epsilon) if pre_norm else nn.Identity()
        self.blocks = nn.LayerList([
            Block(
                embed_dim, num_heads, hidden_dim,
                qkv_bias=qkv_bias,
                qk_scale=qk_scale,
                drop_rate=drop_rate,
                attn_drop_rate=attn_drop_rate,
                drop_path_rate=rate,
                epsilon=epsilon,
                act=act,
                qk_norm=qk_norm,
                init_values=init_values,
                fused_attn=fused_attn,
                fused_linear=fused_linear,
            )
            for rate in drop_path_rates(drop_path_rate, depth)
        ])
        pooled_first = global_pool == "avg" if fc_norm is None else fc_norm
        norm: nn.Layer = LayerNorm(embed_dim, epsilon=epsilon)
        none: nn.Layer = nn.Identity()
        self.norm, self.fc_norm = (none, norm) if pooled_first else (norm, none)
        self._create_heads(representation_size)
        initialize(self, init_scheme, head_bias_init)

    def _create_prefix_tokens(self, class_token: bool, reg_tokens: int) -> None:
        """Make the tokens that go before the patches, [1, 1 or reg_tokens, embed_dim] each."""
        self._prefix_names = ("cls_token",) * class_token + ("reg_token",) * (reg_tokens > 0)
        self.num_prefix_tokens = int(class_token) + reg_tokens
        for name in self._prefix_names:
            shape = [1, reg_tokens if name == "reg_token" else 1, self.embed_dim]
            token = self.create_parameter(
                shape, default_initializer=nn.initializer.Constant(0.0)
            )
            setattr(self, name, token)

    def _create_pos_embed(self) -> None:
        tokens = self.patch_embed.num_patches
        if not self.no_embed_class:
            tokens += self.num_prefix_tokens
        self.pos_embed = self.create_parameter(
            [1, tokens, self.embed_dim], default_initializer=nn.initializer.Constant(0.0)
        )

    def _create_heads(self, representation_size: Optional[int]) -> None:
        """Make what follows the pooling and its normalisation."""
        self.num_features = representation_size or self.embed_dim
        self.pre_logits = (
            PreLogits(self.embed_dim, representation_size)
            if representation_size
            else nn.Identity()
        )
        self.head = (
            Linear(self.num_features, self.class_num) if self.class_num else nn.Identity()
        )

    def forward(self, x_bchw: paddle.Tensor) -> paddle.Tensor:
        """Logits [b, class_num], or features [b, num_features] if there are no classes.

        Raises:
            InputShapeError: the images are not of the size the model was built for.
        """
        return self.forward_head(self.forward_features(x_bchw))

    def forward_features(self, x_bchw: paddle.Tensor) -> paddle.Tensor:
        """All tokens after the last normalisation, those before the patches first [b, n, c]."""
        return self.norm(self.encode(self.embed(x_bchw)))

    def encode(self, x_bnc: paddle.Tensor) -> paddle.Tensor:
        """Tokens as :meth:`embed` returns them, through all blocks, before the last norm."""
        x_bnc = self.norm_pre(self.pos_drop(x_bnc))
        return run_blocks(self.blocks, x_bnc, recompute_every=self.recompute_every)

    def embed(self, x_bchw: paddle.Tensor) -> paddle.Tensor:
        """Tokens of the images, with their positions [b, n, c]."""
        x_bnc = self.patch_embed(x_bchw)
        if self.no_embed_class:
            return self._with_prefix(x_bnc + self.pos_embed)
        return self._with_prefix(x_bnc) + self.pos_embed

    def _with_prefix(self, x_bnc: paddle.Tensor) -> paddle.Tensor:
        if not self._prefix_names:
            return x_bnc
        prefix = [getattr(self, name) for name in self._prefix_names]
        tokens = [token.expand([x_bnc.shape[0], -1, -1]).astype(x_bnc.dtype) for token in prefix]
        return paddle.concat([*tokens, x_bnc], axis=1)

    def forward_head(self, tokens_bnc: paddle.Tensor) -> paddle.Tensor:
        """Pool and classify what :meth:`forward_features` returns."""
        if self.global_pool == "token":
            pooled_bc = tokens_bnc[:, 0]
        else:
            pooled_bc = tokens_bnc[:, self.num_prefix_tokens :].mean(axis=1)
        return self.head(self.pre_logits(self.fc_norm(pooled_bc)))

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay should leave alone whatever the recipe's rules."""
        return {"pos_embed", *self._prefix_names}

    def layer_ids(self) -> dict[str, int]:
        """Depth of each parameter, 0 to depth + 1, for a learning rate that decays with depth.

        What comes before the blocks is 0, block ``i`` is ``i + 1``, the last normalisation belongs
        to the last block, what comes after the pooling is ``depth + 1``.  Source: timm.
        """
        return {name: self._layer_id(name) for name, _ in self.named_parameters()}

    def _layer_id(self, name: str) -> int:
        part, _, rest = name.partition(".")
        if part == "blocks":
            return int(rest.partition(".")[0]) + 1
        if part == "norm":
            return self.depth
        return self.depth + 1 if part in _AFTER_POOLING else 0


_AFTER_POOLING = ("fc_norm", "pre_logits", "head", "head_dist")

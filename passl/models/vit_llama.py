"""ViT-LLaMA: a vision transformer whose last block is a frozen block of a language model.

Source: Pang et al. 2024, "Frozen Transformers in Language Models Are Effective Visual Encoder
Layers" (arXiv 2310.12973), image classification, and the models its authors released.

The language model's weights come from files of their own (``llama_path``), are frozen, and stay out
of the optimizer and of checkpoints, which remember where they are and their SHA-256 instead;
``docs/llama_models.md`` says more.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Annotated, Any, Literal, Optional, Union

import numpy as np
import paddle
from paddle import nn

from passl.layers.block import Block
from passl.layers.drop_path import drop_path_rates
from passl.layers.errors import ModelArgumentError
from passl.layers.init import init_enabled
from passl.layers.layer_norm import LayerNorm
from passl.layers.linear import Linear
from passl.layers.llama_block import LLAMA_7B, LlamaBlocks, LlamaSizes
from passl.layers.mlp import hidden_width
from passl.layers.patch_embed import PatchEmbed
from passl.layers.recompute import run_blocks
from passl.models.llama_init import initialize_like_timm
from passl.registry import EXTERNAL_WEIGHTS, MODELS, Range

__all__ = ["ViTLlama"]

_BLOCK = "llama."
_HASHED_ROWS = 256


@MODELS.register("ViT_LLaMA")
class ViTLlama(nn.Layer):
    """Images [b, in_chans, height, width] float32 -> logits [b, class_num].

    A vision transformer with the class token first.  After its last block every token is projected
    to the width of the language model, passes its block (without rotary positions and mask) and a
    last RMSNorm, and is projected back; there is no way around them.  Then comes the vision
    transformer's own last normalisation.

    Args:
        img_size: side of the images in pixels, or [height, width]; a multiple of ``patch_size``.
        patch_size: side of a patch in pixels.
        in_chans: channels of the images.
        class_num: number of classes; 0 for a model that returns features [b, embed_dim].
        embed_dim: channels of a token; a multiple of ``num_heads``.
        depth: number of blocks of the vision transformer.
        num_heads: heads of each of its attentions.
        mlp_ratio: hidden width of its perceptrons as a multiple of ``embed_dim``, rounded down.
        qkv_bias: add a bias to its queries, keys and values.
        drop_rate: dropout after the positions are added, after each attention and twice in each
            perceptron.
        attn_drop_rate: dropout of the attention probabilities.
        drop_path_rate: part of the samples that skip a branch of the last block in training;
            grows linearly from 0 at the first block; the language model's block has none.
        epsilon: added to the variance in the vision transformer's normalisations.
        llama_path: a LLaMA checkpoint: Meta's folder, Hugging Face's, or a block extracted from
            one; null only to load weights that contain the block.
        llama_layer: the (last) block to take, counted from 0; null is the checkpoint's last.
        llama_layers: how many blocks in a row to take, ending with ``llama_layer``.
        llama_trainable: train the block, too.
        llama_final_norm: weight of the RMSNorm behind the block: ``ones``, as released, or
            ``loaded`` from the checkpoint.
        llama_dtype: how the frozen block's matrices are stored; a CPU computes in float32 all the
            same, a GPU as they are stored.
        llama_dim: channels of the block; null is the checkpoint's, or 4096 without one.
        llama_num_heads: heads of the block; null is the checkpoint's, or 32 without one.
        llama_num_kv_heads: heads of its keys and values; null is the checkpoint's, or
            ``llama_num_heads`` without one.
        llama_hidden_dim: hidden width of the block; null is the checkpoint's, or 11008 without one.
        llama_epsilon: added to the mean square in the block's normalisations; null is the
            checkpoint's, or 1e-6 (LLaMA v1) without one.

    Raises:
        ModelArgumentError: sizes that do not divide, leave no hidden channel or contradict the
            checkpoint.
        CheckpointError: the LLaMA checkpoint is missing, damaged or of another model.

    Attributes:
        num_features: width of what the classifier sees.
        grid_size: rows and columns of patches.
        num_prefix_tokens: tokens before the patches (1, the class token).
        head_prefixes: beginnings of the names of parameters that belong to the classes.
        recompute_every: see :func:`passl.layers.recompute.run_blocks`.
    """

    num_prefix_tokens = 1
    num_suffix_tokens = 0
    head_prefixes = ("head.",)
    recompute_every = 0
    #: Where the block's weights are from and their SHA-256, while they are in a file of their own;
    #: None without one, and once other weights came in their place.
    _llama_origin: Optional[dict[str, Any]]

    def __init__(
        self,
        img_size: Union[
            Annotated[int, Range(min=1)],
            tuple[Annotated[int, Range(min=1)], Annotated[int, Range(min=1)]],
        ] = 224,
        patch_size: Annotated[int, Range(min=1)] = 16,
        in_chans: Annotated[int, Range(min=1)] = 3,
        class_num: Annotated[int, Range(min=0)] = 1000,
        embed_dim: Annotated[int, Range(min=1)] = 384,
        depth: Annotated[int, Range(min=1)] = 12,
        num_heads: Annotated[int, Range(min=1)] = 6,
        mlp_ratio: Annotated[float, Range(min=0.0, min_open=True)] = 4.0,
        qkv_bias: bool = True,
        drop_rate: Annotated[float, Range(min=0.0, max=1.0, max_open=True)] = 0.0,
        attn_drop_rate: Annotated[float, Range(min=0.0, max=1.0, max_open=True)] = 0.0,
        drop_path_rate: Annotated[float, Range(min=0.0, max=1.0, max_open=True)] = 0.0,
        epsilon: Annotated[float, Range(min=0.0, min_open=True)] = 1e-6,
        llama_path: Optional[str] = None,
        llama_layer: Optional[Annotated[int, Range(min=0)]] = None,
        llama_layers: Annotated[int, Range(min=1)] = 1,
        llama_trainable: bool = False,
        llama_final_norm: Literal["ones", "loaded"] = "ones",
        llama_dtype: Literal["float32", "float16", "bfloat16"] = "float32",
        llama_dim: Optional[Annotated[int, Range(min=1)]] = None,
        llama_num_heads: Optional[Annotated[int, Range(min=1)]] = None,
        llama_num_kv_heads: Optional[Annotated[int, Range(min=1)]] = None,
        llama_hidden_dim: Optional[Annotated[int, Range(min=1)]] = None,
        llama_epsilon: Optional[Annotated[float, Range(min=0.0, min_open=True)]] = None,
    ) -> None:
        super().__init__()
        weights = None
        if llama_path is not None:
            weights = EXTERNAL_WEIGHTS.get("llama")(llama_path, llama_layer, llama_layers)
        sizes = _sizes(
            weights,
            {
                "dim": llama_dim,
                "num_heads": llama_num_heads,
                "num_kv_heads": llama_num_kv_heads,
                "hidden_dim": llama_hidden_dim,
                "epsilon": llama_epsilon,
            },
        )
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.class_num, self.embed_dim, self.depth = class_num, embed_dim, depth
        self.num_features = embed_dim
        zero = nn.initializer.Constant(0.0)

        self.patch_embed = PatchEmbed((height, width), patch_size, in_chans, embed_dim)
        self.grid_size = self.patch_embed.grid_size
        tokens = self.num_prefix_tokens + self.patch_embed.num_patches
        self.cls_token = self.create_parameter([1, 1, embed_dim], default_initializer=zero)
        self.pos_embed = self.create_parameter([1, tokens, embed_dim], default_initializer=zero)
        self.pos_drop = nn.Dropout(drop_rate)
        self.blocks = nn.LayerList([
            Block(
                embed_dim,
                num_heads,
                hidden_width(embed_dim, mlp_ratio),
                qkv_bias=qkv_bias,
                drop_rate=drop_rate,
                attn_drop_rate=attn_drop_rate,
                drop_path_rate=rate,
                epsilon=epsilon,
            )
            for rate in drop_path_rates(drop_path_rate, depth)
        ])
        self._add_llama(sizes, llama_layers, llama_dtype, llama_trainable)
        self.norm = LayerNorm(embed_dim, epsilon=epsilon)
        self.head = Linear(embed_dim, class_num) if class_num else nn.Identity()
        initialize_like_timm(self, cls_token_std=1e-6, skip=(_BLOCK,))
        if weights is not None and init_enabled():
            self._fill(weights, llama_final_norm, llama_trainable)

    def forward(self, x_bchw: paddle.Tensor) -> paddle.Tensor:
        """Logits [b, class_num], or features [b, embed_dim] if there are no classes.

        Raises:
            InputShapeError: the images are not of the size the model was built for.
            ModelArgumentError: the language model's weights were never put in place.
        """
        return self.forward_head(self.forward_features(x_bchw))

    def forward_features(self, x_bchw: paddle.Tensor) -> paddle.Tensor:
        """All tokens after the last normalisation, class token first [b, n, embed_dim]."""
        if not self._llama_checked and paddle.in_dynamic_mode():
            self.check_weights()
        x_bnc = self.patch_embed(x_bchw)
        cls_b1c = self.cls_token.expand([x_bnc.shape[0], -1, -1])
        x_bnc = paddle.concat([cls_b1c.astype(x_bnc.dtype), x_bnc], axis=1) + self.pos_embed
        x_bnc = self.pos_drop(x_bnc)
        x_bnc = run_blocks(self.blocks, x_bnc, recompute_every=self.recompute_every)
        wide_bnc = self.llama(self.llama_dim_mapper1(x_bnc))
        return self.norm(self.llama_dim_mapper2(wide_bnc))

    def forward_head(self, tokens_bnc: paddle.Tensor) -> paddle.Tensor:
        """Classify the class token of what :meth:`forward_features` returns."""
        return self.head(tokens_bnc[:, 0])

    # -- the language model's weights ------------------------------------------------------------

    def check_weights(self) -> None:
        """Refuse to go on without the language model's weights.

        Raises:
            ModelArgumentError: they were never put in place.
        """
        if self.llama.is_empty():
            raise ModelArgumentError(
                "llama_path is null, and no weights were loaded that contain the LLaMA block; "
                "give the LLaMA checkpoint or a block extracted from it (Model.llama_path in a "
                "config), or load weights that contain it"
            )
        self._llama_checked = True

    def external_parameters(self) -> set[str]:
        """Names of the parameters whose values are from a file of their own now."""
        if self._llama_origin is None:
            return set()
        return {name for name, _ in self.named_parameters() if name.startswith(_BLOCK)}

    def external_weights(self) -> dict[str, dict[str, Any]]:
        """What a checkpoint remembers of the language model, under the argument that names it.

        Returns:
            ``{"llama_path": {"arguments": ..., "path": ..., "sha256": ...}}``: the arguments that
            build the model without the file; path and SHA-256 (of the float32 values) are None if
            the weights are in the checkpoint itself.
        """
        sizes = self.llama.sizes
        arguments = {
            "llama_layer": None,
            "llama_dim": sizes.dim,
            "llama_num_heads": sizes.num_heads,
            "llama_num_kv_heads": sizes.num_kv_heads,
            "llama_hidden_dim": sizes.hidden_dim,
            "llama_epsilon": sizes.epsilon,
        }
        origin = self._llama_origin or {"path": None, "sha256": None}
        return {"llama_path": {"arguments": arguments, **origin}}

    def checkpoint_state_dict(self) -> dict[str, paddle.Tensor]:
        """What belongs into a checkpoint: all but what is in a file of its own.

        ``state_dict()`` has everything, for weights that stand alone.
        """
        external = self.external_parameters()
        return {name: value for name, value in self.state_dict().items() if name not in external}

    def weights_were_loaded(self, names: list[str]) -> None:
        """Told by whoever put weights of a checkpoint in place, with the names it had."""
        if any(name.startswith(_BLOCK) for name in names):
            self._llama_origin = None

    def _add_llama(self, sizes: LlamaSizes, layers: int, dtype: str, trainable: bool) -> None:
        if trainable and dtype != "float32":
            raise ModelArgumentError(
                f"llama_trainable: a block that is trained is kept in float32, not {dtype}"
            )
        self.llama_dim_mapper1 = Linear(self.embed_dim, sizes.dim, bias=False)
        self.llama = LlamaBlocks(sizes, layers, dtype=dtype, trainable=trainable)
        self.llama_dim_mapper2 = Linear(sizes.dim, self.embed_dim, bias=False)
        self._llama_origin = None
        self._llama_checked = False

    def _fill(self, weights: Any, final_norm: str, trainable: bool) -> None:
        parameters, digest = dict(self.llama.named_parameters()), hashlib.sha256()
        for name, array in weights.tensors(final_norm=final_norm == "loaded"):
            digest.update(name.encode())
            for start in range(0, len(array), _HASHED_ROWS):  # a wide copy of a few rows only
                rows = np.ascontiguousarray(array[start : start + _HASHED_ROWS], np.float32)
                digest.update(rows.data)
            _set(parameters[name], array)
        if not trainable:
            self._llama_origin = {"path": str(weights.path), "sha256": digest.hexdigest()}

    # -- parameters ----------------------------------------------------------------------------

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay should leave alone whatever the recipe's rules."""
        return {"cls_token", "pos_embed"}

    def layer_ids(self) -> dict[str, int]:
        """Depth of each parameter, 0 to depth + 1, for a learning rate that decays with depth.

        The embeddings are 0, block ``i`` is ``i + 1``; the language model's block with its two
        projections and the last normalisation belong to the last block; the classifier is
        ``depth + 1``.
        """
        ids = {}
        for name, _ in self.named_parameters():
            part, _, rest = name.partition(".")
            in_block = part == "blocks"
            late = self.depth + 1 if part == "head" else self.depth
            embeds = part in ("cls_token", "pos_embed", "patch_embed")
            ids[name] = int(rest.partition(".")[0]) + 1 if in_block else 0 if embeds else late
        return ids


def _sizes(weights: Any, wanted: dict[str, Any]) -> LlamaSizes:
    """Of the checkpoint, which what is written must not contradict; without one, what is written.

    Raises:
        ModelArgumentError: they differ.
    """
    written = {name: value for name, value in wanted.items() if value is not None}
    if weights is None:
        heads = written.get("num_heads", LLAMA_7B.num_heads)
        return replace(LLAMA_7B, **{"num_kv_heads": heads, **written})
    sizes: LlamaSizes = weights.sizes
    different = [
        f"llama_{name} is {value} and {weights.path} has {getattr(sizes, name)}"
        for name, value in written.items()
        if value != getattr(sizes, name)
    ]
    if different:
        raise ModelArgumentError(
            f"{'; '.join(different)}; leave them out: the checkpoint says them"
        )
    return sizes


def _set(parameter: paddle.Tensor, array: np.ndarray) -> None:
    """Copy with as little beside it as can be: these are the largest arrays there are."""
    if parameter.dtype == paddle.bfloat16:  # NumPy has no such type: Paddle rounds
        wide = np.ascontiguousarray(array, np.float32)
        parameter.set_value(paddle.to_tensor(wide).astype(parameter.dtype))
    else:
        dtype = np.float16 if parameter.dtype == paddle.float16 else np.float32
        narrow = np.ascontiguousarray(array, dtype)
        if not np.isfinite(narrow).all():
            raise ModelArgumentError(
                "llama_dtype: float16 cannot hold the weights of this checkpoint, some of which "
                "are larger than 65504; use bfloat16 or float32"
            )
        parameter.set_value(narrow)


_TINY: dict[str, Any] = {"embed_dim": 192, "depth": 12, "num_heads": 3}
_SMALL: dict[str, Any] = {"embed_dim": 384, "depth": 12, "num_heads": 6}
_BASE: dict[str, Any] = {"embed_dim": 768, "depth": 12, "num_heads": 12}

MODELS.variant(
    "ViT_LLaMA_tiny_patch16_224", ViTLlama, **_TINY, aliases=("vit_llama_tiny_patch16_224",),
)
MODELS.variant(
    "ViT_LLaMA_small_patch16_224", ViTLlama, **_SMALL, aliases=("vit_llama_small_patch16_224",),
)
MODELS.variant(
    "ViT_LLaMA_base_patch16_224", ViTLlama, **_BASE, aliases=("vit_llama_base_patch16_224",),
)
MODELS.variant(
    "ViT_LLaMA_tiny_patch32_224", ViTLlama, **_TINY, patch_size=32,
    aliases=("vit_llama_tiny_patch32_224",),
)
MODELS.variant(
    "ViT_LLaMA_base_patch32_224", ViTLlama, **_BASE, patch_size=32,
    aliases=("vit_llama_base_patch32_224",),
)

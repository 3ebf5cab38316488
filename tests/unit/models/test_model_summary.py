"""Closed forms of size and cost against published tables and models that are really there."""

from __future__ import annotations

import paddle
import pytest
from paddle import nn

from passl.errors import ConfigError
from passl.layers.init import no_init
from passl.layers.linear import Linear
from passl.layers.std_conv import StdConv2D
from passl.models import create_model, list_models, model_spec
from passl.models.summary import cost, image_size, macs, num_parameters

# Counted in PASSL itself, 1000 classes unless said.
PASSL_COUNTS = [
    ("ViT_base_patch16_224", {}, 87_158_248),
    ("ViT_base_patch16_384", {}, 86_859_496),
    ("ViT_large_patch16_224", {"class_num": 21841}, 326_738_257),
    ("ViT_large_patch16_384", {}, 304_715_752),
    ("ViT_huge_patch14_224", {}, 633_562_600),
]
# Google's and timm's: 1000 classes at 224, at 384, and without a head.
GOOGLE_COUNTS = [
    ("ViT-Ti_16", 5_717_416, 5_790_376, 5_524_416),
    ("ViT-S_16", 22_050_664, 22_196_584, 21_665_664),
    ("ViT-S_32", 22_878_952, 22_915_432, 22_493_952),
    ("ViT-B_16", 86_567_656, 86_859_496, 85_798_656),
    ("ViT-B_32", 88_224_232, 88_297_192, 87_455_232),
    ("ViT-B_8", 86_576_872, 87_744_232, 85_807_872),
    ("ViT-L_16", 304_326_632, 304_715_752, 303_301_632),
    ("ViT-L_32", 306_535_400, 306_632_680, 305_510_400),
    ("ViT-H_14", 632_045_800, None, 630_764_800),
    ("vit_giant_patch14_224", 1_012_611_432, None, 1_011_202_432),
    ("vit_gigantic_patch14_224", 1_844_440_680, None, 1_842_775_680),
]


@pytest.mark.parametrize(("name", "args", "count"), PASSL_COUNTS)
def test_counts_equal_passls(name: str, args: dict, count: int):
    assert num_parameters(name, **args) == count


@pytest.mark.parametrize(("name", "at_224", "at_384", "no_head"), GOOGLE_COUNTS)
def test_counts_equal_googles(name: str, at_224: int, at_384: int | None, no_head: int):
    assert num_parameters(name) == at_224
    assert num_parameters(name, class_num=0) == no_head
    if at_384 is not None:
        assert num_parameters(name, img_size=384) == at_384


def test_count_equals_the_one_of_the_vit_pytorch_readme():
    assert num_parameters("ViT-B_16", class_num=10) == 85_806_346


@pytest.mark.parametrize(
    "name",
    [  # timm's are counted in test_timm_models.py
        name for name in list_models()
        if name.startswith("ViT_") and "vit" + name[3:] not in model_spec(name).aliases
    ],
)
def test_formula_counts_what_the_constructor_makes(name: str):
    """PASSL's own are constructed, their weights (up to 6 billion) never allocated."""
    with paddle.LazyGuard(), no_init():
        model = create_model(name)
    trained = [parameter for parameter in model.parameters() if not parameter.stop_gradient]
    shapes = [tuple(parameter.shape) for parameter in trained]
    assert sum(_product(shape) for shape in shapes) == num_parameters(name)


@pytest.mark.parametrize(
    "args",
    [
        {}, {"class_num": 0}, {"representation_size": 20},
        {"representation_size": 20, "class_num": 0},
        {"qkv_bias": True, "img_size": [16, 40]}, {"in_chans": 1, "mlp_ratio": 2.7},
        {"class_token": False, "global_pool": "avg"}, {"global_pool": "avg", "init_values": 0.1},
        {"reg_tokens": 3, "no_embed_class": True, "qk_norm": True}, {"reg_tokens": 2},
        {"pre_norm": True}, {"name": "DistilledVisionTransformer"},
        {"name": "DistilledVisionTransformer", "class_num": 0, "img_size": [16, 40]},
        {"name": "HybridVisionTransformer", "patch_size": 1, "backbone_width": 32},
        {"name": "HybridVisionTransformer", "patch_size": 1, "img_size": [33, 50],
         "backbone_layers": [2, 1, 1], "representation_size": 20},
        {"name": "HybridVisionTransformer", "patch_size": 2, "backbone_layers": []},
    ],
)
def test_formula_counts_what_is_really_built_and_run(args: dict):
    args = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 4, **args}
    name = args.pop("name", "VisionTransformer")
    model = create_model(name, **args)
    assert sum(parameter.size for parameter in model.parameters()) == num_parameters(name, **args)
    assert _counted_macs(model) == macs(name, **args)


def _counted_macs(model: nn.Layer) -> int:
    """Multiply-adds of one image, counted from the shapes that pass through each layer."""
    counted = []

    def on_linear(layer, inputs, output):
        counted.append(_product(output.shape) * layer.in_features)

    def on_conv(layer, inputs, output):
        counted.append(_product(output.shape) * _product(layer.weight.shape[1:]))

    for layer in model.sublayers():
        if isinstance(layer, Linear):
            layer.register_forward_post_hook(on_linear)
        elif isinstance(layer, (nn.Conv2D, StdConv2D)):
            layer.register_forward_post_hook(on_conv)
    for block in model.blocks:
        probabilities = block.attn.probabilities

        def on_attention(q, k, _of=probabilities):
            probs = _of(q, k)
            counted.extend([_product(probs.shape) * q.shape[-1]] * 2)
            return probs

        block.attn.probabilities = on_attention
    model.eval()
    model(paddle.zeros([1, model.patch_embed.in_chans, *model.patch_embed.img_size]))
    return sum(counted)


def _product(shape) -> int:
    total = 1
    for size in shape:
        total *= int(size)
    return total


def test_known_cost_of_vit_base():
    """17.56 billion multiply-adds with attention's own products, as the DeiT paper's 17.6."""
    assert macs("vit_base_patch16_224") == pytest.approx(17.56e9, rel=1e-3)


def test_image_size_of_a_name_and_of_an_argument():
    assert image_size("ViT_base_patch16_384") == (384, 384)
    assert image_size("ViT_base_patch16_384", {"img_size": [32, 64]}) == (32, 64)


def test_cost_checks_its_arguments():
    with pytest.raises(ConfigError, match="has no argument 'classes'"):
        cost("ViT_base_patch16_224", {"classes": 10})

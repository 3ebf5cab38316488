"""Google's hybrids: published sizes, padding, the start of the backbone, and what is refused."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from passl.layers.errors import InputShapeError, ModelArgumentError
from passl.layers.resnet import Bottleneck
from passl.models import create_model, model_spec
from passl.models.hybrid import HybridVisionTransformer
from passl.models.summary import num_parameters

SMALL = {
    "img_size": 32, "embed_dim": 24, "depth": 1, "num_heads": 2, "class_num": 5,
    "backbone_layers": (1, 1), "backbone_width": 32,
}


@pytest.mark.parametrize(
    ("name", "args", "count"),
    [
        ("R50-ViT-B_16", {"class_num": 10}, 97_897_802),  # the ViT-pytorch README
        ("R50-ViT-B_16", {"class_num": 100}, 97_967_012),
        ("vit_tiny_r_s16_p8_224", {}, 6_337_704),  # timm
    ],
)
def test_counts_equal_the_published_ones(name: str, args: dict, count: int):
    assert num_parameters(name, **args) == count


@pytest.mark.parametrize(
    ("name", "grid"),
    [
        ("R50_ViT_base_patch16_224", 14), ("R50_ViT_base_patch16_384", 24),
        ("R26_ViT_small_patch32_224", 7), ("R26_ViT_small_patch32_384", 12),
        ("R50_ViT_large_patch32_384", 12), ("R_ViT_tiny_patch16_224", 7),
    ],
)
def test_grid_of_tokens(name: str, grid: int):
    from passl.layers.init import no_init

    with paddle.LazyGuard(), no_init():
        model = create_model(name, depth=1)
    assert model.grid_size == (grid, grid)
    assert model.num_prefix_tokens == 1


def test_google_drops_in_its_r50_models_and_timm_does_not():
    for name, rate in (("R50+ViT-B_16", 0.1), ("R50+ViT-L_32", 0.1), ("R26+ViT-S_32", 0.0),
                       ("vit_base_r50_s16_224", 0.0)):
        assert model_spec(name).param("drop_rate").default == rate, name


@pytest.mark.parametrize("size", [[32, 32], [30, 37], [33, 64]])
def test_any_image_fits_patches_of_one_cell(size: list[int]):
    model = HybridVisionTransformer(**{**SMALL, "img_size": size})
    rows, columns = model.grid_size
    assert model.pos_embed.shape == [1, 1 + rows * columns, 24]
    assert model(paddle.zeros([2, 3, *size])).shape == [2, 5]


def test_another_image_than_it_was_built_for_is_refused():
    model = HybridVisionTransformer(**SMALL)
    with pytest.raises(InputShapeError, match="the images are 40x32 pixels"):
        model(paddle.zeros([1, 3, 40, 32]))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"backbone_layers": (), "patch_size": 3},
         "img_size 32x32 gives a feature map of 8x8, which is not a whole number of patches of 3; "
         "make both sides multiples of 12"),
        ({"backbone_width": 40},
         "backbone_width 40 cannot be normalised in 32 groups; the nearest width that can: 32"),
    ],
)
def test_sizes_that_contradict_are_refused(argument: dict, message: str):
    with pytest.raises(ModelArgumentError) as error:
        HybridVisionTransformer(**{**SMALL, **argument})
    assert str(error.value) == message


@pytest.mark.parametrize("scheme", ["google", "timm", "passl"])
def test_a_backbone_starts_as_its_shortcuts(scheme: str):
    model = create_model("HybridVisionTransformer", init_scheme=scheme, **SMALL)
    weights = {name: value.numpy() for name, value in model.named_parameters()}
    backbone = "patch_embed.backbone.stages.1.blocks.0"
    assert not weights[f"{backbone}.norm3.weight"].any()
    assert (weights[f"{backbone}.norm2.weight"] == 1).all()
    kernel = weights[f"{backbone}.conv2.weight"]  # 64 to 64 channels, 3x3
    std = {"google": (1 / 576) ** 0.5, "timm": (2 / 576) ** 0.5, "passl": (2 / 576) ** 0.5}[scheme]
    assert kernel.std() == pytest.approx(std, rel=0.03)


def test_a_branch_that_starts_at_zero_learns():
    """Its last weights are 0, and so is what Paddle's kernel for CPUs gives as their gradient."""
    channels, rng = 128, np.random.default_rng(0)
    norm = Bottleneck(channels, 32, 1, "google").norm3
    norm.weight.set_value(np.zeros(channels, np.float32))
    x, upstream = rng.standard_normal((2, 2, channels, 3, 5)).astype("float32")
    (norm(paddle.to_tensor(x)) * paddle.to_tensor(upstream)).sum().backward()
    groups = x.reshape(2, 32, -1).astype("float64")
    normal = (groups - groups.mean(-1, keepdims=True)) / groups.std(-1, keepdims=True)
    expected = (normal.reshape(x.shape) * upstream).sum(axis=(0, 2, 3))
    np.testing.assert_allclose(norm.weight.grad.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_a_hybrid_exports_with_an_open_batch():
    model = create_model("HybridVisionTransformer", init_scheme="timm", **SMALL)
    model.eval()
    spec = paddle.static.InputSpec([None, 3, 32, 32], "float32")
    static = paddle.jit.to_static(model, input_spec=[spec], full_graph=True)
    x = paddle.randn([3, 3, 32, 32])
    expected = HybridVisionTransformer.forward(model, x).numpy()
    np.testing.assert_allclose(static(x).numpy(), expected, rtol=1e-4, atol=1e-5)

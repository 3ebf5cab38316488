"""The vision transformer against timm's numbers, its initialisation, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from passl.layers.errors import InputShapeError, ModelArgumentError
from passl.layers.init import init_seed
from passl.layers.linear import cpu_kernels
from passl.models import create_model
from passl.models.vision_transformer import VisionTransformer

GOLDEN = Path(__file__).parents[2] / "golden" / "vit.npz"
SMALL = {
    "img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4, "class_num": 10,
    "qkv_bias": True, "epsilon": 1e-6,
}


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture
def loaded(golden: dict[str, np.ndarray]) -> VisionTransformer:
    model = VisionTransformer(**SMALL)
    named = dict(model.named_parameters())
    assert set(named) == {key[6:] for key in golden if key.startswith("param/")}
    for name, parameter in named.items():
        parameter.set_value(_paddle_layout(golden[f"param/{name}"]))
    return model


def _paddle_layout(array: np.ndarray) -> np.ndarray:
    """Linear weights are [out, in] in the reference."""
    return array.T if array.ndim == 2 else array


def _relative(found: paddle.Tensor, expected: np.ndarray) -> float:
    """Largest deviation over the largest value."""
    assert tuple(found.shape) == expected.shape
    return float(np.abs(found.numpy() - expected).max() / np.abs(expected).max())


# -- the reference ---------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("ours", [True, False], ids=["cpu_kernels", "paddle_kernels"])
@pytest.mark.parametrize("strided", [True, False], ids=["strided", "copies"])
def test_features_logits_loss_and_gradients_equal_the_reference(
    golden, loaded, training: bool, ours: bool, strided: bool
):
    loaded.train() if training else loaded.eval()
    before = paddle.get_flags("FLAGS_use_stride_kernel")
    paddle.set_flags({"FLAGS_use_stride_kernel": strided})
    try:
        with cpu_kernels(ours):
            features = loaded.forward_features(paddle.to_tensor(golden["x"]))
            logits = loaded.forward_head(features)
            smoothed = 0.9 * F.one_hot(paddle.to_tensor(golden["y"]), 10) + 0.1 / 10
            loss = -(smoothed * F.log_softmax(logits)).sum(axis=-1).mean()
            loss.backward()
    finally:
        paddle.set_flags(before)
    assert _relative(features, golden["features"]) < 1e-5
    assert _relative(logits, golden["logits"]) < 1e-5
    assert loss.item() == pytest.approx(float(golden["loss"]), rel=1e-5)
    for name, parameter in loaded.named_parameters():
        expected = _paddle_layout(golden[f"grad/{name}"])
        assert _relative(parameter.grad, expected) < 1e-5, name


def test_forward_is_features_then_head(loaded):
    x = paddle.randn([2, 3, 32, 32])
    both = loaded.forward_head(loaded.forward_features(x))
    assert np.array_equal(loaded(x).numpy(), both.numpy())


# -- shapes ----------------------------------------------------------------------------------------


def test_rectangular_images():
    model = VisionTransformer(**{**SMALL, "img_size": [16, 40]})
    assert model.grid_size == (2, 5)
    assert model.pos_embed.shape == [1, 11, 48]
    assert model(paddle.zeros([2, 3, 16, 40])).shape == [2, 10]
    with pytest.raises(InputShapeError, match=r"the images are 40x16 pixels .* built for 16x40"):
        model(paddle.zeros([2, 3, 40, 16]))


@pytest.mark.parametrize(("representation_size", "features"), [(None, 48), (20, 20)])
def test_no_classes_means_features(representation_size: int | None, features: int):
    model = VisionTransformer(
        **{**SMALL, "class_num": 0, "representation_size": representation_size}
    )
    assert model.num_features == features
    assert model(paddle.zeros([2, 3, 32, 32])).shape == [2, features]
    assert not any(name.startswith("head.") for name, _ in model.named_parameters())


def test_representation_layer_is_a_tanh_between_token_and_head():
    model = VisionTransformer(**SMALL, representation_size=20)
    tokens = paddle.randn([2, 17, 48])
    fc, head = model.pre_logits.fc, model.head
    hidden = np.tanh(tokens.numpy()[:, 0] @ fc.weight.numpy() + fc.bias.numpy())
    expected = hidden @ head.weight.numpy() + head.bias.numpy()
    np.testing.assert_allclose(model.forward_head(tokens).numpy(), expected, rtol=1e-5)


def test_grey_images():
    model = VisionTransformer(**{**SMALL, "in_chans": 1})
    assert model(paddle.zeros([2, 1, 32, 32])).shape == [2, 10]


def test_exports_with_an_open_batch():
    model = VisionTransformer(**SMALL)
    model.eval()
    spec = paddle.static.InputSpec([None, 3, 32, 32], "float32")
    static = paddle.jit.to_static(model, input_spec=[spec], full_graph=True)
    x = paddle.randn([3, 3, 32, 32])
    found = static(x).numpy()
    expected = VisionTransformer.forward(model, x).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# -- what names and sizes say ----------------------------------------------------------------------


def test_layer_ids_follow_depth():
    model = VisionTransformer(**SMALL, representation_size=20)
    ids = model.layer_ids()
    assert set(ids) == {name for name, _ in model.named_parameters()}
    assert {ids[name] for name in ("cls_token", "pos_embed", "patch_embed.proj.bias")} == {0}
    assert ids["blocks.0.attn.qkv.weight"] == 1
    assert ids["blocks.1.mlp.fc2.bias"] == 2
    assert ids["norm.weight"] == 2
    assert {ids[name] for name in ("pre_logits.fc.weight", "head.bias")} == {3}


@pytest.mark.parametrize(
    ("options", "spared"),
    [
        ({}, {"cls_token", "pos_embed"}),
        ({"reg_tokens": 2}, {"cls_token", "reg_token", "pos_embed"}),
        ({"class_token": False, "global_pool": "avg"}, {"pos_embed"}),
    ],
)
def test_no_weight_decay_names_are_parameters(options: dict, spared: set[str]):
    model = VisionTransformer(**SMALL, **options)
    assert model.no_weight_decay() == spared
    assert spared <= {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"img_size": 30}, "img_size 30x30 is not a whole number of patches of 8 pixels; the "
                           "nearest size that is: img_size=32"),
        ({"num_heads": 5}, "embed_dim 48 cannot be shared by 5 heads; num_heads must divide it, "
                           "for example 4 or 6"),
        ({"mlp_ratio": 0.01}, "mlp_ratio 0.01 of embed_dim 48 leaves the perceptron no hidden "
                              "channel; mlp_ratio must be at least 0.0208333"),
        ({"class_token": False}, "class_token: false leaves no class token to classify; add "
                                 "global_pool: avg"),
        ({"act": "relu"}, "act 'relu' is no activation of the perceptron; gelu, gelu_tanh or "
                          "quick_gelu"),
    ],
)
def test_sizes_that_contradict_are_refused(argument: dict, message: str):
    with pytest.raises(ModelArgumentError) as error:
        VisionTransformer(**{**SMALL, **argument})
    assert str(error.value) == message
    assert error.value.exit_code == 2


# -- weights by seed -------------------------------------------------------------------------------


def _weights(seed: int, **args) -> dict[str, np.ndarray]:
    model = create_model("VisionTransformer", seed=seed, **{**SMALL, **args})
    return {name: value.numpy() for name, value in model.named_parameters()}


def test_same_seed_same_weights_whatever_paddle_drew_before():
    first = _weights(5)
    paddle.seed(99)
    paddle.rand([10])
    again = _weights(5)
    other = _weights(6)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["blocks.0.attn.qkv.weight"], other["blocks.0.attn.qkv.weight"])


def test_building_a_model_leaves_paddles_generator_alone():
    paddle.seed(1)
    expected = paddle.rand([3]).numpy()
    paddle.seed(1)
    _weights(5)
    assert np.array_equal(paddle.rand([3]).numpy(), expected)


def test_other_class_count_or_depth_leaves_shared_weights_as_they_were():
    first, other = _weights(5), _weights(5, class_num=3, depth=3)
    for name in set(first) - {"head.weight", "head.bias"}:
        assert np.array_equal(first[name], other[name]), name


WIDE = {"embed_dim": 192, "num_heads": 3, "depth": 1}
REPRESENTED = {**WIDE, "representation_size": 192}


def _std(values: np.ndarray) -> float:
    return float(values.std())


def test_passl_scheme():
    weights = _weights(0, **REPRESENTED)
    assert _std(weights["patch_embed.proj.weight"]) == pytest.approx((2 / 192) ** 0.5, rel=0.03)
    assert _std(weights["pos_embed"]) == pytest.approx(0.02, rel=0.05)
    assert not weights["cls_token"].any()
    # one matrix [192, 576] for query, key and value together
    bound = (6 / (4 * 192)) ** 0.5
    assert np.abs(weights["blocks.0.attn.qkv.weight"]).max() == pytest.approx(bound, rel=0.01)
    assert np.abs(weights["blocks.0.attn.proj.weight"]).max() == pytest.approx(
        (6 / (2 * 192)) ** 0.5, rel=0.01
    )
    assert not weights["blocks.0.attn.qkv.bias"].any()
    assert _std(weights["blocks.0.mlp.fc1.bias"]) == pytest.approx(1e-6, rel=0.15)
    assert (weights["blocks.0.norm1.weight"] == 1).all()
    assert not weights["norm.bias"].any()
    assert weights["head.weight"].any()
    assert (weights["head.bias"] == -10).all()
    assert weights["pre_logits.fc.weight"].any()


def test_passl_scheme_without_representation_starts_with_a_zero_head():
    weights = _weights(0)
    assert not weights["head.weight"].any()
    assert not weights["head.bias"].any()


def test_google_scheme():
    weights = _weights(0, init_scheme="google", **REPRESENTED)
    qkv = np.abs(weights["blocks.0.attn.qkv.weight"]).max()
    assert qkv == pytest.approx((6 / (2 * 192)) ** 0.5, rel=0.01)  # each for itself
    assert _std(weights["patch_embed.proj.weight"]) == pytest.approx((1 / 192) ** 0.5, rel=0.03)
    assert not weights["head.weight"].any()
    assert not weights["head.bias"].any()


def test_timm_scheme():
    weights = _weights(0, init_scheme="timm", **REPRESENTED)
    for name in ("pos_embed", "blocks.0.attn.qkv.weight", "blocks.0.mlp.fc2.weight",
                 "pre_logits.fc.weight", "head.weight"):
        assert _std(weights[name]) == pytest.approx(0.02, rel=0.05), name
        assert np.abs(weights[name]).max() > 0.04, name  # timm's cut is at 2, not at two deviations
    assert 0 < np.abs(weights["cls_token"]).max() < 1e-5
    assert not weights["blocks.0.mlp.fc1.bias"].any()
    patch = np.abs(weights["patch_embed.proj.weight"]).max()
    assert patch == pytest.approx(192**-0.5, rel=0.01)
    assert weights["patch_embed.proj.bias"].any()


@pytest.mark.parametrize("scheme", ["passl", "google", "timm"])
def test_what_only_timm_has_starts_as_in_timm(scheme: str):
    weights = _weights(
        0, init_scheme=scheme, reg_tokens=4, init_values=0.3, qk_norm=True, pre_norm=True,
        global_pool="avg",
    )
    assert (weights["blocks.1.ls2.gamma"] == np.float32(0.3)).all()
    for name in ("norm_pre", "fc_norm", "blocks.0.attn.q_norm", "blocks.0.attn.k_norm"):
        assert (weights[f"{name}.weight"] == 1).all(), name
        assert not weights[f"{name}.bias"].any(), name
    assert np.abs(weights["reg_token"]).max() < 1e-5
    assert weights["reg_token"].any() == (scheme == "timm")


@pytest.mark.parametrize("scheme", ["passl", "google", "timm"])
def test_head_bias_can_be_given(scheme: str):
    weights = _weights(0, init_scheme=scheme, head_bias_init=-6.9, **REPRESENTED)
    assert (weights["head.bias"] == np.float32(-6.9)).all()


def test_every_value_is_finite_and_a_step_learns():
    with init_seed(0):
        model = VisionTransformer(**SMALL)
    paddle.seed(0)
    x, y = paddle.randn([8, 3, 32, 32]), paddle.arange(8)
    optimizer = paddle.optimizer.SGD(0.05, parameters=model.parameters())
    losses = []
    for _ in range(20):
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(np.log(10), rel=1e-5)  # the head starts at zero
    assert losses[-1] < 0.5 * losses[0]


# -- dropout ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("argument", ["drop_rate", "attn_drop_rate", "drop_path_rate"])
def test_each_kind_of_dropout_is_random_in_training_only(argument: str):
    model = create_model("VisionTransformer", init_scheme="timm", **SMALL, **{argument: 0.5})
    x = paddle.randn([4, 3, 32, 32])

    def features(seed: int) -> np.ndarray:
        paddle.seed(seed)
        return model.forward_features(x).numpy()

    model.train()
    assert np.array_equal(features(1), features(1))
    assert not np.array_equal(features(1), features(2))
    model.eval()
    assert np.array_equal(features(1), features(2))


def test_drop_path_rates_reach_the_blocks():
    model = VisionTransformer(**{**SMALL, "depth": 4}, drop_path_rate=0.3)
    rates = [block.drop_path.rate for block in model.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])

"""DeiT's second token against timm's numbers, and what a distilled model is without a teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from passl.layers.init import init_seed
from passl.models import create_model, model_spec
from passl.models.deit import DistilledVisionTransformer
from passl.models.summary import num_parameters

GOLDEN = Path(__file__).parents[2] / "golden" / "deit_distilled.npz"
SMALL = {
    "img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4, "class_num": 10,
}


@pytest.fixture
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture
def loaded(golden: dict[str, np.ndarray]) -> DistilledVisionTransformer:
    model = DistilledVisionTransformer(**SMALL)
    named = dict(model.named_parameters())
    assert set(named) == {key[6:] for key in golden if key.startswith("param/")}
    for name, parameter in named.items():
        value = golden[f"param/{name}"]
        parameter.set_value(value.T if value.ndim == 2 else value)
    return model


def _relative(found: paddle.Tensor, expected: np.ndarray) -> float:
    return float(np.abs(found.numpy() - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("training", [True, False])
def test_logits_equal_the_reference(golden, loaded, training: bool):
    loaded.train() if training else loaded.eval()
    x = paddle.to_tensor(golden["x"])
    logits, logits_dist = loaded.forward_distilled(x)
    assert _relative(logits, golden["logits_cls"]) < 1e-5
    assert _relative(logits_dist, golden["logits_dist"]) < 1e-5
    assert _relative(loaded(x), golden["logits_eval"]) < 1e-5


def test_without_a_teacher_both_heads_learn_from_the_labels():
    with init_seed(0):
        model = DistilledVisionTransformer(**SMALL)
    paddle.seed(0)
    x, y = paddle.randn([8, 3, 32, 32]), paddle.arange(8)
    optimizer = paddle.optimizer.AdamW(1e-3, parameters=model.parameters())
    losses = []
    for _ in range(30):
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        assert model.head.weight.grad.abs().sum() > 0
        assert model.head_dist.weight.grad.abs().sum() > 0
        optimizer.step()
        optimizer.clear_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_tokens_and_heads_have_their_names():
    model = DistilledVisionTransformer(**SMALL)
    assert model.num_prefix_tokens == 2
    assert model.pos_embed.shape == [1, 2 + 16, 48]
    assert model.head_prefixes == ("head.", "head_dist.")
    assert model.no_weight_decay() == {"cls_token", "dist_token", "pos_embed"}
    ids = model.layer_ids()
    assert (ids["dist_token"], ids["head_dist.weight"], ids["norm.bias"]) == (0, 3, 2)


def test_no_classes_means_the_mean_of_both_tokens():
    model = DistilledVisionTransformer(**{**SMALL, "class_num": 0})
    x = paddle.randn([2, 3, 32, 32])
    tokens = model.forward_features(x).numpy()
    np.testing.assert_allclose(model(x).numpy(), tokens[:, :2].mean(axis=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scheme", ["passl", "google", "timm"])
def test_the_second_token_starts_as_deit_starts_it(scheme: str):
    model = create_model(
        "DeiT_tiny_distilled_patch16_224", init_scheme=scheme, depth=1, img_size=32
    )
    token = model.dist_token.numpy()
    assert token.std() == pytest.approx(0.02, rel=0.15)
    assert 0.04 < np.abs(token).max() < 0.12  # of 192 normal numbers some pass two deviations
    heads = [model.head.weight.numpy(), model.head_dist.weight.numpy()]
    assert [bool(head.any()) for head in heads] == [scheme == "timm"] * 2


def test_both_heads_start_with_the_bias_that_is_asked_for():
    model = DistilledVisionTransformer(**SMALL, head_bias_init=-3.0)
    assert (model.head.bias.numpy() == -3).all()
    assert (model.head_dist.bias.numpy() == -3).all()


@pytest.mark.parametrize(
    ("name", "count"),
    [  # counted in DeiT's own code
        ("DeiT_base_patch16_224", 86_567_656),
        ("DeiT_tiny_distilled_patch16_224", 5_910_800),
        ("DeiT_small_distilled_patch16_224", 22_436_432),
        ("DeiT_base_distilled_patch16_224", 87_338_192),
        ("DeiT_base_distilled_patch16_384", 87_630_032),
    ],
)
def test_counts_equal_deits(name: str, count: int):
    assert num_parameters(name) == count


def test_deit3_scales_its_branches_and_gives_the_class_token_no_position():
    spec = model_spec("deit3_small_patch16_224")
    assert spec is model_spec("DeiT3_small_patch16_224")
    model = create_model("deit3_small_patch16_224", depth=1, img_size=32, class_num=3)
    assert (model.blocks[0].ls1.gamma.numpy() == np.float32(1e-6)).all()
    assert model.pos_embed.shape == [1, 4, 384]
    assert model(paddle.zeros([1, 3, 32, 32])).shape == [1, 3]

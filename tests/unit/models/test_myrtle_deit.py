"""myrtle's distilled transformer: where its second token is, and who sees it."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from passl.models import create_model
from passl.models.summary import num_parameters

SMALL = {
    "img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 3, "class_num": 5,
}


@pytest.fixture
def model():
    return create_model("MyrtleDistilledVisionTransformer", **SMALL)


@pytest.fixture
def images():
    return paddle.to_tensor(np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype("float32"))


def test_parameters_are_myrtles_and_the_wrappers():
    plain = {"embed_dim": 192, "num_heads": 3, "class_num": 45}
    # Counted in myrtle's own model: 45 classes, without a bias of query, key and value.
    assert num_parameters("VisionTransformer", **plain) == 5_526_189
    wrapper = 192 + 2 * 192 + 192 * 45 + 45
    assert num_parameters("Myrtle_DeiT_tiny_patch16_224") == 5_526_189 + wrapper


def test_formula_counts_what_is_built(model):
    built = sum(int(parameter.size) for parameter in model.parameters())
    assert num_parameters("MyrtleDistilledVisionTransformer", **SMALL) == built


def test_prediction_is_that_of_the_plain_transformer(model, images):
    plain = create_model("VisionTransformer", **SMALL)
    names = plain.state_dict().keys()
    assert set(model.state_dict()) - set(names) == {
        "dist_token", "head_dist.0.weight", "head_dist.0.bias", "head_dist.1.weight",
        "head_dist.1.bias",
    }
    plain.set_state_dict({name: model.state_dict()[name] for name in names})
    model.eval()
    plain.eval()
    np.testing.assert_array_equal(model(images).numpy(), plain(images).numpy())


def test_the_token_is_last_has_no_position_and_is_attended_to(model, images):
    model.eval()
    for block in model.blocks:  # at the start attention changes next to nothing
        block.attn.proj.weight.set_value(block.attn.proj.weight * 30.0)
        block.attn.qkv.weight.set_value(block.attn.qkv.weight * 30.0)
    tokens = model.embed(images)
    last = model.dist_token.expand([3, -1, -1])
    x = paddle.concat([tokens, last], axis=1)
    for block in model.blocks:
        x = block(x)
    logits, dist = model.forward_distilled(images)
    np.testing.assert_allclose(logits.numpy(), model.head(model.norm(x)[:, 0]).numpy(), atol=1e-5)
    np.testing.assert_allclose(dist.numpy(), model.head_dist(x[:, -1]).numpy(), atol=1e-5)
    assert np.abs(logits.numpy() - model(images).numpy()).max() > 1e-3


def test_every_parameter_learns(model, images):
    logits, dist = model.forward_distilled(images)
    ((logits**2).sum() + (dist**2).sum()).backward()
    untouched = [
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0
    ]
    assert untouched == []


def test_tokens_and_positions_begin_with_the_width_of_myrtles():
    model = create_model("Myrtle_DeiT_tiny_patch16_224", depth=1)
    for name in ("cls_token", "pos_embed", "dist_token"):
        assert getattr(model, name).numpy().std() == pytest.approx(1.0, abs=0.15), name

"""Attention as timm computes it, and as every kind of layer of ours used it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
from paddle import nn

from passl.checkpoint.pretrained import load_arrays
from passl.errors import ConfigError
from passl.layers.illama_attention import ILlamaAttention
from passl.models import create_model
from passl.models.deit import DistilledVisionTransformer
from passl.models.illama import ILlama
from passl.models.vision_transformer import VisionTransformer
from passl.models.vit_llama import ViTLlama
from passl.visualize import attention_sheet
from passl.visualize.attention import attention_layers, attention_of
from passl.visualize.attention_sheet import draw_attention, look
from passl.visualize.inputs import Picture
from passl.visualize.rollout import rollout, token_layout

GOLDEN = Path(__file__).parents[2] / "golden"
SMALL = {
    "img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4, "class_num": 10,
}


def _golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def _with_weights(model: nn.Layer, golden: dict[str, np.ndarray]) -> nn.Layer:
    weights = {key[6:]: value for key, value in golden.items() if key.startswith("param/")}
    linear = {key for key, value in weights.items() if value.ndim == 2}
    load_arrays(model, {k: v.T if k in linear else v for k, v in weights.items()}, "golden")
    model.eval()
    return model


def _collect(model: nn.Layer, x: np.ndarray) -> dict[str, np.ndarray]:
    with attention_of(model) as found, paddle.no_grad():
        model(paddle.to_tensor(x))
    return found


@pytest.mark.parametrize(
    ("name", "kind"), [("vit", VisionTransformer), ("deit_distilled", DistilledVisionTransformer)]
)
def test_attention_and_rollout_equal_timms(name, kind):
    options = {"qkv_bias": True, "epsilon": 1e-6} if name == "vit" else {}
    golden, expected = _golden(name), _golden("attention")
    found = _collect(_with_weights(kind(**SMALL, **options), golden), golden["x"][:2])
    assert list(found) == ["blocks.0.attn", "blocks.1.attn"]
    np.testing.assert_allclose(
        np.stack(list(found.values())), expected[f"{name}/attention"], atol=2e-6
    )
    for image in range(2):
        flows = rollout([layer[image] for layer in found.values()])
        np.testing.assert_allclose(flows, expected[f"{name}/rollout"][:, image], atol=1e-6)


def _models() -> dict[str, nn.Layer]:
    sizes = {"llama_dim": 64, "llama_hidden_dim": 96, "llama_num_heads": 4}
    models: dict[str, nn.Layer] = {
        "vit": VisionTransformer(**SMALL, qk_norm=True, qk_scale=0.7),
        "two groups": ViTLlama(**SMALL, **sizes, llama_num_kv_heads=2, llama_trainable=True),
        "soft mask": ILlama(**SMALL, soft_mask_rate=0.3),
    }
    models |= {
        mode: ILlama(**SMALL, attention=mode)
        for mode in ("released", "causal", "modified", "bidirectional")
    }
    rng = np.random.default_rng(5)
    for model in models.values():
        for parameter in model.parameters():  # frozen blocks start at zero
            parameter.set_value(rng.normal(0, 0.2, parameter.shape).astype(np.float32))
        model.eval()
    return models


@pytest.mark.parametrize("kind", list(_models()))
def test_probabilities_times_values_are_what_each_layer_gave(kind):
    model = _models()[kind]
    outputs: dict[str, paddle.Tensor] = {}
    inputs: dict[str, paddle.Tensor] = {}
    layers = {name: layer for name, (layer, _) in attention_layers(model).items()}

    def note(name: str):
        def hook(layer, given, output):
            inputs[name], outputs[name] = given[0], output

        return hook

    for name, layer in layers.items():
        layer.register_forward_post_hook(note(name))
    x = np.random.default_rng(0).normal(size=[2, 3, 32, 32]).astype(np.float32)
    for name, probs in _collect(model, x).items():
        expected = outputs[name].numpy()
        found = _mixed(layers[name], inputs[name], probs).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def _mixed(layer: nn.Layer, x_bnc: paddle.Tensor, probs: np.ndarray) -> paddle.Tensor:
    """The layer's output from given probabilities."""
    b, n, _ = x_bnc.shape
    if hasattr(layer, "wv"):
        v = layer.wv(x_bnc).reshape([b, n, layer.num_kv_heads, layer.head_dim])
        v, project = v.repeat_interleave(layer.group, axis=2), layer.wo
    else:
        v, project = layer.qkv(x_bnc).reshape([b, n, 3, layer.num_heads, -1])[:, :, 2], layer.proj
    mixed = paddle.matmul(paddle.to_tensor(probs), v.transpose([0, 2, 1, 3]))
    return project(mixed.transpose([0, 2, 1, 3]).reshape([b, n, -1]))


def test_the_released_mask_leaves_rows_below_one_and_the_rollouts_at_one():
    golden = _golden("illama")
    model = _with_weights(ILlama(**SMALL), golden)
    found = _collect(model, golden["x"][:1])
    sums = found["blocks.0.attn"][0].sum(axis=-1)
    assert (sums[:, :-1] < 1 - 1e-3).all()
    np.testing.assert_allclose(sums[:, -1], 1.0, atol=1e-6)  # the class token sees all
    assert (np.triu(found["blocks.1.attn"][0], k=1) == 0).all()
    flows = rollout([layer[0] for layer in found.values()])
    np.testing.assert_allclose(flows.sum(axis=-1), 1.0, atol=1e-12)
    assert token_layout(model).maps(flows).shape == (2, 4, 4)


def test_llamas_block_comes_after_the_blocks_of_the_vision_transformer():
    model = ViTLlama(**SMALL, llama_path=str(GOLDEN / "llama_7b_layout"))
    model.eval()
    found = _collect(model, np.zeros([1, 3, 32, 32], np.float32))
    assert list(found) == ["blocks.0.attn", "blocks.1.attn", "llama.layers.0.attention"]
    assert found["llama.layers.0.attention"].shape == (1, 4, 17, 17)
    np.testing.assert_allclose(found["llama.layers.0.attention"].sum(axis=-1), 1.0, atol=1e-5)


def test_the_rollout_passes_llamas_block_on_request(tmp_path):
    model = ViTLlama(**{**SMALL, "img_size": [16, 32]}, llama_path=str(GOLDEN / "llama_7b_layout"))
    model.eval()
    picture = Picture("x", "x.png", np.full([16, 32, 3], 90, np.uint8))
    chain = [lambda image, rng: image.astype(np.float32).transpose(2, 0, 1) / 255]
    without, beyond = (look(model, picture, chain, with_llama=way) for way in (False, True))
    assert [maps.rollout.shape for maps in (without, beyond)] == [(2, 2, 4), (3, 2, 4)]
    np.testing.assert_array_equal(beyond.rollout[:2], without.rollout)
    assert beyond.heads(-1).shape == (4, 2, 4)
    image = cv2.imread(str(draw_attention(beyond, tmp_path / "x.png", title="model")))
    assert image.std() > 10


def test_a_tall_picture_makes_a_sheet_of_usual_shape_and_keeps_its_own(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        attention_sheet, "save_figure", lambda figure, path: seen.append(figure) or path
    )
    model = create_model("VisionTransformer", **{**SMALL, "img_size": [80, 16]})
    model.eval()
    picture = Picture("x", "x.png", np.full([80, 16, 3], 90, np.uint8))
    chain = [lambda image, rng: image.astype(np.float32).transpose(2, 0, 1) / 255]
    draw_attention(look(model, picture, chain), tmp_path / "x.png", title="model")
    (figure,) = seen
    figure.draw_without_rendering()
    width, height = figure.get_size_inches()
    assert height < 1.2 * width
    shown = [axes.get_window_extent() for axes in figure.axes if axes.images]
    assert len(shown) == 3 + 2 + 5  # pictures, layers, the mean of the heads and the heads
    for box in shown:
        assert box.height / box.width == pytest.approx(5, rel=0.02)
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
        assert 0 <= box.y0 < box.y1 <= figure.bbox.height


def test_the_forward_pass_is_the_same_bit_for_bit_and_hooks_are_gone_afterwards():
    model = create_model("VisionTransformer", **SMALL, attn_drop_rate=0.5)
    model.eval()
    x = paddle.to_tensor(np.random.default_rng(1).normal(size=[2, 3, 32, 32]).astype(np.float32))
    before = model(x).numpy()
    with attention_of(model) as found:
        during = model(x).numpy()
        kept = {name: probs.copy() for name, probs in found.items()}
        model(x * 2)
    np.testing.assert_array_equal(before, during)
    assert any((found[name] != kept[name]).any() for name in kept)  # the last pass stays
    found.clear()
    model(x)
    assert found == {}
    np.testing.assert_allclose(kept["blocks.0.attn"].sum(axis=-1), 1.0, atol=1e-6)


def test_a_layer_of_ones_own_takes_part_by_a_method():
    class Uniform(nn.Layer):
        def forward(self, x_bnc):
            return x_bnc

        def attention_probabilities(self, x_bnc):
            return paddle.full([x_bnc.shape[0], 1, x_bnc.shape[1], x_bnc.shape[1]], 0.5)

    found = _collect(nn.Sequential(Uniform()), np.zeros([1, 2, 3], np.float32))
    np.testing.assert_array_equal(found["0"], np.full([1, 1, 2, 2], 0.5))


def test_a_model_without_attention_is_refused():
    with (
        pytest.raises(ConfigError, match="attention_probabilities"),
        attention_of(nn.Sequential(nn.Linear(2, 2))),
    ):
        pass


def test_every_attention_layer_of_illama_is_known():
    model = create_model("iLLaMA_tiny_patch16_224", **SMALL)
    ours = [layer for layer in model.sublayers() if isinstance(layer, ILlamaAttention)]
    assert [layer for layer, _ in attention_layers(model).values()] == ours

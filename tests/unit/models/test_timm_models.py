"""Every option and every name that is shared with timm, against timm's numbers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddle import nn

from passl.layers.init import no_init
from passl.models import create_model, model_spec
from passl.models.deit import DistilledVisionTransformer
from passl.models.hybrid import HybridVisionTransformer
from passl.models.summary import num_parameters
from passl.models.vision_transformer import VisionTransformer

GOLDEN = Path(__file__).parents[2] / "golden"
NAMES: dict[str, Any] = json.loads((GOLDEN / "timm_names.json").read_text(encoding="utf-8"))
SIZES = {
    "embed_dim": 24, "depth": 2, "num_heads": 3, "class_num": 5, "mlp_ratio": 2.0,
    "qkv_bias": True, "epsilon": 1e-6,
}
PLAIN = {**SIZES, "img_size": 16, "patch_size": 4}
HYBRID = {**SIZES, "img_size": 36, "backbone_layers": (1, 1), "backbone_width": 32}
# The cases of make_timm_options.py, in our words.
BUILDERS = {
    "avg": lambda: VisionTransformer(**PLAIN, global_pool="avg"),
    "avg_no_class_token": lambda: VisionTransformer(
        **PLAIN, global_pool="avg", fc_norm=False, class_token=False
    ),
    "registers": lambda: VisionTransformer(
        **PLAIN, reg_tokens=3, no_embed_class=True, init_values=0.1
    ),
    "registers_with_positions": lambda: VisionTransformer(
        **{**PLAIN, "qkv_bias": False}, reg_tokens=2
    ),
    "tanh_qk_norm": lambda: VisionTransformer(**PLAIN, act="gelu_tanh", qk_norm=True),
    "quick_gelu": lambda: VisionTransformer(**PLAIN, act="quick_gelu"),
    "pre_norm": lambda: VisionTransformer(**{**PLAIN, "epsilon": 1e-5}, pre_norm=True),
    "distilled": lambda: DistilledVisionTransformer(**PLAIN),
    "hybrid_timm": lambda: HybridVisionTransformer(**HYBRID, hybrid_style="timm"),
    "hybrid_google": lambda: HybridVisionTransformer(**HYBRID),
}


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "timm_options.npz") as file:
        return dict(file)


def filled(golden: dict[str, np.ndarray], case: str) -> nn.Layer:
    """Our model of a case with timm's weights, which must be all of them."""
    prefix = f"{case.partition('_')[0] if case.startswith('hybrid') else case}/param/"
    weights = {key[len(prefix):]: golden[key] for key in golden if key.startswith(prefix)}
    with no_init():
        model = BUILDERS[case]()
    parameters = dict(model.named_parameters())
    assert set(parameters) == set(weights)
    for name, parameter in parameters.items():
        value = in_paddles_layout(weights[name])
        assert tuple(parameter.shape) == value.shape, name
        parameter.set_value(value)
    return model


def in_paddles_layout(array: np.ndarray) -> np.ndarray:
    """Linear weights are [out, in] in torch."""
    return array.T if array.ndim == 2 else array


def relative(found: paddle.Tensor, expected: np.ndarray) -> float:
    """Largest deviation over the largest value."""
    assert tuple(found.shape) == expected.shape
    return float(np.abs(found.numpy() - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("case", list(BUILDERS))
def test_features_logits_and_gradients_equal_timms(golden, case: str, training: bool):
    model = filled(golden, case)
    model.train() if training else model.eval()
    features = model.forward_features(paddle.to_tensor(golden[f"{case}/x"]))
    logits = model.forward_head(features)
    loss = F.cross_entropy(logits, paddle.to_tensor(golden[f"{case}/y"]))
    loss.backward()
    assert relative(features, golden[f"{case}/features"]) < 1e-5
    assert relative(logits, golden[f"{case}/logits"]) < 1e-5
    assert loss.item() == pytest.approx(float(golden[f"{case}/loss"]), rel=1e-5)
    kept = [key for key in golden if key.startswith(f"{case}/grad/")]
    assert len(kept) > 5
    parameters = dict(model.named_parameters())
    for key in kept:
        name = key.split("/grad/")[1]
        expected = in_paddles_layout(golden[key])
        error = np.abs(parameters[name].grad.numpy() - expected).max()
        # a bias of all keys changes no attention: its gradient is rounding
        assert error < 1e-5 * np.abs(expected).max() + 1e-7, name


def test_the_styles_of_a_hybrid_differ_by_no_more_than_their_epsilons(golden):
    """What a checkpoint made by the one loses when it is run as the other."""
    x = paddle.to_tensor(golden["hybrid_timm/x"])
    logits = filled(golden, "hybrid_google")(x)
    difference = relative(logits, golden["hybrid_timm/logits"])
    assert 1e-6 < difference < 1e-2


def test_both_logits_of_a_distilled_model_equal_timms(golden):
    model = filled(golden, "distilled")
    logits, logits_dist = model.forward_distilled(paddle.to_tensor(golden["distilled/x"]))
    assert relative(logits, golden["distilled/logits_cls"]) < 1e-5
    assert relative(logits_dist, golden["distilled/logits_dist"]) < 1e-5


@pytest.mark.parametrize("case", sorted(NAMES["layer_ids"]))
def test_layers_are_counted_as_timm_counts_them(case: str):
    with no_init():
        model = BUILDERS["hybrid_google" if case == "hybrid" else case]()
    assert model.layer_ids() == NAMES["layer_ids"][case]


@pytest.mark.parametrize("name", sorted(NAMES["names"]))
def test_a_name_of_timms_is_made_of_what_timms_model_is_made_of(name: str):
    expected = NAMES["names"][name]
    with paddle.LazyGuard(), no_init():
        model = create_model(name, class_num=1000, depth=1)
    lines = []
    for key, parameter in model.named_parameters():
        shape = [int(size) for size in parameter.shape]
        line = f"{key} {'x'.join(map(str, shape[::-1] if len(shape) == 2 else shape))}"
        # one block is built, and stands for all: they are built alike
        copies = model_spec(name).param("depth").default if key.startswith("blocks.0.") else 1
        lines += [line.replace("blocks.0.", f"blocks.{index}.") for index in range(copies)]
    digest = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
    assert digest == expected["sha256"]
    assert num_parameters(name, class_num=1000) == expected["parameters"]
    assert model.blocks[0].norm1._epsilon == expected["epsilon"]
    assert list(model.patch_embed.img_size) == expected["img_size"]
    assert model.global_pool == expected["pool"]

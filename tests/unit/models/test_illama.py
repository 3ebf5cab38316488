"""iLLaMA against numbers of the authors' own code, its masks, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from passl.checkpoint.pretrained import load_arrays
from passl.layers.errors import ModelArgumentError
from passl.layers.init import no_init
from passl.models import create_model, list_models, model_spec
from passl.models.illama import ILlama
from passl.models.summary import macs, num_parameters

GOLDEN = Path(__file__).parents[2] / "golden" / "illama.npz"
SMALL = {
    "img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4, "class_num": 10,
}


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture
def loaded(golden: dict[str, np.ndarray]) -> ILlama:
    return _with_weights(golden)


def _with_weights(golden: dict[str, np.ndarray], **arguments) -> ILlama:
    model = ILlama(**{**SMALL, **arguments})
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


@pytest.mark.parametrize("rate", [0.0, 0.37, 1.0])
@pytest.mark.parametrize("gradients", [True, False])
def test_logits_and_loss_equal_the_reference(golden, loaded, rate: float, gradients: bool):
    loaded.eval()
    loaded.set_soft_mask_rate(rate)
    with paddle.set_grad_enabled(gradients):
        logits = loaded(paddle.to_tensor(golden["x"]))
        loss = F.cross_entropy(logits, paddle.to_tensor(golden["y"]))
    assert _relative(logits, golden[f"logits/{rate}"]) < 1e-5
    assert loss.item() == pytest.approx(float(golden[f"loss/{rate}"]), rel=1e-5)


@pytest.mark.parametrize(("rate", "key"), [(0.0, "grad"), (0.37, "grad_soft_0.37")])
@pytest.mark.parametrize("strided", [True, False], ids=["strided", "copies"])
def test_every_gradient_equals_the_reference(golden, loaded, rate: float, key: str, strided: bool):
    before = paddle.get_flags("FLAGS_use_stride_kernel")
    paddle.set_flags({"FLAGS_use_stride_kernel": strided})
    try:
        loaded.set_soft_mask_rate(rate)
        logits = loaded(paddle.to_tensor(golden["x"]))
        F.cross_entropy(logits, paddle.to_tensor(golden["y"])).backward()
    finally:
        paddle.set_flags(before)
    for name, parameter in loaded.named_parameters():
        expected = _paddle_layout(golden[f"{key}/{name}"])
        assert _relative(parameter.grad, expected) < 1e-5, name


def test_the_constructors_rate_is_the_one_in_force(golden):
    model = _with_weights(golden, soft_mask_rate=0.37)
    assert model.soft_mask_rate == 0.37
    assert _relative(model(paddle.to_tensor(golden["x"])), golden["logits/0.37"]) < 1e-5
    assert model.evaluation_settings() == {"soft_mask_rate": 0.37}


# -- names and sizes -------------------------------------------------------------------------------


def test_names_of_the_state_dict():
    names = set(create_model("illama_tiny", img_size=32).state_dict())
    assert len(names) == 115
    block = {
        f"blocks.3.{part}"
        for part in (
            "norm1.weight", "attn.qkv.weight", "attn.qkv.bias", "attn.proj.weight",
            "attn.proj.bias", "norm2.weight", "mlp.fc1.weight", "mlp.fc2.weight", "mlp.fc3.weight",
        )
    }
    assert {name for name in names if name.startswith("blocks.3.")} == block
    assert {name for name in names if not name.startswith("blocks.")} == {
        "cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias",
        "norm.weight", "head.weight", "head.bias",
    }


# parameters at 224, at 384, with the 10450 classes of ImageNet-21K-P; MACs at 224 and at 384
PUBLISHED = [
    ("tiny", 5_701_096, 5_774_056, 7_524_946, 1_253_683_200, None),
    ("small", 22_018_024, 22_163_944, 25_656_274, 4_598_882_304, None),
    ("base", 86_502_376, 86_794_216, 93_769_426, 17_563_828_224, 55_484_350_464),
    ("large", 310_445_032, 310_834_152, 320_131_282, 62_794_129_408, 194_696_470_528),
]


@pytest.mark.parametrize(("size", "at_224", "at_384", "at_21k", "macs_224", "macs_384"), PUBLISHED)
def test_parameters_and_macs_equal_the_published_ones(
    size, at_224, at_384, at_21k, macs_224, macs_384
):
    name = f"iLLaMA_{size}_patch16_224"
    assert num_parameters(name) == at_224
    assert num_parameters(f"iLLaMA_{size}_patch16_384") == at_384
    assert num_parameters(name, class_num=10450) == at_21k
    assert macs(name) == macs_224
    if macs_384 is not None:
        assert macs(f"iLLaMA_{size}_patch16_384") == macs_384


@pytest.mark.parametrize("name", list_models("illama*"))
def test_formula_counts_what_the_constructor_makes(name: str):
    with paddle.LazyGuard(), no_init():
        model = create_model(name)
    made = sum(int(np.prod(parameter.shape)) for parameter in model.parameters())
    assert made == num_parameters(name)


def test_names_of_the_original_repository_are_aliases():
    for size in ("tiny", "small", "base", "large"):
        assert model_spec(f"illama_{size}").name == f"iLLaMA_{size}_patch16_224"


def test_what_others_ask_of_a_model():
    model = ILlama(**SMALL)
    assert (model.num_prefix_tokens, model.num_suffix_tokens) == (0, 1)
    assert model.grid_size == (4, 4)
    assert model.no_weight_decay() == {"cls_token", "pos_embed"}
    ids = model.layer_ids()
    assert set(ids) == {name for name, _ in model.named_parameters()}
    assert {ids[name] for name in ("cls_token", "pos_embed", "patch_embed.proj.bias")} == {0}
    assert (ids["blocks.0.attn.qkv.weight"], ids["blocks.1.mlp.fc3.weight"]) == (1, 2)
    assert (ids["norm.weight"], ids["head.bias"]) == (2, 3)


def test_no_classes_means_features_of_the_last_token():
    model = ILlama(**{**SMALL, "class_num": 0})
    x = paddle.randn([2, 3, 32, 32])
    assert np.array_equal(model(x).numpy(), model.forward_features(x)[:, -1].numpy())


# -- masks -----------------------------------------------------------------------------------------


def _sees(mode: str, rate: float = 0.0) -> np.ndarray:
    """[n, n]: does the output of a token (row) change with the input of another (column)?

    One block only: over several, everything that is seen is passed on.
    """
    model = create_model("iLLaMA", **{**SMALL, "depth": 1}, attention=mode, soft_mask_rate=rate)
    tokens = paddle.randn([1, 17, 48])
    seen = []
    for row in range(17):
        leaf = tokens.clone().detach()
        leaf.stop_gradient = False
        model.blocks[0](leaf, model.rotary, model.mask, rate)[0, row].sum().backward()
        # Paddle's softmax on a CPU takes exp(-64) for exp(-inf)
        seen.append(np.abs(leaf.grad.numpy()[0]).max(axis=-1) > 1e-20)
    return np.stack(seen)


def test_true_causal_attention_sees_nothing_later():
    assert np.array_equal(_sees("causal"), np.tril(np.ones((17, 17), bool)))


def test_modified_attention_sees_the_class_token_as_well():
    expected = np.tril(np.ones((17, 17), bool))
    expected[:, -1] = True
    assert np.array_equal(_sees("modified"), expected)


def test_bidirectional_attention_sees_all():
    assert _sees("bidirectional").all()
    assert _sees("released", 1.0).all()


def test_released_attention_at_rate_0_still_feels_later_tokens():
    """Through the denominator of the softmax: it is not causal, and true causal is another model"""
    assert _sees("released").all()


def test_released_at_rate_1_is_bidirectional(golden):
    both = _with_weights(golden, attention="bidirectional")
    assert _relative(both(paddle.to_tensor(golden["x"])), golden["logits/1.0"]) < 1e-5
    causal = _with_weights(golden, attention="causal")
    assert _relative(causal(paddle.to_tensor(golden["x"])), golden["logits/0.0"]) > 1e-3


def test_only_released_attention_has_a_soft_mask():
    with pytest.raises(ModelArgumentError, match=r"only\s+attention=released has a soft mask"):
        ILlama(**SMALL, attention="causal", soft_mask_rate=0.5)
    model = ILlama(**SMALL, attention="bidirectional")
    assert model.evaluation_settings() == {}
    with pytest.raises(ModelArgumentError, match=r"soft_mask_rate 0\.2 has no meaning"):
        model.set_soft_mask_rate(0.2)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_rate_outside_0_to_1_is_refused(rate: float):
    model = ILlama(**SMALL)
    with pytest.raises(ModelArgumentError, match="a soft-mask rate is 0 to 1"):
        model.set_soft_mask_rate(rate)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"num_heads": 5}, "embed_dim 48 cannot be shared by 5 heads"),
        ({"num_heads": 16}, "a head of 3 channels has an odd number"),
        ({"img_size": 30}, "img_size 30x30 is not a whole number of patches"),
        ({"mlp_ratio": 0.01}, "leaves the perceptron no hidden channel"),
    ],
)
def test_sizes_that_contradict_are_refused(argument: dict, message: str):
    with pytest.raises(ModelArgumentError, match=message):
        ILlama(**{**SMALL, **argument})


# -- fine-tuning -----------------------------------------------------------------------------------


def test_larger_images_keep_the_position_of_the_last_token(golden, loaded):
    arrays = {name: value.numpy() for name, value in loaded.state_dict().items()}
    larger = ILlama(**{**SMALL, "img_size": 48, "class_num": 3})
    report = load_arrays(larger, arrays, "at_32", finetune=True)
    assert set(report.reinitialised) == {"head.weight", "head.bias"}
    before, after = arrays["pos_embed"], larger.pos_embed.numpy()
    assert after.shape == (1, 37, 48)
    assert np.array_equal(after[0, -1], before[0, -1])
    assert not np.array_equal(after[0, 0], before[0, -1])
    assert larger(paddle.zeros([1, 3, 48, 48])).shape == [1, 3]


# -- training --------------------------------------------------------------------------------------


def test_both_branches_of_a_block_have_one_drop_path():
    model = create_model("iLLaMA", **{**SMALL, "depth": 3}, drop_path_rate=0.4)
    assert [block.drop_path.rate for block in model.blocks] == pytest.approx([0.0, 0.2, 0.4])


def test_initial_weights_follow_the_seed_and_the_scheme():
    wide = {**SMALL, "embed_dim": 192, "num_heads": 3, "depth": 1}
    model = create_model("iLLaMA", seed=4, **wide)
    weights = {name: value.numpy() for name, value in model.named_parameters()}
    for name in ("pos_embed", "cls_token", "blocks.0.attn.qkv.weight", "blocks.0.mlp.fc2.weight"):
        assert weights[name].std() == pytest.approx(0.02, rel=0.15), name
        assert np.abs(weights[name]).max() > 0.04, name  # not cut at two deviations
    assert not weights["blocks.0.attn.qkv.bias"].any()
    assert (weights["norm.weight"] == 1).all()
    again = create_model("iLLaMA", seed=4, **wide)
    assert np.array_equal(again.head.weight.numpy(), weights["head.weight"])


def test_exports_with_an_open_batch(golden, loaded):
    loaded.eval()
    loaded.set_soft_mask_rate(0.37)
    spec = paddle.static.InputSpec([None, 3, 32, 32], "float32")
    static = paddle.jit.to_static(loaded, input_spec=[spec], full_graph=True)
    found = static(paddle.to_tensor(golden["x"]))
    assert _relative(found, golden["logits/0.37"]) < 1e-5

"""Recomputed activations: the same gradients, less memory, and no frozen layer in the way."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from small_run import assert_same_arrays

import passl
from passl.layers.recompute import run_blocks
from passl.models.vision_transformer import VisionTransformer

SMALL = {
    "img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 3, "num_heads": 2,
    "class_num": 5, "drop_rate": 0.2, "drop_path_rate": 0.3,
}  # fmt: skip
FAMILIES = {
    "VisionTransformer": {"attn_drop_rate": 0.1},
    "DistilledVisionTransformer": {"attn_drop_rate": 0.1},
    "iLLaMA": {"soft_mask_rate": 0.5},
    "ViT_LLaMA": {"llama_dim": 16, "llama_num_heads": 2},
}


def gradients(
    every: int, frozen: tuple[str, ...] = (), name: str = "VisionTransformer"
) -> dict[str, np.ndarray]:
    """Of two accumulated passes with dropout and drop path on."""
    model = passl.create_model(name, **SMALL, **FAMILIES[name])
    model.recompute_every = every
    model.train()
    for name, parameter in model.named_parameters():
        parameter.stop_gradient = name.startswith(frozen) if frozen else False
    draw = np.random.RandomState(0)
    for weight, parameter in model.named_parameters():
        if weight.startswith("llama."):  # comes without weights of its own
            parameter.set_value(draw.normal(0, 0.1, parameter.shape).astype("float32"))
    for number in range(2):
        paddle.seed(number)
        images = paddle.to_tensor(draw.normal(size=[6, 1, 8, 8]).astype("float32"))
        model(images).square().mean().backward()
    return {n: p.grad.numpy() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_are_equal_bit_for_bit_with_dropout_and_accumulation(name, every):
    plain, again = gradients(0, (), name), gradients(every, (), name)
    assert plain.keys() == again.keys()
    assert len(plain) > 20
    for name, value in plain.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)


def test_blocks_behind_frozen_embeddings_still_learn():
    frozen = ("patch_embed", "cls_token", "pos_embed")
    plain, again = gradients(0, frozen), gradients(1, frozen)
    assert "blocks.0.attn.qkv.weight" in again
    for name, value in plain.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)


def test_a_run_with_recomputation_ends_with_the_same_weights(make_run):
    plain, again = make_run("plain"), make_run("again")
    short = ("Global.epochs=1", "Global.micro_batch_size=100", "Global.eval_during_train=false")
    assert plain.train(*short) == 0
    assert again.train(*short, "Global.recompute=true") == 0
    assert_same_arrays(plain.weights(), again.weights())
    assert_same_arrays(plain.optimizer(), again.optimizer())


def test_a_model_that_cannot_is_refused(run_folder, monkeypatch, capsys):
    monkeypatch.delattr(VisionTransformer, "recompute_every")
    assert run_folder.train("Global.recompute=true") == 2
    text = capsys.readouterr().err
    assert "Global.recompute: VisionTransformer cannot recompute its activations" in text
    assert "write false" in text


@pytest.mark.parametrize(("every", "expected"), [(0, [1, 1, 1]), (1, [2, 2, 2]), (2, [2, 1, 2])])
def test_the_blocks_that_run_again_are_every_so_many_th(every, expected):
    calls = [0, 0, 0]
    weights = [paddle.create_parameter([3], "float32") for _ in calls]

    def block(index):
        def run(x):
            calls[index] += 1
            return x * weights[index]

        return run

    x = paddle.ones([3])
    x.stop_gradient = False
    run_blocks([block(i) for i in range(3)], x, recompute_every=every).sum().backward()
    assert calls == expected


def test_nothing_is_run_twice_without_gradients():
    calls = []

    def block(x):
        calls.append(1)
        return x * 2

    x = paddle.ones([3])
    x.stop_gradient = False
    with paddle.no_grad():
        run_blocks([block], x, recompute_every=1)
    assert calls == [1]

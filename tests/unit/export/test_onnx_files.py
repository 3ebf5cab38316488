"""An ONNX file of unknown origin is data: what it names, takes and gives is checked first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from passl.engine.teachers.exported import exported_runner
from passl.errors import CheckpointError, ConfigError
from passl.export.onnx_files import external_files
from passl.export.sessions import OnnxSession

WEIGHTS = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)


def field(number: int, value: bytes) -> bytes:
    """A field with a length, as of protocol buffers."""
    assert len(value) < 1 << 14
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128, number >> 7])


def tensor(location: str) -> bytes:
    entry = field(13, field(1, b"location") + field(2, location.encode()))
    return b"\x08\x03" + field(8, b"w") + field(13, field(1, b"offset") + field(2, b"0")) + entry


def test_files_are_found_wherever_a_tensor_can_be(tmp_path):
    for name in "abcd":
        (tmp_path / name).touch()
    in_node = field(1, field(5, field(5, tensor("b"))))  # graph.node.attribute.t
    in_branch = field(1, field(5, field(6, field(5, tensor("c")))))  # ... .attribute.g.initializer
    graph = field(5, tensor("a")) + in_node + in_branch + field(15, field(1, tensor("a")))
    function = field(25, field(7, field(5, field(5, tensor("d")))))
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x08" + field(2, b"maker") + field(7, graph) + function)
    assert [file.name for file in external_files(path)] == list("abcd")


@pytest.mark.parametrize(("location", "sentence"), [
    ("../secret", "outside of its folder; nothing is read there"),
    ("sub/../../secret", "outside of its folder"),
    ("/etc/passwd", "outside of its folder"),
    ("gone.bin", "gone.bin: is missing; model.onnx keeps weights in it"),
])  # fmt: skip
def test_a_place_of_weights_that_cannot_be_is_refused(tmp_path, location, sentence):
    (tmp_path / "secret").touch()
    path = tmp_path / "in/model.onnx"
    path.parent.mkdir()
    path.write_bytes(field(7, field(5, tensor(location))))
    with pytest.raises(CheckpointError, match=sentence):
        exported_runner(str(path))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x3a\xff\xff\xff\xff\x0f", b"\x80" * 20])
def test_what_is_no_onnx_file_names_no_other(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    assert external_files(tmp_path / "model.onnx") == []


def test_messages_in_messages_end_somewhere(tmp_path):
    graph = field(5, tensor("a"))
    for _ in range(40):
        graph = field(1, field(5, field(6, graph)))
    (tmp_path / "model.onnx").write_bytes(field(7, graph))
    assert external_files(tmp_path / "model.onnx") == []


# -- run by ONNX Runtime -----------------------------------------------------------------------


def linear(path: Path, kind: str = "FLOAT", scale: float = 1.0, external: str = "") -> Path:
    """[n, 3, 2, 2] times weights, all of one type."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    make, number = onnx.helper, getattr(onnx.TensorProto, kind)
    values = (WEIGHTS * scale).astype(make.tensor_dtype_to_np_dtype(number))
    weights = onnx.numpy_helper.from_array(values, "w")
    if external:
        (path.parent / external).write_bytes(values.tobytes())
        onnx.external_data_helper.set_external_data(weights, external)
        weights.ClearField("raw_data")
    graph = make.make_graph(
        [make.make_node("Flatten", ["x"], ["f"]), make.make_node("MatMul", ["f", "w"], ["y"])],
        "g",
        [make.make_tensor_value_info("x", number, ["N", 3, 2, 2])],
        [make.make_tensor_value_info("y", number, ["N", 5])],
        [weights],
    )
    opsets = [make.make_opsetid("", 17)]
    model = make.make_model(graph, opset_imports=opsets, ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


IMAGES = np.random.default_rng(1).standard_normal((4, 3, 2, 2)).astype(np.float32)


@pytest.mark.parametrize(("kind", "rtol"), [("FLOAT", 1e-6), ("FLOAT16", 5e-3), ("DOUBLE", 1e-6)])
def test_a_model_of_another_precision_is_given_its_own(tmp_path, kind, rtol):
    found = OnnxSession(linear(tmp_path / "model.onnx", kind)).run(IMAGES)
    wanted = IMAGES.reshape(4, 12) @ WEIGHTS
    np.testing.assert_allclose(found.astype(np.float32), wanted, rtol=rtol, atol=rtol)


def test_what_it_cannot_run_is_a_sentence(tmp_path, capfd):
    session = OnnxSession(linear(tmp_path / "model.onnx"))
    with pytest.raises(CheckpointError, match=r"cannot run it on an input float32 \[4, 3, 4, 4\]"):
        session.run(np.zeros((4, 3, 4, 4), np.float32))
    assert capfd.readouterr().err == ""


def test_a_model_of_two_inputs_is_refused(tmp_path):
    onnx = pytest.importorskip("onnx")
    path = linear(tmp_path / "model.onnx")
    model = onnx.load(path)
    model.graph.input.append(onnx.helper.make_tensor_value_info("mask", 1, ["N"]))
    onnx.save(model, path)
    with pytest.raises(CheckpointError, match=r"takes 2 inputs \(x, mask\)"):
        OnnxSession(path)


def test_the_files_with_weights_are_the_teachers_too(tmp_path):
    path = linear(tmp_path / "model.onnx", external="model.data")
    run, files = exported_runner(str(path))
    assert [file.name for file in files] == ["model.onnx", "model.data"]
    import paddle

    wanted = IMAGES.reshape(4, 12) @ WEIGHTS
    np.testing.assert_allclose(run(paddle.to_tensor(IMAGES)).numpy(), wanted, rtol=1e-5, atol=1e-5)


def test_a_teacher_that_answers_what_is_no_number_is_refused(tmp_path):
    from passl.engine.teachers.teacher import Teacher
    from passl.precision.amp import Precision

    run, _ = exported_runner(str(linear(tmp_path / "model.onnx", scale=float("nan"))))
    teacher = Teacher("model.onnx", run, sha256="", path="")
    with pytest.raises(ConfigError, match="answers with NaN or infinity"):
        teacher.check([3, 2, 2], 5, Precision())

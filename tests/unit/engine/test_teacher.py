"""What a teacher sees of the student's images, and which kinds of models can teach."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import numpy as np
import paddle
import pytest

from passl.config.teaching import DistillationSection, TeacherSection, TeacherTransform
from passl.data.transforms.normalize import NormalizeImage, ToCHWImage
from passl.engine.teachers.distillation import Distillation
from passl.engine.teachers.exported import exported_runner
from passl.engine.teachers.teacher import Teacher, _affine, _own_size, build_teacher, check_teacher
from passl.errors import CheckpointError, ConfigError, PasslError
from passl.export.card import ModelCard, described_files
from passl.losses.combined import CombinedLoss
from passl.losses.cross_entropy import CELoss
from passl.models import create_model
from passl.precision.amp import Precision

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
TINY = {
    "img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2, "class_num": 3,
}


def teacher(run=lambda images: images, **how) -> Teacher:
    return Teacher("a teacher", run, sha256="0" * 64, path="nowhere", **how)


def section(**transform) -> TeacherSection:
    return TeacherSection("x", transform=TeacherTransform(**transform))


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (4, 6, 6, 3), dtype=np.uint8)


def normalised(pixels, **arguments):
    step, rng = NormalizeImage(order="", **arguments), np.random.default_rng(0)
    return np.stack([ToCHWImage()(step(image, rng), rng) for image in pixels])


@pytest.mark.parametrize(
    "students",
    [{"mean": [0.5], "std": [0.5]}, IMAGENET, {"mean": [0.0], "std": [1.0], "scale": 1.0},
     {"mean": [123.0, 117.0, 104.0], "std": [58.0, 57.0, 57.5], "scale": 1.0}],
)
def test_pixels_are_those_of_the_teachers_own_normalisation(pixels, students):
    factor, offset = _affine(section(**IMAGENET), [NormalizeImage(order="", **students)])
    images = paddle.to_tensor(normalised(pixels, **students))
    seen = teacher(factor=factor, offset=offset).see(images).numpy()
    np.testing.assert_allclose(seen, normalised(pixels, **IMAGENET), atol=3e-6)


@pytest.mark.parametrize("wanted", [IMAGENET, {}])
def test_the_same_normalisation_leaves_every_bit(pixels, wanted):
    factor, offset = _affine(section(**wanted), [NormalizeImage(order="", **IMAGENET)])
    images = paddle.to_tensor(normalised(pixels, **IMAGENET))
    assert teacher(factor=factor, offset=offset).see(images) is images


def test_a_normalisation_is_not_guessed():
    with pytest.raises(ConfigError, match="pass no NormalizeImage"):
        _affine(section(**IMAGENET), [ToCHWImage()])
    with pytest.raises(ConfigError, match="2 values for 3 channels"):
        _affine(section(mean=[0.0, 0.0], std=[1.0]), [NormalizeImage()])


def test_images_take_the_teachers_size_and_keep_their_mean():
    images = paddle.to_tensor(np.random.default_rng(0).random((2, 3, 8, 8), dtype="float32"))
    smaller = teacher(size=4).see(images).numpy()
    np.testing.assert_allclose(
        smaller, images.numpy().reshape(2, 3, 4, 2, 4, 2).mean((3, 5)), atol=1e-6
    )
    flat = paddle.full([1, 3, 8, 8], 0.7)
    np.testing.assert_allclose(teacher(size=20).see(flat).numpy(), 0.7, atol=1e-5)
    assert list(teacher(size=20).see(images).shape) == [2, 3, 20, 20]
    assert teacher(size=8).see(images) is images


def test_a_model_that_names_its_size_is_given_it():
    assert _own_size("ViT_base_patch16_384", {}) == 384
    assert _own_size("ViT_base_patch16_384", {"img_size": 96}) == 96
    assert _own_size("ResNet50", {}) is None


def test_other_classes_and_sizes_are_told_before_training():
    model = create_model("VisionTransformer", **TINY)
    with pytest.raises(ConfigError, match=r"answers \[2, 3\] for 2 images.*has 4 classes"):
        teacher(model).check([3, 8, 8], 4, Precision())
    with pytest.raises(ConfigError, match=r"cannot look at images of .*transform\.size"):
        teacher(model).check([3, 9, 9], 3, Precision())
    teacher(model, size=8).check([3, 9, 9], 3, Precision())


def test_a_teacher_of_one_image_at_a_time_is_told_before_training():
    def run(images):
        if len(images) != 1:
            raise RuntimeError("Got: 2 Expected: 1")  # as ONNX Runtime does
        return paddle.zeros([1, 3])

    with pytest.raises(ConfigError, match=r"Got: 2 Expected: 1.*fixed number of images"):
        teacher(run).check([3, 8, 8], 3, Precision())


def test_probabilities_are_not_taken_for_logits():
    model = create_model("VisionTransformer", **TINY)
    with pytest.raises(ConfigError, match=r"answers with probabilities .*without softmax"):
        teacher(lambda x: paddle.nn.functional.softmax(model(x))).check([3, 8, 8], 3, Precision())
    teacher(model).check([3, 8, 8], 3, Precision())


def test_another_teacher_is_refused_and_none_is_no_difference(tmp_path):
    now, before = teacher().record, {"teacher": {"name": "t", "path": "p", "sha256": "1" * 64}}
    check_teacher(now, now, tmp_path)
    check_teacher(now, {}, tmp_path)
    check_teacher({}, before, tmp_path)
    with pytest.raises(CheckpointError, match=r"teacher t of p .*111111111111.*000000000000"):
        check_teacher(now, before, tmp_path)


@pytest.fixture
def exported(tmp_path: Path):
    """A model in Paddle's inference format: the file that names it, and the live model."""
    model, twin = (create_model("VisionTransformer", **TINY) for _ in range(2))
    model.eval()
    twin.eval()
    spec = [paddle.static.InputSpec([None, 3, 8, 8], "float32")]
    static = paddle.jit.to_static(twin, input_spec=spec, full_graph=True)
    paddle.jit.save(static, str(tmp_path / "teacher"))
    name = "teacher.json" if (tmp_path / "teacher.json").exists() else "teacher.pdmodel"
    return tmp_path / name, model


def test_an_exported_model_answers_as_the_live_one(exported):
    file, model = exported
    run, files = exported_runner(str(file))
    assert [each.suffix for each in files] == [file.suffix, ".pdiparams"]
    for count in (1, 5):
        images = paddle.to_tensor(np.random.default_rng(1).normal(size=(count, 3, 8, 8)))
        images = images.astype("float32")
        with paddle.no_grad():
            wanted = model(images).numpy()
        np.testing.assert_allclose(run(images).numpy(), wanted, atol=1e-5)


def describe(
    file: Path,
    *,
    dtype: str = "float32",
    meaning: str = "logits",
    steps: Optional[list[dict[str, Any]]] = None,
    labels: Optional[list[str]] = None,
    batch: Optional[int] = None,
) -> None:
    """Write the ``inference.yml`` that an export has beside it."""
    layout, sides = ("NCHW", [3, 8, 8]) if dtype == "float32" else ("NHWC", [8, 8, 3])
    names = {"model": file.name, "params": file.with_suffix(".pdiparams").name}
    ModelCard(
        model={"name": "VisionTransformer"},
        input={"name": "image", "dtype": dtype, "layout": layout, "shape": [batch, *sides]},
        output={"meaning": meaning, "shape": [None, 3]},
        preprocess=steps, inside=[], labels=labels,
        files={"paddle": described_files(file.parent, names)},
    ).write(file.parent)  # fmt: skip


def test_an_export_that_cannot_teach_is_told_by_its_description(exported):
    file, _ = exported
    describe(file)
    exported_runner(str(file))
    describe(file, meaning="probabilities")
    with pytest.raises(CheckpointError, match=r"cannot teach: it gives probabilities .*--softmax"):
        exported_runner(str(file))
    describe(file, dtype="uint8")
    with pytest.raises(CheckpointError, match=r"cannot teach: it takes uint8 .*--preprocess"):
        exported_runner(str(file))
    describe(file, batch=4)
    with pytest.raises(CheckpointError, match=r"cannot teach: it takes exactly 4 images .*--batch"):
        exported_runner(str(file))
    describe(file)
    file.with_suffix(".pdiparams").write_bytes(b"other weights")
    with pytest.raises(CheckpointError, match=r"is not the file that was exported"):
        exported_runner(str(file))


def taught_by(file: Path, *students: Any, classes: Any = None, **transform: Any) -> Teacher:
    """The teacher of a config that names ``file``, for students of these transforms."""
    named = TeacherSection(str(file), transform=TeacherTransform(**transform))
    config = SimpleNamespace(Distillation=DistillationSection(named), Model={"class_num": 3})
    return build_teacher(config, students, classes)


def test_a_teacher_known_to_have_seen_other_pixels_must_be_given_them(exported):
    file, _ = exported
    describe(file, steps=[{"name": "NormalizeImage", "mean": [0.5], "std": [0.25], "order": ""}])
    with pytest.raises(ConfigError, match=r"mean \[0.5\] and std \[0.25\].*transform.mean"):
        taught_by(file, NormalizeImage(**IMAGENET))
    taught_by(file, NormalizeImage(mean=[127.5], std=[63.75], scale=1.0))  # the same numbers
    given = taught_by(file, NormalizeImage(**IMAGENET), mean=[0.5], std=[0.25])
    black = paddle.to_tensor(np.float32(IMAGENET["mean"]) / -np.float32(IMAGENET["std"]))
    seen = given.see(black.reshape([1, 3, 1, 1]).expand([1, 3, 8, 8])).numpy()
    np.testing.assert_allclose(seen, -2.0, atol=1e-5)
    taught_by(file, NormalizeImage(**IMAGENET), **IMAGENET)  # who insists
    taught_by(file, lambda image, rng: image)  # the student's own may be the same
    taught_by(file)
    describe(file)
    taught_by(file, NormalizeImage(**IMAGENET))  # and nobody says


def test_a_teacher_known_to_number_classes_otherwise_is_refused(exported):
    file, _ = exported
    describe(file, labels=["cat", "dog", "owl"])
    taught_by(file, classes=["cat", "dog", "owl"])
    taught_by(file, classes=["n01", "n02", "n03"])  # other names may be the same classes
    taught_by(file)
    with pytest.raises(ConfigError, match=r"class 'cat' is number 0 of the teacher.* number 1 of"):
        taught_by(file, classes=["dog", "cat", "owl"])
    with pytest.raises(ConfigError, match=r"class 'owl' is number 2 of the teacher.* number 1 of"):
        taught_by(file, classes=["cat", "owl", "emu"])


@pytest.mark.parametrize(("classes", "sentence"), [(4, "has 4 classes"), (3, "probabilities")])
def test_a_student_without_a_size_hears_of_the_teachers_answers_at_its_first_batch(
    classes, sentence
):
    section = DistillationSection(TeacherSection("x"))
    answers = paddle.to_tensor(np.float32([[0.25, 0.5, 0.25], [0.0, 0.0, 1.0]]))
    distillation = Distillation(teacher(lambda images: answers), section)
    images, target = paddle.zeros([2, 3, 8, 8]), paddle.to_tensor([0, 1])
    loss = CombinedLoss([("CELoss", 1.0, CELoss())])
    with pytest.raises(ConfigError, match=sentence):
        distillation(
            lambda images: paddle.zeros([len(images), classes]), images, target, loss, Precision()
        )


def test_half_an_exported_model_is_refused(exported):
    exported[0].with_suffix(".pdiparams").unlink()
    with pytest.raises(CheckpointError, match=r"teacher.pdiparams: there is no such file"):
        exported_runner(str(exported[0]))


def protobuf(*fields: tuple[int, object]) -> bytes:
    """A message of (number, int or bytes) fields; enough of the format for a small ONNX file."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            assert value < 128
            out += bytes([number << 3, value])
        else:
            assert isinstance(value, bytes)
            size = bytes([len(value) & 127 | 128, len(value) >> 7])
            out += bytes([number << 3 | 2]) + size + value
    return out


def onnx_of_flatten_and_matmul(weight: np.ndarray) -> bytes:
    """float32 [n, 3, 2, 2] "x" -> [n, 3] "y", by ``weight`` [12, 3]."""

    def value(name: bytes, *dims: int) -> bytes:
        batch = protobuf((1, protobuf((2, b"n"))))
        shape = batch + b"".join(protobuf((1, protobuf((1, dim)))) for dim in dims)
        return protobuf((1, name), (2, protobuf((1, protobuf((1, 1), (2, shape))))))

    def node(kind: bytes, inputs: list[bytes], output: bytes) -> bytes:
        return protobuf(*((1, each) for each in inputs), (2, output), (4, kind))

    tensor = protobuf((1, 12), (1, 3), (2, 1), (8, b"w"), (9, weight.tobytes()))
    graph = protobuf(
        (1, node(b"Flatten", [b"x"], b"f")),
        (1, node(b"MatMul", [b"f", b"w"], b"y")),
        (2, b"g"), (5, tensor), (11, value(b"x", 3, 2, 2)), (12, value(b"y", 3)),
    )
    return protobuf((1, 8), (7, graph), (8, protobuf((2, 13))))


def test_an_onnx_file_answers_by_onnx_runtime(tmp_path):
    pytest.importorskip("onnxruntime")
    weight = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
    (tmp_path / "t.onnx").write_bytes(onnx_of_flatten_and_matmul(weight))
    run, _ = exported_runner(str(tmp_path / "t.onnx"))
    images = paddle.to_tensor(np.random.default_rng(1).random((4, 3, 2, 2), dtype="float32"))
    np.testing.assert_allclose(
        run(images).numpy(), images.numpy().reshape(4, 12) @ weight, rtol=1e-5
    )
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="ONNX Runtime cannot use it"):
        exported_runner(str(tmp_path / "bad.onnx"))


def test_without_onnx_runtime_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "t.onnx").write_bytes(b"")
    with pytest.raises(PasslError, match="pip install onnxruntime"):
        exported_runner(str(tmp_path / "t.onnx"))

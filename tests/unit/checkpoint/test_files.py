"""Arrays in files: what Paddle reads and writes, and what is refused without being run."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import zipfile
from pathlib import Path

import numpy as np
import pytest

from passl.checkpoint.files import bfloat16_to_float32, read_arrays, write_arrays
from passl.errors import CheckpointError

ARRAYS = {
    "blocks.0.weight": np.arange(12, dtype=np.float32).reshape(3, 4) / 7,
    "transposed": np.arange(6, dtype=np.float64).reshape(2, 3).T,
    "big_endian": np.arange(3, dtype=">f4"),
    "__step__": np.asarray(2**40, dtype=np.int64),
    "empty": np.zeros((0, 3), np.float32),
    "half": np.linspace(-1, 1, 5).astype(np.float16),
    "mask": np.array([True, False]),
    "bytes": np.arange(256, dtype=np.uint8),
    "Gewöhnung/größe": np.float32([1.5]),
}


class Evil:
    """Pickles into a call of os.system."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].shape == array.shape, name
        assert found[name].dtype == array.dtype.newbyteorder("="), name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_arrays(path)
    assert str(caught.value).startswith(f"{path}: "), caught.value
    return str(caught.value).removeprefix(f"{path}: ")


# -- round trips -----------------------------------------------------------------------------------


def test_arrays_of_every_kind_come_back_equal(tmp_path):
    write_arrays(tmp_path / "x.pdparams", ARRAYS)
    assert_same(read_arrays(tmp_path / "x.pdparams"), ARRAYS)


def test_paddle_loads_what_is_written(tmp_path):
    import paddle

    write_arrays(tmp_path / "x.pdparams", ARRAYS)
    loaded = paddle.load(str(tmp_path / "x.pdparams"))
    assert all(isinstance(value, paddle.Tensor) for value in loaded.values())
    assert_same({name: value.numpy() for name, value in loaded.items()}, ARRAYS)


def test_the_file_is_a_pickle_of_protocol_4_that_names_only_numpy(tmp_path):
    write_arrays(tmp_path / "x.pdparams", ARRAYS)
    data = (tmp_path / "x.pdparams").read_bytes()
    names = {arg for op, arg, _ in pickletools.genops(data) if op.name == "GLOBAL"}
    assert names == {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"}
    assert_same(pickle.loads(data), ARRAYS)  # noqa: S301 (our own bytes)


def test_the_digest_is_that_of_the_file(tmp_path):
    import hashlib

    digest = write_arrays(tmp_path / "x.pdparams", ARRAYS)
    data = (tmp_path / "x.pdparams").read_bytes()
    assert (digest.size, digest.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_a_layer_saved_by_paddle_is_read(tmp_path):
    import paddle

    layer = paddle.nn.Linear(3, 2)
    paddle.save(layer.state_dict(), str(tmp_path / "x.pdparams"))
    expected = {name: value.numpy() for name, value in layer.state_dict().items()}
    assert_same(read_arrays(tmp_path / "x.pdparams"), expected)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_every_pickle_protocol_of_paddle_is_read(tmp_path, protocol):
    import paddle

    tensors = {"a": paddle.arange(6).reshape([2, 3]), "b": paddle.to_tensor([0.5, -1e30])}
    paddle.save(tensors, str(tmp_path / "x.pdparams"), protocol=protocol)
    found = read_arrays(tmp_path / "x.pdparams")
    assert_same(found, {name: value.numpy() for name, value in tensors.items()})


def test_an_optimizer_state_of_paddle_becomes_one_level(tmp_path):
    import paddle

    layer = paddle.nn.Linear(3, 2)
    schedule = paddle.optimizer.lr.StepDecay(0.1, 3)
    adam = paddle.optimizer.AdamW(schedule, parameters=layer.parameters())
    layer(paddle.ones([1, 3])).sum().backward()
    adam.step()
    schedule.step()
    paddle.save(adam.state_dict(), str(tmp_path / "x.pdopt"))
    found = read_arrays(tmp_path / "x.pdopt")
    assert found["LR_Scheduler/last_epoch"] == 1
    moments = {name: value for name, value in found.items() if name.endswith("moment1_0")}
    assert len(moments) == 2
    for name, value in moments.items():
        np.testing.assert_array_equal(value, adam.state_dict()[name].numpy())


def test_bfloat16_of_paddle_is_read_as_uint16_and_converts_exactly(tmp_path):
    import paddle

    tensor = paddle.to_tensor([1.0, -2.5, 3.140625, 0.0]).astype("bfloat16")
    paddle.save({"w": tensor}, str(tmp_path / "x.pdparams"))
    stored = read_arrays(tmp_path / "x.pdparams")["w"]
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(bfloat16_to_float32(stored), [1.0, -2.5, 3.140625, 0.0])


def test_slices_of_an_array_above_a_gigabyte_are_joined(tmp_path):
    # What paddle.save writes with protocol 2 for such an array, here in two slices of three.
    content = {
        "w@@.0": np.float32([1, 2, 3]),
        "w@@.1": np.float32([4, 5, 6]),
        "UnpackBigParamInfor@@": {"w": {"OriginShape": (2, 3), "slices": ["w@@.0", "w@@.1"]}},
    }
    (tmp_path / "x.pdparams").write_bytes(pickle.dumps(content, protocol=2))
    found = read_arrays(tmp_path / "x.pdparams")
    assert_same(found, {"w": np.float32([[1, 2, 3], [4, 5, 6]])})


def test_text_and_none_are_left_out_and_numbers_kept(tmp_path):
    content = {"name": "adam", "nothing": None, "lr": 0.5, "on": True, "list": [1, {"x": 2.0}]}
    (tmp_path / "x.pdopt").write_bytes(pickle.dumps(content))
    found = read_arrays(tmp_path / "x.pdopt")
    assert {name: value.item() for name, value in found.items()} == {
        "lr": 0.5,
        "on": True,
        "list/0": 1,
        "list/1/x": 2.0,
    }


def test_a_lazy_mapping_is_asked_for_one_array_at_a_time(tmp_path):
    asked = []

    class Lazy(dict):
        def items(self):
            for name, array in ARRAYS.items():
                asked.append(name)
                yield name, array

    write_arrays(tmp_path / "x.pdparams", Lazy())
    assert asked == list(ARRAYS)
    assert_same(read_arrays(tmp_path / "x.pdparams"), ARRAYS)


def test_writing_copies_no_big_array(tmp_path):
    import tracemalloc

    arrays = {name: np.ones((1024, 1024), np.float32) for name in "ab"}
    tracemalloc.start()
    write_arrays(tmp_path / "x.pdparams", arrays)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20, f"{peak} bytes beside 8 MB of arrays"


def test_objects_cannot_be_written(tmp_path):
    with pytest.raises(TypeError, match="only numbers"):
        write_arrays(tmp_path / "x.pdparams", {"x": np.array([None])})
    assert list(tmp_path.iterdir()) == []


# -- refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_file_that_would_run_a_command_is_refused_and_runs_nothing(tmp_path, protocol):
    trace = tmp_path / "was_run"
    evil = pickle.dumps({"x": Evil(f"touch {trace}"), "w": np.ones(2)}, protocol=protocol)
    pickle.loads(evil)  # noqa: S301 (proves that this file is a danger)
    assert trace.exists()
    trace.unlink()

    (tmp_path / "evil.pdparams").write_bytes(evil)
    text = refusal(tmp_path / "evil.pdparams")
    assert not trace.exists()
    if protocol:
        assert text.startswith("refused, because loading it would run posix.system")


@pytest.mark.parametrize(
    ("opcodes", "named"),
    [
        (b"cbuiltins\neval\n(X\x03\x00\x00\x001+1tR.", "builtins.eval"),
        (b"cnumpy\nload\n.", "numpy.load"),
        (b"cnumpy.core.multiarray\nfromfile\n.", "multiarray.fromfile"),
        (b"cnumpy\nndarray.tofile\n.", "numpy.ndarray.tofile"),
        (b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.", "_codecs.encode"),
        (b"X\x01\x00\x00\x00aQ.", "external object"),
    ],
)
def test_any_name_outside_the_list_is_refused(tmp_path, opcodes, named):
    (tmp_path / "x.pdparams").write_bytes(b"\x80\x02" + opcodes)
    text = refusal(tmp_path / "x.pdparams")
    assert "Nothing was run" in text
    assert named in text


def test_one_file_cannot_prepare_the_reader_for_the_next(tmp_path):
    # BUILD with a pair sets attributes on whatever a name led to.
    attributes = pickle.dumps((None, {"__setstate__": 1, "make": 2, "__code__": 3}), 2)[2:-1]
    for name in (b"numpy\ndtype", b"numpy.core.multiarray\nscalar", b"_codecs\nencode"):
        (tmp_path / "x.pdparams").write_bytes(b"\x80\x02c" + name + b"\n" + attributes + b"b.")
        assert "damaged" in refusal(tmp_path / "x.pdparams")
    write_arrays(tmp_path / "y.pdparams", ARRAYS)
    assert_same(read_arrays(tmp_path / "y.pdparams"), ARRAYS)


def test_an_object_array_is_refused(tmp_path):
    (tmp_path / "x.pdparams").write_bytes(pickle.dumps({"x": np.array([None, "a"])}))
    assert "an array of elements 'O8'" in refusal(tmp_path / "x.pdparams")


def test_a_shape_that_does_not_fit_its_bytes_is_damage(tmp_path):
    data = pickle.dumps({"x": np.ones((2, 3), np.float32)})
    assert data.count(b"K\x02K\x03") == 1
    (tmp_path / "x.pdparams").write_bytes(data.replace(b"K\x02K\x03", b"K\x02K\x04"))
    assert "an array of shape (2, 4) with 24 bytes" in refusal(tmp_path / "x.pdparams")


def test_nesting_without_end_is_refused_at_once(tmp_path):
    circle: dict[str, object] = {}
    circle["again"] = circle
    (tmp_path / "x.pdparams").write_bytes(pickle.dumps(circle))
    assert "nested without end" in refusal(tmp_path / "x.pdparams")
    bomb: list[object] = []
    for _ in range(12):
        bomb = [bomb] * 10
    (tmp_path / "y.pdparams").write_bytes(pickle.dumps({"x": bomb}))
    assert "nested without end" in refusal(tmp_path / "y.pdparams")


@pytest.mark.parametrize("length", [1, 2, 60, 200, -1])
def test_a_truncated_file_is_called_damaged(tmp_path, length):
    write_arrays(tmp_path / "x.pdparams", ARRAYS)
    data = (tmp_path / "x.pdparams").read_bytes()
    (tmp_path / "x.pdparams").write_bytes(data[:length])
    assert refusal(tmp_path / "x.pdparams") == (
        "the file is damaged (it ends too early). Was the copy or download interrupted? "
        "Fetch it again, or use another checkpoint."
    )


def test_bytes_after_the_end_are_damage(tmp_path):
    write_arrays(tmp_path / "x.pdparams", ARRAYS)
    with open(tmp_path / "x.pdparams", "ab") as file:
        file.write(b"!")
    assert "bytes after its end" in refusal(tmp_path / "x.pdparams")


def test_a_flipped_byte_never_escapes_as_another_error(tmp_path):
    write_arrays(tmp_path / "x.pdparams", {"w": np.ones(3, np.float32), "b": np.zeros((), int)})
    data = (tmp_path / "x.pdparams").read_bytes()
    path = tmp_path / "y.pdparams"
    num_refused = 0
    for place in range(len(data)):
        for bit in (0x01, 0x40, 0x80):
            path.write_bytes(data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :])
            try:
                read_arrays(path)
            except CheckpointError:
                num_refused += 1
    assert num_refused > len(data)


def _zip(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "an empty file (was the disk full when it was written?)"),
        (b"\0" * 100, "a file of zeros (a write that was cut off by a crash)"),
        (_zip("archive/data.pkl", "archive/data/0"), "a PyTorch file"),
        (_zip("a.npy", "b.npy"), "a NumPy archive (.npz)"),
        (_zip("readme"), "a zip archive; unpack it first"),
        (
            _zip("data.pkl")[:30],
            "a zip file that is cut off (a PyTorch file whose download was inter",
        ),
        (
            b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.",
            "a PyTorch file (the format be",
        ),
        (b"\x02\0\0\0\0\0\0\0{}", "a safetensors file"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "a Git LFS pointer, not the file itself",
        ),
        (b"<!doctype html><html>", "a web page, not weights; the download went wrong"),
        (b"epoch: 3\n", "a text file (it begins with 'epoch: 3\\n')"),
        (b"\x89HDF\r\n\x1a\n....", "an HDF5 file"),
        (b"\x1f\x8b\x08\0....", "a gzip archive; unpack it first"),
        (b"\x08\x01\x02\x00", "of a format that is not known here"),
    ],
    # Some contents hold the time they were made at, which would be in the name of the test: the
    # processes of pytest-xdist then collect different tests.
    ids=lambda value: value[:24] if isinstance(value, str) else "file",
)
def test_other_formats_are_named(tmp_path, content, kind):
    (tmp_path / "x.pdparams").write_bytes(content)
    text = refusal(tmp_path / "x.pdparams")
    assert text.startswith(f"this is {kind}")
    assert text.endswith("as Paddle writes them.")


def test_one_array_without_a_name_is_refused(tmp_path):
    (tmp_path / "x.pdparams").write_bytes(pickle.dumps(np.ones(3)))
    assert refusal(tmp_path / "x.pdparams").startswith("holds one object, not arrays by name. ")


def test_a_missing_file_and_a_folder_are_sentences(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        read_arrays(tmp_path / "x.pdparams")
    assert str(caught.value) == (
        f"cannot read {tmp_path / 'x.pdparams'}: there is no such file or folder."
    )
    with pytest.raises(CheckpointError) as caught:
        read_arrays(tmp_path)
    assert str(caught.value) == f"cannot read {tmp_path}: it is a folder; a file was expected."


def test_a_failing_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "x.pdparams"
    write_arrays(path, {"w": np.zeros(2)})
    before = path.read_bytes()

    class Broken(dict):
        def items(self):
            yield "w", np.ones(2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_arrays(path, Broken())
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.pdparams"]

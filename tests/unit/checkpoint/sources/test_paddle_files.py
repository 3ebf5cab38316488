"""Paddle's files as sources: the same arrays as the reader of whole files gives, one at a time."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from passl.checkpoint.files import read_arrays, write_arrays
from passl.checkpoint.sources import open_source
from passl.errors import CheckpointError

ARRAYS = {
    "large": np.arange(5000, dtype=np.float32).reshape(50, 100),
    "transposed": np.arange(6000, dtype=np.float64).reshape(60, 100).T,
    "big_endian": np.arange(2000, dtype=">f4"),
    "empty": np.zeros((0, 3), np.float32),
    "scalar": np.asarray(2**40, dtype=np.int64),
    "half": np.linspace(-1, 1, 5).astype(np.float16),
    "mask": np.array([True, False]),
    "bytes": np.arange(256, dtype=np.uint8).repeat(20),
}


def assert_same(path, expected):
    with open_source(path) as source:
        assert source.format == "paddle"
        assert source.names() == list(expected)
        for name, array in expected.items():
            value = source.read(name)
            assert (value.dtype, value.shape) == (array.dtype.newbyteorder("="), array.shape), name
            np.testing.assert_array_equal(value, array, err_msg=name)
            assert value.flags.writeable


def test_what_is_written_here_is_read(tmp_path):
    write_arrays(tmp_path / "x.pdparams", ARRAYS)
    assert_same(tmp_path / "x.pdparams", ARRAYS)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol_is_read(tmp_path, protocol):
    path = tmp_path / "x.pdparams"
    path.write_bytes(pickle.dumps(ARRAYS, protocol))
    assert_same(path, ARRAYS)
    if protocol < 5:
        assert_same(path, read_arrays(path))


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_layer_saved_by_paddle_is_read(tmp_path, protocol):
    import paddle

    layer = paddle.nn.Linear(40, 50)
    paddle.save(layer.state_dict(), str(tmp_path / "x.pdparams"), protocol=protocol)
    assert_same(tmp_path / "x.pdparams", {k: v.numpy() for k, v in layer.state_dict().items()})


def test_bfloat16_of_paddle_is_widened(tmp_path):
    import paddle

    tensor = paddle.to_tensor([1.0, -2.5, 3.140625, 0.0]).astype("bfloat16")
    paddle.save({"w": tensor}, str(tmp_path / "x.pdparams"))
    with open_source(tmp_path / "x.pdparams") as source:
        assert source.dtype("w") == "bfloat16"
        np.testing.assert_array_equal(source.read("w"), [1.0, -2.5, 3.140625, 0.0])


def test_weights_inside_a_training_checkpoint_are_found(tmp_path):
    import paddle

    weights = {"w": paddle.ones([2])}
    content = {"model": weights, "optimizer": {"w_moment": paddle.zeros([2])}, "epoch": 3}
    paddle.save(content, str(tmp_path / "x.pdparams"))
    with open_source(tmp_path / "x.pdparams") as source:
        assert (source.wrapper, source.names()) == ("model", ["w"])
        assert source.ignored == {"optimizer": "dict of 1 entry", "epoch": "int 3"}


@pytest.mark.parametrize("protocol", [2, 3])
def test_slices_of_an_array_above_a_gigabyte_are_joined(tmp_path, protocol):
    parts = np.arange(6000, dtype=np.float32)
    content = {
        "w@@.0": parts[:3000],
        "w@@.1": parts[3000:],
        "UnpackBigParamInfor@@": {"w": {"OriginShape": (2, 3000), "slices": ["w@@.0", "w@@.1"]}},
    }
    (tmp_path / "x.pdparams").write_bytes(pickle.dumps(content, protocol=protocol))
    assert_same(tmp_path / "x.pdparams", {"w": parts.reshape(2, 3000)})


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"K\x02K\x03", b"K\x02K\x04", "an array of 32 bytes with 24"),
        (b"f4", b"O8", "an array of elements 'O8'"),
        (b"f4", b"V4", "an array of elements 'V4'"),
    ],
)
def test_an_array_that_contradicts_itself_is_damage(tmp_path, old, new, reason):
    data = pickle.dumps({"x": np.ones((2, 3), np.float32)})
    assert data.count(old) == 1
    (tmp_path / "x.pdparams").write_bytes(data.replace(old, new))
    with pytest.raises(CheckpointError) as caught:
        open_source(tmp_path / "x.pdparams")
    assert f"the file is damaged ({reason})" in str(caught.value)


def test_bytes_after_the_end_are_damage(tmp_path):
    write_arrays(tmp_path / "x.pdparams", ARRAYS)
    with open(tmp_path / "x.pdparams", "ab") as file:
        file.write(b"!")
    with pytest.raises(CheckpointError, match="bytes after its end"):
        open_source(tmp_path / "x.pdparams")

"""safetensors: read as the library reads it, written so that the library reads it, and refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from passl.checkpoint.sources import open_source, write_safetensors
from passl.checkpoint.sources.safetensors_writer import float32_to_bfloat16
from passl.errors import CheckpointError

GOLDEN = Path(__file__).resolve().parents[3] / "golden"
ARRAYS = {
    "w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "transposed": np.arange(6, dtype=np.float64).reshape(2, 3).T,
    "half": np.float16([0.5, -2]),
    "scalar": np.asarray(7, np.int64),
    "empty": np.zeros((0, 4), np.float32),
    "mask": np.array([True, False]),
    "big_endian": np.arange(3, dtype=">i4"),
    "größe": np.arange(3, dtype=np.uint8),
}


def file_of(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_source(path)
    assert str(caught.value).startswith(f"{path}: "), caught.value
    return str(caught.value).removeprefix(f"{path}: ")


def test_bfloat16_of_torch_is_widened_exactly():
    with (
        np.load(GOLDEN / "vit.npz") as file,
        open_source(GOLDEN / "torch_files/bf16.safetensors") as source,
    ):
        assert len(source.names()) == 32
        for name in source.names():
            value, exact = source.read(name), file[f"param/{name}"]
            assert source.dtype(name) == "bfloat16"
            assert value.dtype == np.float32
            assert not (value.view(np.uint32) & 0xFFFF).any()
            assert np.abs(value - exact).max() <= np.abs(exact).max() / 256, name
            np.testing.assert_array_equal(float32_to_bfloat16(exact), value.view(np.uint32) >> 16)


def test_what_is_written_is_read_back(tmp_path):
    digest = write_safetensors(tmp_path / "x.safetensors", ARRAYS, {"format": "pt"})
    with open_source(tmp_path / "x.safetensors") as source:
        assert source.format == "safetensors"
        assert source.metadata == {"format": "pt"}
        assert source.names() == list(ARRAYS)
        assert source.sha256() == digest.sha256
        for name, array in ARRAYS.items():
            value = source.read(name)
            assert (value.dtype, value.shape) == (array.dtype.newbyteorder("="), array.shape)
            np.testing.assert_array_equal(value, array, err_msg=name)


def test_the_library_reads_what_is_written(tmp_path):
    library = pytest.importorskip("safetensors.numpy", reason="the safetensors library is absent")
    write_safetensors(tmp_path / "x.safetensors", ARRAYS, {"format": "pt"})
    found = library.load_file(tmp_path / "x.safetensors")
    assert sorted(found) == sorted(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_floats_are_written_in_the_type_that_is_asked_for(tmp_path, dtype):
    exact = {"w": np.float32([1.0, -2.5, 0.1, np.inf]), "n": np.int64([3]), "s": np.float32(0.1)}
    write_safetensors(tmp_path / "x.safetensors", exact, dtype=dtype)
    with open_source(tmp_path / "x.safetensors") as source:
        assert source.dtype("w") == dtype
        assert source.dtype("n") == "int64"
        for name in ("w", "s"):
            assert source.shape(name) == exact[name].shape
            np.testing.assert_allclose(source.read(name), exact[name], rtol=2**-8)


def test_bfloat16_is_rounded_to_the_nearest_and_ties_to_even():
    bits = np.uint32([0x3F800000, 0x3F808000, 0x3F818000, 0x3F808001, 0x7F7FFFFF, 0xFFFFFFFF])
    rounded = float32_to_bfloat16(bits.view(np.float32))
    np.testing.assert_array_equal(rounded, [0x3F80, 0x3F80, 0x3F82, 0x3F81, 0x7F80, 0xFFFF])


def test_a_failing_write_leaves_the_old_file(tmp_path):
    write_safetensors(tmp_path / "x.safetensors", ARRAYS)
    before = (tmp_path / "x.safetensors").read_bytes()
    with pytest.raises(TypeError, match="cannot be stored"):
        write_safetensors(tmp_path / "x.safetensors", {"x": np.array([None])})
    assert (tmp_path / "x.safetensors").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def entry(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "data", "reason"),
    [
        ({"a": entry(0, 8, [2])}, 4, "it ends too early"),
        ({"a": entry(0, 8, [2])}, 9, "there are 1 bytes after its end"),
        ({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, 12, "overlap or leave gaps"),
        ({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, 12, "overlap or leave gaps"),
        ({"a": entry(0, 8, [3])}, 8, "of shape [3] has 8 bytes"),
        ({"a": entry(0, 8, [-2])}, 8, "no proper shape"),
        ({"a": entry(0, 8, [2**62, 2**62])}, 8, "has 8 bytes"),
        ({"a": entry(0, 0, [0, 2**62])}, 0, "no proper number"),
        ({"a": entry(0, 0, [2] * 40 + [0])}, 0, "a tensor of 41 axes"),
        ({"a": entry(8, 0, [2])}, 8, "no proper pair"),
        ({"a": entry(-8, 0, [2])}, 8, "overlap or leave gaps"),
        ({"a": {"dtype": "F32"}}, 0, "data_offsets"),
        ({"a": 3}, 0, "damaged"),
        ({"__metadata__": {"a": 3}}, 0, "no table of text"),
        (b'{"a":1,"a":2}', 0, "two entries of its header have the same name"),
        (b'{"a":' + b'{"a":' * 100_000, 0, "damaged"),
        (b'{"a', 0, "damaged"),
        (b'{"\xff":1}', 0, "damaged"),
    ],
)
def test_a_header_that_contradicts_itself_is_damage(tmp_path, header, data, reason):
    text = refusal(file_of(tmp_path / "x.safetensors", header, b"\0" * data))
    assert "the file is damaged (" in text
    assert reason in text


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F4", "Q8"])
def test_types_of_eight_bits_and_fewer_are_refused_with_advice(tmp_path, dtype):
    path = file_of(tmp_path / "x.safetensors", {"a": entry(0, 2, [2], dtype)}, b"\0\0")
    assert f"tensor 'a' is of type '{dtype}', which cannot be read" in refusal(path)


def test_a_header_of_absurd_length_is_not_read(tmp_path):
    (tmp_path / "x.safetensors").write_bytes((100 << 20).to_bytes(8, "little") + b'{"a":1}')
    assert "its header claims to be 104857600 bytes long" in refusal(tmp_path / "x.safetensors")


def test_a_truncated_file_says_so(tmp_path):
    write_safetensors(tmp_path / "x.safetensors", ARRAYS)
    content = (tmp_path / "x.safetensors").read_bytes()
    for length in (9, 100, len(content) - 1):
        (tmp_path / "x.safetensors").write_bytes(content[:length])
        assert "it ends too early" in refusal(tmp_path / "x.safetensors")

"""NumPy archives as sources: names and values as NumPy's, objects and bombs refused."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from passl.checkpoint import zips
from passl.checkpoint.sources import open_source
from passl.errors import CheckpointError

ARRAYS = {
    "Transformer/encoderblock_0/LayerNorm_0/scale": np.arange(6, dtype=np.float32).reshape(2, 3),
    "embedding/kernel": np.asfortranarray(np.arange(24, dtype=np.float32).reshape(2, 3, 4)),
    "empty": np.zeros((0, 4), np.float32),
    "scalar": np.asarray(7, np.int64),
    "half": np.float16([0.5, -2]),
    "big_endian": np.arange(3, dtype=">f8"),
    "mask": np.array([True, False]),
    "bytes": np.arange(4, dtype=np.uint8),
}


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_source(path)
    assert str(caught.value).startswith(f"{path}: "), caught.value
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_equal_numpys(tmp_path, save):
    save(tmp_path / "x.npz", **ARRAYS)
    with open_source(tmp_path / "x.npz") as source:
        assert (source.format, source.wrapper, source.ignored) == ("npz", "", {})
        assert source.names() == list(ARRAYS)
        for name, array in ARRAYS.items():
            value = source.read(name)
            assert (value.dtype, value.shape) == (array.dtype.newbyteorder("="), array.shape)
            assert source.dtype(name) == str(value.dtype)
            np.testing.assert_array_equal(value, array, err_msg=name)


def test_bfloat16_as_big_vision_writes_it_is_widened(tmp_path):
    exact = np.float32([1.0, -2.5, 3.140625])
    stored = (exact.view(np.uint32) >> 16).astype(np.uint16)
    np.savez(tmp_path / "x.npz", w=stored.view("V2"))
    with open_source(tmp_path / "x.npz") as source:
        assert source.dtype("w") == "bfloat16"
        np.testing.assert_array_equal(source.read("w"), exact)


def test_text_is_listed_and_not_read(tmp_path):
    np.savez(tmp_path / "x.npz", w=np.ones(2), name=np.array("ViT"))
    with open_source(tmp_path / "x.npz") as source:
        assert source.names() == ["w"]
        assert source.ignored == {"name": "an array of <U3"}


def test_an_array_of_objects_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", w=np.ones(2), x=np.array([None, "a"]))
    text = refusal(tmp_path / "x.npz")
    assert text.startswith("array 'x' holds Python objects, which NumPy stores as a pickle")
    assert "nothing was run" in text


def test_named_fields_and_unknown_types_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros(2, [("a", "f4")]))
    assert refusal(tmp_path / "x.npz").startswith("array 'x' has named fields")
    np.savez(tmp_path / "x.npz", x=np.zeros(2, "V3"))
    assert refusal(tmp_path / "x.npz").startswith("array 'x' is of type |V3")


def _archive(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (_npy(np.ones(4))[:-8], "array 'x' of shape (4,) has 24 bytes"),
        (_npy(np.ones(4)) + b"!", "array 'x' of shape (4,) has 33 bytes"),
        (_npy(np.ones(4)).replace(b"(4,)", b"(-1)"), "damaged"),
        (_npy(np.ones(4)).replace(b"(4,)", b"9**9"), "damaged"),
        (_npy(np.ones(4)).replace(b"'<f8'", b"'<q9'"), "damaged"),
        (_npy(np.ones(4)).replace(b"{'descr'", b"{[[[[[[["), "damaged"),
        (b"\x93NUMPY\x09\x00" + b"\0" * 90, "damaged"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535, "damaged"),
        (b"", "damaged"),
    ],
)
def test_a_member_that_contradicts_itself_is_damage(tmp_path, content, reason):
    text = refusal(_archive(tmp_path / "x.npz", {"x.npy": content}))
    assert "the file is damaged (" in text
    assert reason in text


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_changed_value_is_noticed_by_its_check_sum(tmp_path, method):
    rng = np.random.default_rng(0)
    path = _archive(tmp_path / "x.npz", {"x.npy": _npy(rng.random(1000))}, method)
    content = bytearray(path.read_bytes())
    content[4000] ^= 1
    path.write_bytes(content)
    with open_source(path) as source, pytest.raises(CheckpointError, match="the file is damaged"):
        source.read("x")


# -- archives that mean harm -----------------------------------------------------------------------


def test_a_bomb_is_refused_by_what_it_claims(tmp_path, monkeypatch):
    monkeypatch.setattr(zips, "_MAX_GROWN_BYTES", 10 << 20)
    bomb = b"\x93NUMPY" + bytes(11 << 20)
    _archive(tmp_path / "x.npz", {"x.npy": bomb}, zipfile.ZIP_DEFLATED)
    text = refusal(tmp_path / "x.npz")
    assert text.startswith("this is a zip archive that is refused: its ")
    assert "as in a zip bomb" in text


def test_a_member_that_claims_less_than_it_holds_is_damage(tmp_path):
    real, claimed = _npy(np.zeros(1 << 20)), _npy(np.zeros(1 << 10))
    path = _archive(tmp_path / "x.npz", {"x.npy": real}, zipfile.ZIP_DEFLATED)
    content = path.read_bytes().replace(struct.pack("<I", len(real)), struct.pack("<I", 300))
    path.write_bytes(content)
    assert "the file is damaged" in refusal(path)
    assert len(claimed) > 300


def test_members_that_overlap_are_refused(tmp_path):
    path = _archive(tmp_path / "x.npz", {"x.npy": _npy(np.zeros(1 << 10))})
    content = path.read_bytes()
    start = content.index(b"PK\x01\x02")
    record = content[start : content.index(b"PK\x05\x06")]
    copies = b"".join(record.replace(b"x.npy", b"%d.npy" % i) for i in range(10))
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 10, 10, len(copies), start, 0)
    path.write_bytes(content[:start] + copies + end)
    assert "its members overlap" in refusal(path)


def test_an_endless_directory_is_not_read(tmp_path):
    path = _archive(tmp_path / "x.npz", {"x.npy": _npy(np.zeros(4))})
    content = path.read_bytes()
    start = content.index(b"PK\x05\x06")
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, 0x7FFFFFFF, 0, 0)
    path.write_bytes(content[:start] + end)
    assert "its directory claims 1 members in 2147483647 bytes" in refusal(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_damage(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", _npy(np.ones(1)))
        archive.writestr("x.npy", _npy(np.ones(2)))
    assert "a zip file that is cut off" in refusal(tmp_path / "x.npz")

"""Files that torch.save wrote, read without torch: every kind of tensor, and what is refused.

The files are described in tests/golden/README.md.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from passl.checkpoint.sources import open_source
from passl.errors import CheckpointError

GOLDEN = Path(__file__).resolve().parents[3] / "golden"
FILES = GOLDEN / "torch_files"
#: What malicious.pth would make when a careless reader loads it.
MARKER = Path("/tmp/passl_evil_checkpoint_ran")  # noqa: S108 (the file decides where)


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_source(path)
    assert str(caught.value).startswith(f"{path}: "), caught.value
    return str(caught.value).removeprefix(f"{path}: ")


def timm_weights() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "vit.npz") as file:
        return {k.removeprefix("param/"): file[k] for k in file if k.startswith("param/")}


def rewritten(name: str, target: Path, change: dict[str, bytes | None]) -> Path:
    """A copy of an archive with members replaced, added, or (None) left out."""
    with zipfile.ZipFile(FILES / name) as old, zipfile.ZipFile(target, "w") as new:
        folder = old.namelist()[0].split("/")[0]
        contents = {n.split("/", 1)[1]: old.read(n) for n in old.namelist()}
        for member, content in {**contents, **change}.items():
            if content is not None:
                new.writestr(f"{folder}/{member}", content)
    return target


# -- read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["odd_zip.pth", "odd_legacy.pth", "odd_no_crc.pth", "odd_deflated.pth"]
)
def test_every_kind_of_tensor_equals_torchs(name):
    expected = np.load(FILES / "odd_expected.npz")
    with open_source(FILES / name) as source:
        assert (source.format, source.wrapper, source.ignored) == ("torch", "", {})
        assert source.names() == expected.files
        for tensor in source.names():
            value = source.read(tensor)
            assert value.dtype == expected[tensor].dtype, tensor
            assert value.shape == expected[tensor].shape == source.shape(tensor), tensor
            np.testing.assert_array_equal(value, expected[tensor], err_msg=tensor)
        assert source.dtype("bfloat16") == "bfloat16"
        assert source.dtype("half") == "float16"


def test_tensors_come_in_memory_of_their_own():
    with open_source(FILES / "odd_zip.pth") as source:
        first = source.read("base")
        first[:] = 0
        assert source.read("same_storage").any()


def test_a_deit_checkpoint_gives_the_model_and_lists_what_lies_beside_it():
    expected = timm_weights()
    with open_source(FILES / "deit_style.pth") as source:
        assert source.wrapper == "model"
        assert set(source.names()) == set(expected)
        for name, array in expected.items():
            np.testing.assert_array_equal(source.read(name), array, err_msg=name)
        assert source.ignored == {
            "epoch": "int 7",
            "args": "argparse.Namespace",
            "optimizer": "dict of 2 entries",
            "model_ema": f"dict of {len(expected)} entries, "
            "weights too: --wrapper model_ema takes them instead",
        }


def test_views_into_one_storage_are_told_apart():
    with open_source(FILES / "views_and_strides.pth") as source:
        assert source.names() == ["shared_a", "shared_b", "ddp/module.x"]
        with np.load(FILES / "views_expected.npz") as expected:
            for name in ("shared_a", "shared_b"):
                np.testing.assert_array_equal(source.read(name), expected[name])


@pytest.mark.parametrize("name", ["odd_training.pth", "odd_training_legacy.pth"])
def test_weights_deep_inside_a_training_checkpoint_are_found(name):
    with open_source(FILES / name) as source:
        assert source.wrapper == "state_dict/model"
        assert source.names() == ["weight", "bias"]
        weight = source.read("weight")
        assert source.ignored["args"] == "argparse.Namespace"
        assert source.ignored["when"] == "datetime.datetime"
        assert source.ignored["state_dict/step"] == "int 7"
        assert source.ignored["rng"] == "tensor of shape (4,)"
    with open_source(FILES / name, wrapper="state_dict_ema") as source:
        assert source.wrapper == "state_dict_ema"
        np.testing.assert_array_equal(source.read("weight"), 2 * weight)


def test_a_wrapper_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(CheckpointError) as caught:
        open_source(FILES / "odd_training.pth", wrapper="model_ema")
    assert "there is no dictionary 'model_ema' in it; there is: " in str(caught.value)
    assert "state_dict_ema" in str(caught.value)


def test_unsigned_types_of_new_torch_are_read():
    with open_source(FILES / "odd_uint16.pth") as source:
        np.testing.assert_array_equal(source.read("w"), np.uint16([1, 65535]))


def test_a_file_of_a_big_endian_machine_is_turned_around(tmp_path):
    expected = np.load(FILES / "odd_expected.npz")
    with zipfile.ZipFile(FILES / "odd_zip.pth") as archive:
        content = archive.read("odd_zip/data/0")
    swapped = {"byteorder": b"big", "data/0": np.frombuffer(content, "<f4").astype(">f4").tobytes()}
    path = rewritten("odd_zip.pth", tmp_path / "big.pth", swapped)
    with open_source(path) as source:
        for name in ("base", "transposed", "every_other"):
            np.testing.assert_array_equal(source.read(name), expected[name])
            assert source.read(name).dtype.isnative


def test_the_hash_is_that_of_the_file():
    import hashlib

    with open_source(FILES / "odd_zip.pth") as source:
        content = (FILES / "odd_zip.pth").read_bytes()
        assert source.sha256() == hashlib.sha256(content).hexdigest()


def test_a_name_that_is_not_there_gets_a_hint():
    with open_source(FILES / "odd_zip.pth") as source, pytest.raises(CheckpointError) as caught:
        source.read("bfloat61")
    assert "there is no tensor 'bfloat61' in it. Did you mean 'bfloat16'?" in str(caught.value)


# -- refused ---------------------------------------------------------------------------------------


def test_a_file_that_runs_a_command_is_refused_and_runs_nothing():
    MARKER.unlink(missing_ok=True)
    text = refusal(FILES / "malicious.pth")
    assert not MARKER.exists()
    assert text.startswith("refused, because loading it would run posix.system, and a file of ")
    assert "Nothing was run." in text


def test_the_old_format_is_no_way_around(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "would run posix.mkdir" in refusal(FILES / "odd_evil_legacy.pth")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("odd_module.pth", "holds a whole pickled model (torch.nn.modules.linear.Linear)"),
        ("odd_module_legacy.pth", "holds a whole pickled model (torch.nn.modules.linear.Linear)"),
        ("odd_torchscript.pt", "this is a TorchScript archive"),
        ("odd_sparse.pth", "holds tensors that are sparse"),
        ("odd_quantized.pth", "holds tensors that are quantized"),
        ("odd_float8.pth", "holds tensors of type float8_e4m3fn, which cannot be read"),
        ("odd_meta.pth", "holds tensors that are without values (device 'meta')"),
        ("odd_conjugated.pth", "holds tensors that are conjugated or negated in name only"),
    ],
)
def test_what_is_no_plain_tensor_is_refused_with_what_to_do(name, kind):
    text = refusal(FILES / name)
    assert text.startswith(kind)
    assert "torch is installed, save" in text or "torch are installed, save" in text


def test_a_storage_that_is_too_short_is_damage(tmp_path):
    path = rewritten("odd_zip.pth", tmp_path / "x.pth", {"data/0": b"\0" * 100})
    assert "the file is damaged (a tensor of shape (6, 8) reaches beyond its storage)" in refusal(
        path
    )


def test_a_missing_storage_is_damage(tmp_path):
    path = rewritten("odd_zip.pth", tmp_path / "x.pth", {"data/0": None})
    assert "the file is damaged (data/0 is missing in it)" in refusal(path)


def test_a_changed_value_is_noticed_by_its_check_sum(tmp_path):
    content = bytearray((FILES / "odd_zip.pth").read_bytes())
    with zipfile.ZipFile(FILES / "odd_zip.pth") as archive:
        info = archive.getinfo("odd_zip/data/0")
    with open_source(FILES / "odd_zip.pth") as source:
        place = content.index(source.read("base").tobytes())
    assert place > info.header_offset
    content[place + 5] ^= 1
    (tmp_path / "x.pth").write_bytes(content)
    with open_source(tmp_path / "x.pth") as source:
        for name in ("base", "column_view"):
            with pytest.raises(CheckpointError, match=f"tensor '{name}': the file is damaged "):
                source.read(name)
        assert source.read("half").shape == (5,)


def _with_pickle(path: Path, content: object) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content, 2))
    return path


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([1, 2], "holds list of 2 entries, not tensors by name."),
        ({}, "holds no tensors by name (its entries: none)."),
        ({"model": {"a": 1}, "x": 2}, "holds no tensors by name (its entries: model, x)."),
    ],
)
def test_a_file_without_tensors_says_what_it_holds(tmp_path, content, text):
    assert refusal(_with_pickle(tmp_path / "x.pth", content)) == text


def test_a_tensor_reaching_beyond_its_storage_is_damage(tmp_path):
    with zipfile.ZipFile(FILES / "odd_uint16.pth") as archive:
        code = archive.read("odd_uint16/data.pkl")
    assert code.count(b"K\x02\x85") == 1  # the shape (2,)
    for shape, text in (
        (b"K\x03\x85", "reaches beyond its storage"),
        (b"\x8a\x08" + b"\xff" * 7 + b"\x7f\x85", "no proper number"),
        (b"\x8a\x01\xff\x85", "no proper number"),
    ):
        change = {"data.pkl": code.replace(b"K\x02\x85", shape)}
        path = rewritten("odd_uint16.pth", tmp_path / "x.pth", change)
        assert text in refusal(path)


@pytest.mark.parametrize("length", [30, 100, 900, 2000, -1])
@pytest.mark.parametrize("name", ["odd_legacy.pth", "odd_zip.pth"])
def test_a_truncated_file_is_called_that(tmp_path, name, length):
    (tmp_path / "x.pth").write_bytes((FILES / name).read_bytes()[:length])
    text = refusal(tmp_path / "x.pth")
    assert "it ends too early" in text or "a zip file that is cut off" in text

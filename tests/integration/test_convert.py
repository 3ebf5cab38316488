"""``passl-convert`` as a user runs it: files in, files out, and every bad input a sentence."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import foreign_files as foreign
import numpy as np
import paddle
import pytest

from passl.checkpoint.convert.record import provenance_path
from passl.checkpoint.files import read_arrays, write_arrays
from passl.checkpoint.pretrained import load_pretrained
from passl.checkpoint.sources import open_source, write_safetensors
from passl.cli.convert import main
from passl.models import create_model

GOLDEN = foreign.GOLDEN
MODEL = foreign.TINY_OPTIONS


def run(capsys, *argv) -> tuple[int, str, str]:
    status = main([str(arg) for arg in argv])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def timm_file(tmp_path) -> Path:
    return foreign.save(tmp_path / "timm.safetensors", foreign.timm_params())


@pytest.fixture
def out(tmp_path) -> Path:
    """An empty folder; whatever appears in it was written by the command."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "dst.pdparams"


def refused(capsys, out: Path, *argv, status: int = 1) -> str:
    """Run a command that must fail; returns its message, having checked that nothing is left."""
    found, _, err = run(capsys, *argv)
    assert found == status, err
    assert "Traceback" not in err
    assert err.startswith("passl-convert: ")
    assert os.listdir(out.parent) == []
    return err


# -- what it does ----------------------------------------------------------------------------------


def test_a_converted_file_computes_the_original_logits(timm_file, out, capsys):
    status, text, _ = run(capsys, timm_file, out, *MODEL)
    assert status == 0
    assert "recognised as timm" in text
    model = create_model("VisionTransformer", **foreign.TINY)
    load_pretrained(model, out)
    model.eval()
    golden = foreign.golden()
    with paddle.no_grad():
        logits = model(paddle.to_tensor(golden["x"])).numpy()
    np.testing.assert_allclose(logits, golden["logits"], rtol=1e-5, atol=5e-6)
    assert sorted(os.listdir(out.parent)) == ["dst.pdparams", "dst.pdparams.provenance.json"]


def test_the_provenance_tells_where_the_weights_come_from(out, capsys):
    source = GOLDEN / "google_vit_pre_logits.npz"
    assert run(capsys, source, out, *MODEL)[0] == 0
    facts = json.loads(provenance_path(out).read_text())
    with open_source(source) as opened:
        assert facts["source"]["sha256"] == opened.sha256()
    assert facts["source"]["size"] == source.stat().st_size
    assert (facts["family"], facts["table"]) == ("google", "google-1")
    assert facts["file"]["size"] == out.stat().st_size
    assert (facts["pos_embed_method"], facts["grid_size"]) == ("zoom", [4, 4])
    assert set(facts["dropped"]) == {"pre_logits/kernel", "pre_logits/bias"}
    assert facts["model"]["args"]["embed_dim"] == 48
    assert facts["tensors"] == 32


def test_the_same_input_gives_the_same_bytes(timm_file, out, capsys):
    run(capsys, timm_file, out, *MODEL)
    first = out.read_bytes()
    run(capsys, timm_file, out, *MODEL, "--overwrite")
    assert out.read_bytes() == first


def test_there_and_back_is_bit_for_bit(timm_file, out, capsys):
    back = out.with_name("back.safetensors")
    assert run(capsys, timm_file, out, *MODEL)[0] == 0
    assert run(capsys, out, back, *MODEL)[0] == 0
    with open_source(timm_file) as first, open_source(back) as second:
        assert set(first.names()) == set(second.names())
        for name in first.names():
            np.testing.assert_array_equal(first.read(name), second.read(name), err_msg=name)
        assert second.metadata["format"] == "pt"


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-3), ("bfloat16", 8e-3)])
@pytest.mark.parametrize("suffix", [".pdparams", ".safetensors"])
def test_half_precision_halves_the_file(dtype, tolerance, suffix, timm_file, out, capsys):
    dst = out.with_suffix(suffix)
    assert run(capsys, timm_file, dst, *MODEL, "--dtype", dtype)[0] == 0
    assert dst.stat().st_size < 0.6 * timm_file.stat().st_size
    with open_source(dst) as source:
        name = "blocks.0.attn.qkv.bias"
        assert source.dtype(name) in (dtype, "uint16")
        np.testing.assert_allclose(
            source.read(name), foreign.timm_params()[name], rtol=tolerance, atol=1e-6
        )


def test_a_known_model_is_found_by_its_tensors(tmp_path, out, capsys):
    model = create_model("DeiT_tiny_distilled_patch16_384", class_num=7)
    path = tmp_path / "mine.pdparams"
    write_arrays(path, {name: value.numpy() for name, value in model.state_dict().items()})
    status, text, err = run(capsys, path, out)
    assert (status, err) == (0, "")
    assert "fills DeiT_tiny_distilled_patch16_384 with class_num=7: 155 tensors" in text


def test_a_representation_layer_that_no_such_model_has_is_dropped(tmp_path, out, capsys):
    model = create_model("ViT_tiny_patch16_224", class_num=7)
    arrays = {name: value.numpy() for name, value in model.state_dict().items()}
    arrays["head0.weight"] = np.zeros((192, 192), np.float32)
    arrays["head0.bias"] = np.zeros(192, np.float32)
    write_arrays(tmp_path / "ViT_tiny_patch16_224.pdparams", arrays)
    status, text, _ = run(capsys, tmp_path / "ViT_tiny_patch16_224.pdparams", out)
    assert status == 0
    assert "fills ViT_tiny_patch16_224 with class_num=7: 152 tensors" in text
    assert "dropped head0.bias: the model has no representation layer" in text


def test_a_representation_layer_is_said_to_have_no_place_in_timm(tmp_path, out, capsys):
    sizes = {**foreign.TINY, "in_chans": 1, "representation_size": 16}
    model = create_model("VisionTransformer", **sizes)
    path = tmp_path / "mine.pdparams"
    write_arrays(path, {name: value.numpy() for name, value in model.state_dict().items()})
    arguments = [*MODEL, "in_chans=1", "representation_size=16"]
    timms, back = out.with_suffix(".safetensors"), out.with_name("back.pdparams")
    assert "note: timm's models no longer have" in run(capsys, path, timms, *arguments)[1]
    assert "no longer" not in run(capsys, timms, back, *arguments)[1]
    assert back.read_bytes() == path.read_bytes()
    message = run(capsys, path, tmp_path / "x.pdparams")[2]
    assert "in_chans=1 representation_size=16" in message


def test_a_dry_run_prints_the_table_and_writes_nothing(timm_file, out, capsys):
    status, text, _ = run(capsys, timm_file, "--dry-run", *MODEL)
    assert status == 0
    assert "transpose(blocks.1.mlp.fc2.weight)" in text
    assert os.listdir(out.parent) == []


def test_the_averaged_weights_are_taken_on_request(out, capsys):
    source = GOLDEN / "torch_files" / "deit_style.pth"
    status, text, _ = run(capsys, source, out, *MODEL)
    assert status == 0
    assert "weights too: --wrapper model_ema takes them instead" in text
    assert text.count("--wrapper") == 1  # the optimizer's tensors are no weights
    plain = read_arrays(out)["head.bias"]
    assert run(capsys, source, out, *MODEL, "--wrapper", "model_ema", "--overwrite")[0] == 0
    assert json.loads(provenance_path(out).read_text())["source"]["wrapper"] == "model_ema"
    assert plain.shape == read_arrays(out)["head.bias"].shape


# -- proof -----------------------------------------------------------------------------------------


def test_stored_outputs_prove_a_conversion(out, capsys):
    reference = GOLDEN / "google_vit_expected.npz"
    status, text, _ = run(
        capsys, GOLDEN / "google_vit.npz", out, *MODEL, "--verify", "--reference", reference
    )
    assert status == 0
    assert "equal within 0.0001" in text
    assert "features" in text
    proof = json.loads(provenance_path(out).read_text())["verified"]
    assert max(proof["largest_difference"].values()) < 1e-5


def test_a_square_weight_that_was_not_transposed_is_caught(tmp_path, out, capsys):
    arrays = foreign.timm_params()
    name = "blocks.0.attn.proj.weight"
    arrays[name] = np.ascontiguousarray(arrays[name].T)
    reference = tmp_path / "expected.npz"
    np.savez(reference, x=foreign.golden()["x"], logits=foreign.golden()["logits"])
    source = foreign.save(tmp_path / "wrong.safetensors", arrays)
    status, text, err = run(
        capsys, source, out, *MODEL, "--verify", "--reference", reference
    )
    assert status == 1
    assert "NOT equal" in text
    assert "nothing was written" in err
    assert os.listdir(out.parent) == []


def test_without_anything_to_compare_with_it_says_what_is_needed(
    timm_file, out, capsys, monkeypatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = refused(capsys, out, timm_file, out, *MODEL, "--verify", status=2)
    assert "torch and timm cannot be imported" in message
    assert "--reference FILE.npz" in message


def test_timm_itself_proves_a_conversion_block_by_block(timm_file, out, capsys):
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("timm", reason="timm is not installed")
    status, text, _ = run(capsys, timm_file, out, *MODEL, "--verify")
    assert status == 0
    for name in ("embeddings", "blocks.0", "blocks.1", "norm", "logits"):
        assert f"\n{name} " in text
    lacking = "not proven: num_heads=4, epsilon=1e-06, act=gelu and global_pool=token, which no "
    assert f"\n{lacking}file shows: timm's general model was built with the same. --ref" in text
    assert json.loads(provenance_path(out).read_text())["verified"]["not_proven"] in text


def test_another_activation_is_given_to_timm_as_well(timm_file, out, capsys):
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("timm", reason="timm is not installed")
    status, text, _ = run(capsys, timm_file, out, *MODEL, "act=gelu_tanh", "--verify")
    assert status == 0, text
    assert "act=gelu_tanh and global_pool=token, which no file shows" in text


def test_timm_computes_with_the_activation_that_was_asked_for(timm_file, out, capsys):
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("timm", reason="timm is not installed")
    status, text, _ = run(capsys, timm_file, out, *MODEL, "act=quick_gelu", "--verify")
    assert (status, out.exists()) == (0, True)
    assert "equal within 0.0001" in text


def test_the_way_back_is_proved_by_timm_too(timm_file, out, capsys):
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("timm", reason="timm is not installed")
    assert run(capsys, timm_file, out, *MODEL)[0] == 0
    back = out.with_name("back.safetensors")
    status, text, _ = run(capsys, out, back, *MODEL, "--verify")
    assert (status, back.exists()) == (0, True)
    assert "equal within 0.0001" in text


def test_a_model_from_here_loads_in_timm_strictly_with_equal_logits(tmp_path, out, capsys):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    timm = pytest.importorskip("timm", reason="timm is not installed")
    from safetensors.torch import load_file

    model = create_model("DeiT_tiny_distilled_patch16_224", class_num=5, seed=3)
    ours = tmp_path / "ours.pdparams"
    write_arrays(ours, {name: value.numpy() for name, value in model.state_dict().items()})
    dst = out.with_suffix(".safetensors")
    assert run(capsys, ours, dst)[0] == 0
    theirs = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=5)
    theirs.load_state_dict(load_file(dst), strict=True)
    x = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(x)).numpy()
    model.eval()
    with paddle.no_grad():
        found = model(paddle.to_tensor(x)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["timm.safetensors", "google_vit.npz", "deit_style.pth"])
def test_a_truncated_file(name, tmp_path, timm_file, out, capsys):
    whole = {"timm.safetensors": timm_file, "google_vit.npz": GOLDEN / name,
             "deit_style.pth": GOLDEN / "torch_files" / name}[name]
    cut = tmp_path / f"cut_{name}"
    cut.write_bytes(whole.read_bytes()[:100_000])
    message = refused(capsys, out, cut, out, *MODEL)
    assert str(cut) in message


def test_damage_in_the_middle_leaves_nothing_half_written(tmp_path, out, capsys):
    damaged = bytearray((GOLDEN / "google_vit.npz").read_bytes())
    damaged[150_000] ^= 0xFF  # the checksum of that member no longer fits
    path = tmp_path / "damaged.npz"
    path.write_bytes(damaged)
    assert "damaged" in refused(capsys, out, path, out, *MODEL)


def test_a_file_of_another_family(out, capsys):
    message = refused(
        capsys, out, GOLDEN / "google_vit.npz", out, *MODEL, "--from", "vit_pytorch"
    )
    assert "these are not the names of 'vit_pytorch'" in message
    assert "--from google" in message


@pytest.mark.parametrize(("setting", "text"), [
    ("embed_dim=96", "the width is 48 in the file, 96 in the model"),
    ("depth=3", "the file has 2 blocks, the model 3"),
    ("patch_size=16", "the patch size is 8 in the file, 16 in the model"),
    ("in_chans=1", "the number of channels is 3 in the file, 1 in the model"),
    ("img_size=64", "the number of positions is 17 in the file, 65 in the model"),
])
def test_another_size_of_model(setting, text, timm_file, out, capsys):
    message = refused(capsys, out, timm_file, out, *MODEL, setting)
    assert text in message


def test_another_number_of_heads(out, capsys):
    message = refused(capsys, out, GOLDEN / "google_vit.npz", out, *MODEL, "num_heads=6")
    assert "have 4 heads" in message
    assert "-o num_heads=4" in message


def test_sizes_that_no_registered_model_has(timm_file, out, capsys):
    message = refused(capsys, out, timm_file, out)
    assert "no registered model has these tensors (width 48, 2 blocks" in message
    options = message.rpartition("-o ")[2].partition(" (")[0]
    options = options.replace("num_heads=...", "num_heads=4")
    named = ["--model", "VisionTransformer", "-o", *options.split()]
    assert run(capsys, timm_file, out, *named)[0] == 0
    expected = foreign.golden()
    arguments = json.loads(provenance_path(out).read_text())["model"]["args"]
    model = create_model("VisionTransformer", **arguments)
    load_pretrained(model, out)
    model.eval()
    with paddle.no_grad():
        found = model(paddle.to_tensor(expected["x"])).numpy()
    np.testing.assert_allclose(found, expected["logits"], rtol=1e-5, atol=5e-6)


def test_an_epsilon_that_nobody_chose_is_noted(timm_file, out, capsys):
    options = ["embed_dim=48", "depth=2", "num_heads=4", "patch_size=8", "qkv_bias=true"]
    arguments = [timm_file, out, "--model", "VisionTransformer", "-o", *options]
    status, text, _ = run(capsys, *arguments)
    assert status == 0
    assert "give -o epsilon=1e-06 if the original does" in text
    assert "give -o epsilon" not in run(capsys, *arguments, "epsilon=1e-6", "--overwrite")[1]


@pytest.mark.parametrize("name", ["blocks.1.norm2.weight", "norm.bias", "pos_embed"])
def test_a_missing_tensor(name, tmp_path, out, capsys):
    arrays = foreign.timm_params()
    del arrays[name]
    source = foreign.save(tmp_path / "x.safetensors", arrays)
    assert name in refused(capsys, out, source, out, *MODEL)


@pytest.mark.parametrize("gone", ["norm.bias", "blocks.1.attn.qkv.weight", "blocks.0."])
def test_what_may_be_missing_stays_as_initialised_and_is_listed(gone, tmp_path, out, capsys):
    whole = foreign.timm_params()
    missing = {name for name in whole if name.startswith(gone)}
    arrays = {name: array for name, array in whole.items() if name not in missing}
    source = foreign.save(tmp_path / "x.safetensors", arrays)
    status, text, _ = run(capsys, source, out, *MODEL, "--allow-missing", f"^{gone}")
    assert status == 0
    assert all(f"stays as initialised: {name}" in text for name in missing)
    assert set(json.loads(provenance_path(out).read_text())["missing"]) == missing


def test_extra_tensors(tmp_path, out, capsys):
    arrays = {**foreign.timm_params(), "decoder.weight": np.zeros((2, 2), np.float32)}
    source = foreign.save(tmp_path / "x.safetensors", arrays)
    assert "decoder.weight" in refused(capsys, out, source, out, *MODEL)
    status, text, _ = run(capsys, source, out, *MODEL, "--allow-missing", "decoder")
    assert status == 0
    assert "dropped decoder.weight" in text


def test_nan_in_the_weights(tmp_path, out, capsys):
    arrays = foreign.timm_params()
    arrays["blocks.1.mlp.fc1.weight"] = arrays["blocks.1.mlp.fc1.weight"].copy()
    arrays["blocks.1.mlp.fc1.weight"][0, 0] = np.nan
    source = foreign.save(tmp_path / "x.safetensors", arrays)
    message = refused(capsys, out, source, out, *MODEL)
    assert "blocks.1.mlp.fc1.weight: 1 of 9216 values are NaN" in message
    assert run(capsys, source, out, *MODEL, "--allow-non-finite")[0] == 0


def test_a_value_too_large_for_half_precision(tmp_path, out, capsys):
    arrays = {**foreign.timm_params()}
    arrays["head.bias"] = np.full(10, 1e6, np.float32)
    source = foreign.save(tmp_path / "x.safetensors", arrays)
    message = refused(capsys, out, source, out, *MODEL, "--dtype", "float16")
    assert "head.bias: 1e+06 is too large for float16" in message


@pytest.mark.parametrize(("suffix", "dtype", "small", "kept"), [
    (".pdparams", "float16", -2.9e-8, 3.1e-8),  # half of the least number, 2^-24
    (".safetensors", "float16", 2.9e-8, 3.1e-8),
    (".pdparams", "bfloat16", 2e-41, 6e-41),
    (".pdparams", "float32", 5e-46, 1e-45),
])  # fmt: skip
def test_numbers_that_become_zero_are_counted(suffix, dtype, small, kept, tmp_path, out, capsys):
    arrays = {**foreign.timm_params()}
    # Zeros were zeros before, and of the largest one sees whether it matters.
    arrays["head.bias"] = np.array([0, -0.0, small, small / 3, kept, 1, 1, 1, 1, 1])
    arrays["norm.bias"] = np.where(np.arange(48) < 3, np.array(small / 2), 1)
    source, path = foreign.save(tmp_path / "x.safetensors", arrays), out.with_suffix(suffix)
    status, text, _ = run(capsys, source, path, *MODEL, "--dtype", dtype)
    assert status == 0
    largest = f"the largest {abs(small):.3g} in head.bias"
    assert f"note: 5 numbers too small for {dtype} became 0, {largest}" in text.splitlines()
    told = json.loads(provenance_path(path).read_text())["became_zero"]
    assert told == {"numbers": 5, "largest": abs(small), "in": "head.bias"}


def test_weights_that_fit_the_type_get_no_note_of_zeros(timm_file, out, capsys):
    status, text, _ = run(capsys, timm_file, out, *MODEL, "--dtype", "bfloat16")
    assert status == 0
    assert "became 0" not in text
    assert json.loads(provenance_path(out).read_text())["became_zero"] is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_double_too_large_for_single_precision(dtype, tmp_path, out, capsys):
    arrays = {**foreign.timm_params()}
    arrays["head.bias"] = np.full(10, 1e39)
    source = foreign.save(tmp_path / "x.safetensors", arrays)
    message = refused(capsys, out, source, out, *MODEL, "--dtype", dtype)
    assert "head.bias: 1e+39 is too large for float32, which ends at 3.40282e+38" in message


def test_int8_tensors(tmp_path, out, capsys):
    arrays = {k: (v * 10).astype(np.int8) for k, v in foreign.timm_params().items()}
    source = foreign.save(tmp_path / "x.safetensors", arrays)
    assert "a quantised file" in refused(capsys, out, source, out, *MODEL)


def test_a_text_file_called_pth(tmp_path, out, capsys):
    path = tmp_path / "x.pth"
    path.write_text("<html><body>404 Not Found</body></html>")
    assert "web page" in refused(capsys, out, path, out, *MODEL)


def test_a_pickle_that_runs_code_is_refused_without_running_it(tmp_path, out, capsys):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    path = tmp_path / "evil.pdparams"
    path.write_bytes(pickle.dumps({"w": Evil()}))
    assert "Nothing was run" in refused(capsys, out, path, out, *MODEL)
    assert "Nothing was run" in refused(
        capsys, out, GOLDEN / "torch_files" / "malicious.pth", out, *MODEL
    )
    assert not (tmp_path / "touched").exists()


def test_a_zip_bomb(tmp_path, out, capsys):
    path = tmp_path / "bomb.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 33,)}
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cls.npy", header.getvalue() + bytes(50 << 20))
    refused(capsys, out, path, out, *MODEL)


def test_object_arrays(tmp_path, out, capsys):
    np.savez(tmp_path / "x.npz", cls=np.array([{"a": 1}], dtype=object))
    assert "x.npz" in refused(capsys, out, tmp_path / "x.npz", out, *MODEL)


def test_an_existing_file_is_not_replaced_unasked(timm_file, out, capsys):
    out.write_bytes(b"precious")
    status, _, err = run(capsys, timm_file, out, *MODEL)
    assert status == 1
    assert "--overwrite replaces it" in err
    assert out.read_bytes() == b"precious"


def test_the_source_is_never_the_destination(timm_file, capsys):
    status, _, err = run(capsys, timm_file, timm_file, *MODEL, "--overwrite")
    assert status == 2
    assert "would replace the file it is made from" in err


@pytest.mark.parametrize(("dst", "text"), [
    ("nowhere/x.pdparams", "does not exist; make it"),
    ("out/x.pth", "writes files that end in .pdparams"),
])
def test_a_destination_that_cannot_be(dst, text, tmp_path, timm_file, out, capsys):
    status, _, err = run(capsys, timm_file, tmp_path / dst, *MODEL)
    assert status in (1, 2)
    assert text in err


def test_a_folder_without_the_right_to_write(timm_file, out, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    assert "permission denied" in refused(capsys, out, timm_file, out, *MODEL)


def test_a_disk_without_room_is_noticed_before_writing(timm_file, out, capsys, monkeypatch):
    from passl.checkpoint.convert import output

    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(output.shutil, "disk_usage", lambda path: usage)
    message = refused(capsys, out, timm_file, out, *MODEL)
    assert "the disk has 1000 bytes free" in message


@pytest.mark.parametrize("failing", [".dst.pdparams.", ".dst.pdparams.provenance.json."])
def test_a_disk_that_fills_up_leaves_nothing(failing, timm_file, out, capsys, monkeypatch):
    from passl.checkpoint import disk

    replace = os.replace

    def full(source, target):
        if Path(source).name.startswith(failing + "tmp"):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(disk.os, "replace", full)
    assert "the disk is full" in refused(capsys, out, timm_file, out, *MODEL)


@pytest.mark.parametrize(("argv", "text"), [
    (["x.npz"], "where to? give DST"),
    (["x.npz", "y.pdparams", "-o", "depth=2"], "give it with --model NAME"),
    (["x.npz", "y.pdparams", "--model", "ViT_tiny_patch16_224", "-o", "depth"], "write KEY=VALUE"),
    (["https://example.org/x.npz", "y.pdparams"], "nothing is fetched unasked. Add --download"),
    (["x.npz", "y.pdparams", "--download"], "is a path, not an address"),
    (["ftp://example.org/x.npz", "y.pdparams", "--download"], "only http, https, file addresses"),
])
def test_mistakes_on_the_command_line(argv, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, _, err = run(capsys, *argv)
    assert status == 2
    assert text in err


def test_a_missing_file_is_a_sentence_with_the_nearest_name(timm_file, out, capsys):
    message = refused(capsys, out, timm_file.with_name("tim.safetensors"), out, *MODEL)
    assert "Did you mean" in message


def test_a_wrong_command_line_does_not_import_paddle():
    code = (
        "import sys; from passl.cli.convert import main; "
        "status = main(['https://example.org/x.npz', 'y.pdparams']); "
        "sys.exit(status if 'paddle' not in sys.modules else 99)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == 2


def test_a_folder_of_another_system_is_a_path_to_weights(tmp_path):
    """As Hugging Face's libraries leave it: named by the folder, and by the index of its shards."""
    params = foreign.timm_params()
    names = sorted(params)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, members in shards.items():
        write_safetensors(tmp_path / file, {name: params[name] for name in members}, {})
    index = tmp_path / "model.safetensors.index.json"
    weight_map = {name: file for file, members in shards.items() for name in members}
    index.write_text(json.dumps({"weight_map": weight_map}))
    with np.load(GOLDEN / "vit.npz") as stored:
        images, logits = stored["x"], stored["logits"]
    for path in (tmp_path, index):
        model = create_model("VisionTransformer", seed=1, **foreign.TINY)
        load_pretrained(model, path)
        model.eval()
        ours = model(paddle.to_tensor(images)).numpy()
        np.testing.assert_allclose(ours, logits, rtol=1e-5, atol=5e-6)

"""Each family's table: the golden model comes back with the logits that the original computed."""

from __future__ import annotations

import pickle
import tempfile
from dataclasses import replace
from pathlib import Path

import foreign_files as foreign
import numpy as np
import paddle
import pytest
from paddle import nn

from passl.checkpoint.convert import FAMILIES, convert_source, recognise
from passl.checkpoint.convert.rules import Drop, Rule
from passl.checkpoint.convert.targets import find_models, target_of
from passl.checkpoint.files import write_arrays
from passl.checkpoint.pretrained import load_arrays, load_pretrained
from passl.checkpoint.sources import open_source
from passl.errors import CheckpointError, ConfigError
from passl.models import create_model

GOLDEN = foreign.GOLDEN
TOLERANCE = {"rtol": 1e-5, "atol": 5e-6}  # the largest logit is about one


def logits(model, x) -> np.ndarray:
    model.eval()
    with paddle.no_grad():
        return model(paddle.to_tensor(x)).numpy()


def filled(arrays, name="VisionTransformer", **args):
    model = create_model(name, **{**foreign.TINY, **args})
    load_arrays(model, arrays, "test")
    return model


def assert_golden(path: Path, family: str, **args) -> None:
    """The file is recognised and computes the golden logits."""
    with open_source(path) as source:
        assert recognise(source) == family
        conversion = convert_source(source)
        conversion = conversion.shaped_for(
            {name: tuple(value.shape) for name, value in
             create_model("VisionTransformer", **{**foreign.TINY, **args}).state_dict().items()}
        )
        accounted = {name for use in conversion.used.values() for name in use.sources}
        assert accounted | set(conversion.dropped) == set(source.names())
        assert all(conversion.dropped.values())
        model = filled(conversion.arrays, **args)
    expected = foreign.golden()
    np.testing.assert_allclose(logits(model, expected["x"]), expected["logits"], **TOLERANCE)


SPELLINGS = {
    "timm": (foreign.timm_params, "timm"),
    "data parallel and compiled": (
        lambda: {f"module._orig_mod.{k}": v for k, v in foreign.timm_params().items()}, "timm"),
    "lightning": (lambda: {f"model.net.{k}": v for k, v in foreign.timm_params().items()}, "timm"),
    "huggingface": (lambda: foreign.as_huggingface(foreign.timm_params()), "huggingface"),
    "vit_pytorch": (lambda: foreign.as_vit_pytorch(foreign.timm_params()), "vit_pytorch"),
    "lucidrains": (lambda: foreign.as_lucidrains(foreign.timm_params()), "lucidrains"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_file_of_each_origin_computes_the_original_logits(spelling, tmp_path):
    make, family = SPELLINGS[spelling]
    assert_golden(foreign.save(tmp_path / "x.safetensors", make()), family)


@pytest.mark.parametrize("scan", [False, True], ids=["blocks apart", "blocks stacked"])
@pytest.mark.parametrize("no_embed_class", [False, True])
def test_big_vision_with_and_without_a_position_for_the_class_token(scan, no_embed_class, tmp_path):
    arrays = foreign.as_big_vision(foreign.timm_params(), scan=scan)
    assert_golden(
        foreign.save(tmp_path / "x.npz", arrays), "google", no_embed_class=no_embed_class
    )


@pytest.mark.parametrize("separate", [False, True], ids=["fused qkv", "separate q, k, v"])
def test_passl_2_and_plsc(separate, tmp_path):
    arrays = foreign.as_passl2(foreign.timm_params(), separate=separate)
    write_arrays(tmp_path / "x.pdparams", arrays)
    assert_golden(tmp_path / "x.pdparams", "passl")


def test_float32_masters_are_used_in_place_of_halves(tmp_path):
    exact = foreign.as_passl2(foreign.timm_params())
    halves = {name: value.astype(np.float16) for name, value in exact.items()}
    masters = {f"master_weights/{name}": value for name, value in exact.items()}
    write_arrays(tmp_path / "x.pdparams", {**halves, **masters})
    assert_golden(tmp_path / "x.pdparams", "passl")
    with open_source(tmp_path / "x.pdparams") as source:
        dropped = convert_source(source).dropped
    assert dropped["norm.weight"] == "its float32 master master_weights/norm.weight is used"


def test_head0_of_passl_2_is_the_representation_layer(tmp_path):
    arrays = foreign.as_passl2(foreign.timm_params())
    arrays["head0.weight"] = np.eye(48, dtype=np.float32)
    arrays["head0.bias"] = np.zeros(48, np.float32)
    write_arrays(tmp_path / "x.pdparams", arrays)
    with open_source(tmp_path / "x.pdparams") as source:
        model = filled(convert_source(source).arrays, representation_size=48)
    np.testing.assert_array_equal(model.pre_logits.fc.weight.numpy(), np.eye(48))


def test_a_normalisation_before_the_blocks_brings_a_word_on_quick_gelu(tmp_path):
    """timm's quickgelu models have the same tensors; only their names tell them apart."""
    plain = foreign.timm_params()
    clip = {**plain, **{f"norm_pre.{part}": plain[f"norm.{part}"] for part in ("weight", "bias")}}
    for arrays, is_told in ((plain, False), (clip, True)):
        with open_source(foreign.save(tmp_path / "x.safetensors", arrays)) as source:
            assert any("quickgelu" in note for note in convert_source(source).notes) == is_told


@pytest.mark.parametrize(
    ("file_name", "found"),
    [
        ("model.safetensors", "vit_base_patch32_clip_224"),
        ("vit_base_patch32_clip_224.safetensors", "vit_base_patch32_clip_224"),
        ("vit_base_patch32_clip_quickgelu_224.pth", "vit_base_patch32_clip_quickgelu_224"),
    ],
)
def test_quick_gelu_is_taken_for_what_a_name_says_and_never_guessed(file_name, found, tmp_path):
    size = {"class_num": 10, "img_size": 224}
    with open_source(foreign.save(tmp_path / "x.pth", foreign.timm_params())) as source:
        other = convert_source(source)
        target = target_of("vit_base_patch32_clip_224", size, other)
        models = find_models(replace(other, shapes=target.shapes), file_name)
    assert len(models) == 2  # the command names both
    assert models[0].name == found


@pytest.mark.parametrize("dump", ["", "opt/target/", "params/", "params/img/"])
def test_google_files_equal_timms_reading_of_them(dump, tmp_path):
    with np.load(GOLDEN / "google_vit.npz") as file:
        foreign.save(tmp_path / "x.npz", {dump + name: file[name] for name in file.files})
    with open_source(tmp_path / "x.npz") as source:
        conversion = convert_source(source)
        assert (conversion.family, conversion.num_heads) == ("google", 4)
        model = filled(conversion.arrays)
    with np.load(GOLDEN / "google_vit_expected.npz") as expected:
        np.testing.assert_allclose(logits(model, expected["x"]), expected["logits"], **TOLERANCE)


def test_googles_representation_layer_is_kept():
    with open_source(GOLDEN / "google_vit_pre_logits.npz") as source:
        model = filled(convert_source(source).arrays, representation_size=48)
    with np.load(GOLDEN / "google_vit_pre_logits_expected.npz") as expected:
        np.testing.assert_allclose(
            logits(model, expected["x"]), expected["logits_with_pre_logits_layer"], **TOLERANCE
        )


def test_distilled_deit_averages_both_heads(tmp_path):
    with np.load(GOLDEN / "deit_distilled.npz") as file:
        arrays = {name[6:]: file[name] for name in file.files if name.startswith("param/")}
        x, expected = file["x"], file["logits_eval"]
    with open_source(foreign.save(tmp_path / "x.safetensors", arrays)) as source:
        model = filled(convert_source(source).arrays, "DistilledVisionTransformer")
    np.testing.assert_allclose(logits(model, x), expected, **TOLERANCE)


def test_a_checkpoint_of_deits_training_script_is_recognised():
    with open_source(GOLDEN / "torch_files" / "deit_style.pth") as source:
        assert recognise(source) == "deit"
        assert convert_source(source).pos_embed_method == "bicubic"


def test_deit_iii_keeps_its_layer_scale_beside_the_layers(tmp_path):
    arrays = foreign.timm_params()
    for i in (0, 1):
        for n in (1, 2):
            arrays[f"blocks.{i}.gamma_{n}"] = np.full(48, i + n / 10, np.float32)
    with open_source(foreign.save(tmp_path / "x.safetensors", arrays)) as source:
        assert recognise(source) == "deit"
        model = filled(convert_source(source).arrays, init_values=1e-6)
    assert float(model.blocks[1].ls2.gamma[0]) == pytest.approx(1.2)


@pytest.mark.parametrize("hugging", [False, True])
def test_dinov2_registers_take_the_class_tokens_position_along(hugging, tmp_path):
    arrays = foreign.timm_params()
    registers = np.random.default_rng(0).standard_normal((1, 4, 48)).astype(np.float32)
    del arrays["head.weight"], arrays["head.bias"]
    if hugging:
        arrays = _huggingface_dinov2(arrays, registers)
    else:
        arrays = {**arrays, "register_tokens": registers, "mask_token": np.zeros((1, 48), "f4")}
    with open_source(foreign.save(tmp_path / "x.safetensors", arrays)) as source:
        assert recognise(source) == ("huggingface_dinov2" if hugging else "dinov2")
        conversion = convert_source(source)
        found = dict(conversion.arrays)
    p = foreign.timm_params()
    np.testing.assert_array_equal(found["reg_token"], registers)
    np.testing.assert_array_equal(found["cls_token"], p["cls_token"] + p["pos_embed"][:, :1])
    np.testing.assert_array_equal(found["pos_embed"], p["pos_embed"][:, 1:])
    assert any("mask_token" in name for name in conversion.dropped)
    args = {"class_num": 0, "reg_tokens": 4, "no_embed_class": True}
    if hugging:
        args["init_values"] = 1.0
    filled(found, **args)


def _huggingface_dinov2(p, registers):
    out = {
        name.replace("layernorm_before", "norm1").replace("layernorm_after", "norm2")
        .replace("intermediate.dense", "mlp.fc1"): value
        for name, value in foreign.as_huggingface({**p, "head.weight": 0, "head.bias": 0},
                                                  "dinov2.").items()
        if not name.startswith("classifier")
    }
    out = {
        name.replace("output.dense", "mlp.fc2") if ".attention." not in name else name: value
        for name, value in out.items()
    }
    for i in (0, 1):
        for n in (1, 2):
            out[f"dinov2.encoder.layer.{i}.layer_scale{n}.lambda1"] = np.ones(48, np.float32)
    return {**out, "dinov2.embeddings.register_tokens": registers}


@pytest.mark.parametrize(("family", "name", "key", "args"), [
    ("illama", "iLLaMA", "logits/0.0", {}),
    ("vit_llama", "ViT_LLaMA", "logits", {
        "qkv_bias": True, "epsilon": 1e-6, "llama_dim": 64, "llama_num_heads": 4,
        "llama_hidden_dim": 192,
    }),
])
def test_models_with_parts_of_llama_compute_their_authors_logits(
    family, name, key, args, tmp_path
):
    with np.load(GOLDEN / f"{family}.npz") as file:
        arrays = {entry[6:]: file[entry] for entry in file.files if entry.startswith("param/")}
        x, expected = file["x"], file[key]
    path = foreign.save(tmp_path / "x.safetensors", arrays)
    size = {k: v for k, v in foreign.TINY.items() if k not in ("qkv_bias", "epsilon")}
    model = create_model(name, **{**size, **args})
    report = load_pretrained(model, path)
    assert report.table == f"{family}-1"
    np.testing.assert_allclose(logits(model, x), expected, **TOLERANCE)


# -- hybrids ---------------------------------------------------------------------------------------


def test_googles_hybrids_fill_the_backbone_with_flat_norms(tmp_path):
    rng = np.random.default_rng(0)
    model = create_model("R26_ViT_small_patch32_224", depth=1, class_num=3)
    arrays = _google_hybrid(model, rng)
    with open_source(foreign.save(tmp_path / "x.npz", arrays)) as source:
        conversion = convert_source(source)
        assert set(conversion.shapes) == set(model.state_dict())
        found = dict(conversion.arrays)
    load_arrays(model, found, "test")
    np.testing.assert_array_equal(
        found["patch_embed.backbone.stages.1.blocks.0.downsample.conv.weight"],
        arrays["block2/unit1/conv_proj/kernel"].transpose(3, 2, 0, 1),
    )
    np.testing.assert_array_equal(
        found["patch_embed.backbone.stages.0.blocks.1.norm3.bias"],
        arrays["block1/unit2/gn3/bias"].reshape(-1),
    )


def _google_hybrid(model, rng):
    """Google's names for every tensor of our hybrid, filled with noise."""
    out = {}
    for name, tensor in model.state_dict().items():
        shape = tuple(tensor.shape)
        if not name.startswith("patch_embed.backbone."):
            continue
        part = name[len("patch_embed.backbone."):].split(".")
        if part[0] == "stem":
            base, kind = "", part[1].replace("norm", "gn_root").replace("conv", "conv_root")
        else:
            base = f"block{int(part[1]) + 1}/unit{int(part[3]) + 1}/"
            kind = part[4].replace("norm", "gn")
            if kind == "downsample":
                kind = "conv_proj" if part[5] == "conv" else "gn_proj"
        if len(shape) == 4:
            out[f"{base}{kind}/kernel"] = rng.standard_normal(
                (shape[2], shape[3], shape[1], shape[0])).astype(np.float32)
        else:
            end = "scale" if part[-1] == "weight" else "bias"
            out[f"{base}{kind}/{end}"] = rng.standard_normal((1, 1, 1, *shape)).astype(np.float32)
    dim = model.embed_dim
    plain = {
        "cls": (1, 1, dim), "Transformer/posembed_input/pos_embedding": (1, 50, dim),
        "embedding/kernel": (1, 1, 2048, dim), "embedding/bias": (dim,),
        "Transformer/encoder_norm/scale": (dim,), "Transformer/encoder_norm/bias": (dim,),
        "head/kernel": (dim, 3), "head/bias": (3,),
    }
    block, heads = "Transformer/encoderblock_0", "MultiHeadDotProductAttention_1"
    for norm in ("LayerNorm_0", "LayerNorm_2"):
        plain.update({f"{block}/{norm}/scale": (dim,), f"{block}/{norm}/bias": (dim,)})
    for key in ("query", "key", "value"):
        plain.update({f"{block}/{heads}/{key}/kernel": (dim, 6, 64),
                      f"{block}/{heads}/{key}/bias": (6, 64)})
    plain.update({
        f"{block}/{heads}/out/kernel": (6, 64, dim), f"{block}/{heads}/out/bias": (dim,),
        f"{block}/MlpBlock_3/Dense_0/kernel": (dim, 4 * dim),
        f"{block}/MlpBlock_3/Dense_0/bias": (4 * dim,),
        f"{block}/MlpBlock_3/Dense_1/kernel": (4 * dim, dim),
        f"{block}/MlpBlock_3/Dense_1/bias": (dim,),
    })
    out.update({
        name: rng.standard_normal(shape).astype(np.float32) for name, shape in plain.items()
    })
    return out


# -- tables ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_table_names_its_source_and_gives_a_reason_for_each_drop(family):
    table = FAMILIES[family]
    assert table.source
    assert table.title
    assert all(row.reason for row in table.rows if isinstance(row, Drop))
    assert any(isinstance(row, Rule) for row in table.rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_page_lists_the_family_as_it_is(family, repo):
    rows = (repo / "docs" / "convert.md").read_text().splitlines()
    (row,) = [row for row in rows if row.startswith(f"| `{family}` |")]
    assert row.endswith(f"| `{FAMILIES[family].pos_embed_method}` |")


def test_a_layer_of_square_weights_is_transposed_by_its_type(tmp_path):
    """attn.proj is 48 x 48: only the name can tell that it is a Linear weight."""
    arrays = foreign.timm_params()
    with open_source(foreign.save(tmp_path / "x.safetensors", arrays)) as source:
        found = convert_source(source).arrays["blocks.0.attn.proj.weight"]
    np.testing.assert_array_equal(found, arrays["blocks.0.attn.proj.weight"].T)


def test_torch_layout_in_a_pdparams_file_is_noticed(tmp_path):
    """What a conversion by hand that forgot to transpose leaves behind."""
    write_arrays(tmp_path / "x.pdparams", foreign.timm_params())
    assert_golden(tmp_path / "x.pdparams", "timm")
    with (
        open_source(tmp_path / "x.pdparams") as source,
        pytest.raises(CheckpointError, match=r"stored \[out, in\], .* give --from timm"),
    ):
        convert_source(source, "passl")


def test_another_family_than_the_files_is_named_with_the_nearest():
    with (
        open_source(GOLDEN / "google_vit.npz") as source,
        pytest.raises(CheckpointError, match=r"knows 0 of 40\. 'google' .* give --from google"),
    ):
        convert_source(source, "huggingface")


def test_an_unknown_family_is_a_sentence():
    with (
        open_source(GOLDEN / "google_vit.npz") as source,
        pytest.raises(ConfigError, match=r"no family is called 'tensorflow'\. Known"),
    ):
        convert_source(source, "tensorflow")


def test_a_missing_value_projection_is_named():
    arrays = foreign.as_huggingface(foreign.timm_params())
    del arrays["vit.encoder.layer.1.attention.attention.value.bias"]
    with pytest.raises(
        CheckpointError, match=r"blocks.1.attn.qkv.bias is made of .*value.bias is missing"
    ):
        _plan(arrays)


@pytest.mark.parametrize(("gone", "text"), [
    ("blocks.0.", "block 0 is missing: the file has blocks up to 1"),
    ("blocks.1.mlp.fc2.bias", "blocks.1.mlp.fc2.bias is missing, which other blocks have"),
])
def test_a_gap_in_the_blocks_is_named(gone, text):
    arrays = {k: v for k, v in foreign.timm_params().items() if not k.startswith(gone)}
    with pytest.raises(CheckpointError, match=text):
        _plan(arrays)


def test_a_tensor_that_no_row_knows_is_refused_unless_allowed():
    arrays = {**foreign.timm_params(), "blocks.0.attn.relative_bias": np.zeros(3, np.float32)}
    with pytest.raises(CheckpointError, match=r"1 of 33 tensors .* blocks.0.attn.relative_bias"):
        _plan(arrays)
    assert "blocks.0.attn.relative_bias" in _plan(arrays, allow=["relative"]).dropped


def test_quantised_weights_are_refused():
    arrays = {**foreign.timm_params()}
    arrays["blocks.0.mlp.fc1.weight"] = arrays["blocks.0.mlp.fc1.weight"].astype(np.int8)
    with pytest.raises(CheckpointError, match=r"holds int8, so .* a quantised file"):
        _plan(arrays)


def _plan(arrays, **options):
    with tempfile.TemporaryDirectory() as folder:
        path = foreign.save(Path(folder) / "x.safetensors", arrays)
        with open_source(path) as source:
            return convert_source(source, **options)


# -- loading without the command -------------------------------------------------------------------


def test_load_pretrained_converts_on_the_fly_and_says_so(tmp_path):
    path = foreign.save(tmp_path / "x.safetensors", foreign.as_huggingface(foreign.timm_params()))
    model = create_model("VisionTransformer", **foreign.TINY)
    report = load_pretrained(model, path)
    expected = foreign.golden()
    np.testing.assert_allclose(logits(model, expected["x"]), expected["logits"], **TOLERANCE)
    assert "converted by table huggingface-1" in str(report)
    assert "not used vit.embeddings.mask_token: the token of masked patches" in str(report)
    assert "note: Hugging Face's ViT normalises with an epsilon of 1e-12" in str(report)


def test_averaged_weights_that_were_left_in_the_file_are_told(tmp_path):
    ours = {name: array.numpy() for name, array in
            create_model("VisionTransformer", **foreign.TINY).state_dict().items()}
    averaged = {name: array + 1 for name, array in ours.items()}
    content = {"model": ours, "model_ema": averaged, "epoch": 3}
    (tmp_path / "x.pdparams").write_bytes(pickle.dumps(content))
    model = create_model("VisionTransformer", **foreign.TINY)
    report = load_pretrained(model, tmp_path / "x.pdparams")
    np.testing.assert_array_equal(model.cls_token.numpy(), ours["cls_token"])
    assert "model was read; model_ema holds weights too: passl-convert --wrapper model_ema" in (
        str(report)
    )


def test_finetuning_a_google_file_resizes_as_google_does():
    model = create_model("VisionTransformer", **{**foreign.TINY, "img_size": 48, "class_num": 3})
    report = load_pretrained(model, GOLDEN / "google_vit.npz", finetune=True)
    assert "zoom" in report.resized["pos_embed"]
    assert set(report.reinitialised) == {"head.weight", "head.bias"}
    assert "the tanh form of GELU" in str(report)


def test_positions_of_a_google_file_are_resized_as_timm_does_it_on_request():
    expected = np.load(GOLDEN / "google_vit_grid_resize_expected.npz")
    model = create_model("VisionTransformer", **foreign.TINY)  # 4 x 4 patches, the file has 6 x 6
    file = GOLDEN / "google_vit_grid_resize.npz"
    report = load_pretrained(model, file, finetune=True, pos_embed_method="bilinear")
    assert report.resized == {"pos_embed": "grid 6x6 -> 4x4, bilinear"}
    np.testing.assert_allclose(model.pos_embed.numpy(), expected["pos_embed"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(logits(model, expected["x"]), expected["logits"], **TOLERANCE)
    # Google's own way is another: the tolerance tells the two apart
    load_pretrained(model, file, finetune=True)
    assert np.abs(logits(model, expected["x"]) - expected["logits"]).max() > 1e-3


def test_a_file_of_the_other_pooling_is_refused_with_the_setting_that_takes_it():
    params = foreign.timm_params()
    text = _load_problem(params, global_pool="avg")
    assert "Model.fc_norm=false normalises before the average and takes the file's norm" in text
    assert _load(params, global_pool="avg", fc_norm=False).missing == []
    averaged = {name.replace("norm.", "fc_norm.", name.startswith("norm.")): array
                for name, array in params.items()}
    text = _load_problem(averaged)
    assert "Model.global_pool=avg with Model.fc_norm=true takes the file's fc_norm" in text
    assert _load(averaged, global_pool="avg", fc_norm=True).missing == []
    allowed = [r"^norm\.", r"^fc_norm\."]
    assert _load(averaged, allow_missing=allowed).missing == ["norm.weight", "norm.bias"]


def _load(arrays, allow_missing=(), **args):
    with tempfile.TemporaryDirectory() as folder:
        path = foreign.save(Path(folder) / "x.safetensors", arrays)
        model = create_model("VisionTransformer", **foreign.TINY, **args)
        return load_pretrained(model, path, finetune=True, allow_missing=allow_missing)


def _load_problem(arrays, **args) -> str:
    with pytest.raises(CheckpointError) as caught:
        _load(arrays, **args)
    return str(caught.value)


def test_another_number_of_heads_is_refused_where_the_file_shows_it():
    model = create_model("VisionTransformer", **{**foreign.TINY, "num_heads": 3})
    with pytest.raises(CheckpointError, match=r"4 heads, .* Give Model\.num_heads=4"):
        load_pretrained(model, GOLDEN / "google_vit.npz")


def test_a_checkpoint_of_a_users_own_model_is_taken_as_it_is(tmp_path):
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    arrays = {name: value.numpy() + 1 for name, value in model.state_dict().items()}
    write_arrays(tmp_path / "own.pdparams", arrays)
    assert load_pretrained(model, tmp_path / "own.pdparams").table == ""
    np.testing.assert_array_equal(model[0].weight.numpy(), arrays["0.weight"])

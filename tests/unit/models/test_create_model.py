"""Models by name: lookup, wildcards, aliases, and what is said of a wrong name."""

from __future__ import annotations

import subprocess
import sys

import pytest

import passl
from passl.errors import ConfigError
from passl.models import create_model, list_models, model_spec

TINY = {"img_size": 32, "patch_size": 16, "depth": 1, "class_num": 4}


def test_a_name_is_built_with_its_settings_and_ours():
    model = create_model("ViT_tiny_patch16_224", **TINY)
    assert (model.embed_dim, model.depth, model.class_num) == (192, 1, 4)
    assert model.blocks[0].attn.num_heads == 3
    assert model.norm._epsilon == 1e-6
    assert model.training


@pytest.mark.parametrize("name", ["ViT_tiny_patch16_224", "vit_tiny_patch16_224", "ViT-Ti_16"])
def test_an_alias_builds_the_same_model(name: str):
    assert model_spec(name).name == "ViT_tiny_patch16_224"
    assert create_model(name, **TINY).embed_dim == 192


def test_package_offers_the_same_functions():
    assert passl.create_model is create_model
    assert passl.list_models is list_models


def test_timm_names_have_no_representation_layer():
    """Upper and lower case can be two models: timm's name must be what timm means by it."""
    for name in list_models("*"):
        spec = model_spec(name)
        for known in (name, *spec.aliases):
            if spec.qualname == "VisionTransformer" and known.startswith(("vit_", "ViT-")):
                assert spec.param("representation_size").default is None, known


@pytest.mark.parametrize(
    ("name", "representation"),
    [
        ("ViT_base_patch16_224", 768), ("ViT_base_patch32_224", 768),
        ("ViT_large_patch16_224", 1024), ("ViT_large_patch32_224", 1024),
        ("ViT_huge_patch14_224", 1280), ("ViT_g_patch14_224", 1408), ("ViT_G_patch14_224", 1664),
        ("ViT_6B_patch14_224", 2320), ("ViT_base_patch16_384", None),
        ("ViT_base_patch32_384", None), ("ViT_large_patch16_384", None),
        ("ViT_large_patch32_384", None), ("ViT_huge_patch14_384", None),
    ],
)
def test_passl_names_have_passl_representation(name: str, representation: int | None):
    assert model_spec(name).param("representation_size").default == representation


def test_google_names_with_dropout():
    rates = {name: model_spec(name).param("drop_rate").default
             for name in ("ViT-L_16", "ViT-H_14", "ViT-B_16", "ViT-L_32")}
    assert rates == {"ViT-L_16": 0.1, "ViT-H_14": 0.1, "ViT-B_16": 0.0, "ViT-L_32": 0.0}


# -- wildcards -------------------------------------------------------------------------------------


def test_wildcards_match_names_and_aliases_in_any_case():
    assert list_models("ViT_BASE_patch16_???") == [
        "ViT_base_patch16_224", "ViT_base_patch16_384", "vit_base_patch16_224",
    ]
    assert list_models("vit-ti*") == ["ViT_tiny_patch16_224"]
    assert list_models("vit_gigantic*") == ["vit_gigantic_patch14_224"]
    assert list_models("nothing*") == []


def test_listing_without_a_pattern_gives_names_not_aliases():
    names = list_models()
    assert len(names) == len(set(names))
    assert {"VisionTransformer", "ViT_6B_patch14_224"} <= set(names)
    assert "ViT-Ti_16" not in names


def test_listing_imports_neither_paddle_nor_numpy():
    code = (
        "import sys, passl; names = passl.list_models('vit*'); "
        "from passl.models.summary import num_parameters; num_parameters('ViT_6B_patch14_224'); "
        "print(len(names), sorted({'paddle', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{len(list_models('vit*'))} []"


# -- mistakes --------------------------------------------------------------------------------------


def test_unknown_model_is_answered_with_the_nearest_names():
    with pytest.raises(ConfigError) as error:
        create_model("ViT_tiny_patch16_225")
    assert str(error.value).startswith("no model is called 'ViT_tiny_patch16_225'; did you mean ")
    assert "ViT_tiny_patch16_224" in str(error.value)


def test_name_like_no_other_is_answered_with_the_list():
    with pytest.raises(ConfigError) as error:
        create_model("qqqqqqqq")
    assert str(error.value) == "no model is called 'qqqqqqqq'; `passl-models` lists them all"


def test_all_wrong_arguments_are_listed_at_once():
    with pytest.raises(ConfigError) as error:
        create_model("ViT_tiny_patch16_224", drop_pth_rate=0.1, depth=0, drop_rate=1.0)
    assert error.value.problems == [
        "ViT_tiny_patch16_224 has no argument 'drop_pth_rate'; did you mean drop_path_rate?",
        "ViT_tiny_patch16_224: depth: expected a whole number of at least 1, found 0",
        "ViT_tiny_patch16_224: drop_rate: expected a number of at least 0 and below 1, found 1.0",
    ]

"""The table of public weights agrees with the models here and with itself."""

from __future__ import annotations

import json
import re

import pytest

from passl.cli.models import main
from passl.models import check_arguments, list_models, model_spec
from passl.models.known_weights import KNOWN_WEIGHTS, list_weights, weights_at, weights_named
from passl.models.summary import image_size

each = pytest.mark.parametrize("weights", KNOWN_WEIGHTS, ids=lambda weights: weights.name)


@each
def test_each_line_names_a_model_that_exists_and_takes_images_of_that_size(weights):
    assert model_spec(weights.model).name == weights.model  # no alias: the table reads as docs do
    assert image_size(weights.model) == (weights.resolution, weights.resolution)
    if weights.args:
        key, _, value = weights.args.partition("=")
        check_arguments(model_spec(weights.model), {key: int(value)})


@each
def test_each_line_is_plausible(weights):
    assert weights.url.startswith("https://")
    assert weights.source
    assert weights.accuracy is None or 50 < weights.accuracy < 90
    assert re.fullmatch(r"[0-9a-f]{8}|[0-9a-f]{64}|", weights.sha256)
    assert weights.sha256[:8] in weights.url


def test_names_and_addresses_are_unique():
    assert len({weights.name for weights in KNOWN_WEIGHTS}) == len(KNOWN_WEIGHTS)
    assert len({weights.url for weights in KNOWN_WEIGHTS}) == len(KNOWN_WEIGHTS)


@each
def test_no_name_of_weights_hides_a_model(weights):
    assert not list_models(weights.name)


def test_weights_are_found_by_name_file_and_address():
    url = "https://storage.googleapis.com/vit_models/imagenet21k+imagenet2012/ViT-B_16-224.npz"
    found = weights_at(url)
    assert found is not None
    assert found is weights_at(url.replace("+", "%2B"))
    assert found is weights_named("vit-b_16-224.npz")
    assert {weights.source for weights in list_weights("*llama*")} == {
        "techmonsterwang/iLLaMA", "ziqipang/LM4VisualEncoding"
    }


def test_the_command_lists_weights(capsys):
    assert main(["--pretrained", "deit_base*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "top-1", "image", "model", "file"]
    assert len(lines) == 1 + 4 * 2 + 1
    assert "81.8" in lines[1]
    assert lines[2].strip().startswith("https://dl.fbaipublicfiles.com/deit/deit_base_patch16_224")
    assert main(["--pretrained", "nothing*"]) == 2
    assert "no weights match 'nothing*'" in capsys.readouterr().err


def test_the_table_of_all_weights_fits_into_120_columns_but_for_whole_addresses(capsys):
    assert main(["--pretrained"]) == 0
    printed = capsys.readouterr().out.splitlines()
    lines = [line for line in printed if not line.startswith("    https://")]
    assert max(map(len, lines)) <= 120
    (augreg,) = [line for line in lines if line.startswith("augreg-i21k-Ti_16-384 ")]
    assert "Ti_16-i21k" in augreg
    assert augreg.endswith("res_384.npz")
    assert "passl-models show NAME" in lines[-1]
    assert main(["--pretrained", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert len(listed) == len(lines) - 2 == len(printed) - len(lines)
    assert all(weights["url"].startswith("https://") for weights in listed)


def test_the_command_shows_how_to_fetch_and_convert(capsys):
    assert main(["show", "deit_tiny_patch16_224-a1311bcf.pth"]) == 0
    text = capsys.readouterr().out
    assert "72.2 %" in text
    assert (
        "passl-convert https://dl.fbaipublicfiles.com/deit/deit_tiny_patch16_224-a1311bcf.pth "
        "deit_tiny_patch16_224-a1311bcf.pdparams --model DeiT_tiny_patch16_224 --download"
    ) in text
    assert main(["show", "lm4-vit-small", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["file"] == ""


def test_a_model_lists_its_weights(capsys):
    assert main(["show", "DeiT_tiny_patch16_224"]) == 0
    assert "deit_tiny_patch16_224-a1311bcf  (top-1 72.2" in capsys.readouterr().out

"""Configs that ship are found by name, from any folder; a file that is there wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from passl.config import load_config
from passl.config.shipped import find_config_file, shipped_configs
from passl.errors import ConfigError

REPO = Path(__file__).resolve().parents[3]


def _message(name: str) -> str:
    with pytest.raises(ConfigError) as error:
        load_config(name)
    return str(error.value)


def test_every_config_of_the_checkout_has_a_name():
    files = {path for path in REPO.glob("configs/**/*.yaml") if "_base_" not in path.parts}
    files |= set(REPO.glob("tasks/**/configs/*.yaml"))
    assert set(shipped_configs().values()) == files
    assert len(files) > 30


@pytest.mark.parametrize(
    "name",
    [
        "ViT_base_patch16_224",
        "ViT_base_patch16_224.yaml",
        "quickstart/ViT_micro_digits",
        "quickstart/ViT_micro_digits.yaml",
        "ViT_micro_digits",  # the last part of a name, where one file has it
        "ViT_base_patch16_224_in1k_1n8c_dp_fp16o2",  # of tasks/
    ],
)
def test_a_name_is_the_file_from_any_folder(name):
    by_name = load_config(name)  # the current folder is an empty one
    file = next(
        path for path in shipped_configs().values() if path.stem == Path(name).stem.split(".")[0]
    )
    assert by_name.to_dict() == load_config(file).to_dict()
    assert by_name.source_path == file
    assert by_name.origin("Model.name").startswith(str(REPO / "configs"))


def test_paths_inside_a_shipped_config_are_not_moved():
    config = load_config("quickstart/ViT_micro_digits", ["Global.pretrained_model=a/b"])
    assert config.Global.output_dir == "./output/quickstart"
    assert config.Global.pretrained_model == "a/b"


def test_the_resolved_config_says_that_it_ships():
    first = load_config("ViT_base_patch16_224").to_yaml(origins=True).splitlines()[0]
    assert first.endswith("(the config ViT_base_patch16_224, which ships with PASSL)")
    assert load_config("ViT_base_patch16_224").argument == "ViT_base_patch16_224"


@pytest.mark.parametrize("typed", ["ViT_base_patch16_224.yaml", "ViT_base_patch16_224"])
def test_a_file_that_is_there_wins_and_that_is_said(write, base, typed):
    write("ViT_base_patch16_224.yaml", base)
    config = load_config(typed)
    assert config.Model["name"] == "ToyNet"
    assert config.notes == [
        "ViT_base_patch16_224.yaml: this file is read, not the config of the same name that ships "
        "with PASSL"
    ]
    assert config.notes[0] in config.to_yaml(origins=True)
    assert config.argument == "ViT_base_patch16_224.yaml"


def test_a_named_file_that_is_not_there_is_told_from_a_name(write):
    """It may have been one's own, meanwhile deleted or in another folder."""
    said = (
        "ViT_base_patch16_224.yaml: there is no such file here; the config of that name that ships "
        "is read"
    )
    assert load_config("ViT_base_patch16_224.yaml").notes == [said]
    assert load_config("ViT_base_patch16_224").notes == []
    write("mine.yaml", "_base_: ViT_base_patch16_224.yaml\n")
    assert load_config("mine.yaml").notes == [said]
    write("mine.yaml", "_base_: ViT_base_patch16_224\n")
    assert load_config("mine.yaml").notes == []


def test_a_folder_of_that_name_does_not_hide_the_config(tmp_path):
    (tmp_path / "ViT_base_patch16_224").mkdir()  # such as a run's
    assert find_config_file("ViT_base_patch16_224").name == "ViT_base_patch16_224"


def test_a_name_without_suffix_is_the_file_beside(write, base):
    write("runs/mine.yaml", base)
    assert load_config("runs/mine").source_path == Path("runs/mine.yaml")
    assert load_config("runs/mine").notes == []


def test_a_misspelled_name_is_answered_with_near_ones():
    message = _message("ViT_base_patch16_225")
    assert message.startswith(
        "ViT_base_patch16_225: no such file; of the configs that ship with PASSL, did you mean "
        "'ViT_base_patch16_224'"
    )
    assert "'quickstart/ViT_micro_digits'" in _message("ViT_micro_digit")


def test_a_name_like_no_other_is_told_where_the_names_are():
    assert _message("zzz") == (
        "zzz: no such file; passl-config list shows the configs that ship with PASSL"
    )


def test_a_path_of_the_checkout_is_not_guessed_but_answered_with_the_name():
    """It might be the reader's own file of that name, looked for from the wrong folder."""
    assert _message("configs/ViT_base_patch16_224.yaml") == (
        "configs/ViT_base_patch16_224.yaml: no such file (there is no folder configs); that one "
        "ships with PASSL: give its name, ViT_base_patch16_224"
    )


# -- bases -------------------------------------------------------------------------------------


def test_a_base_may_be_named(write):
    write("a/b/mine.yaml", "_base_: ViT_base_patch16_224\nGlobal: {epochs: 7}\n")
    config = load_config("a/b/mine.yaml")
    assert config.Global.epochs == 7
    assert config.Model["name"] == "ViT_base_patch16_224"
    assert config.origin("Global.epochs") == "a/b/mine.yaml:2"
    assert "ViT_base_patch16_224.yaml:" in config.origin("Model.name")


def test_parts_of_recipes_may_be_bases_by_name(write):
    bases = "_base_: [_base_/runtime, _base_/deit.yaml]\n"
    write("mine.yaml", f"{bases}Model: {{name: DeiT_tiny_patch16_224}}\n")
    assert load_config("mine.yaml").Global.save_unit == "epoch"


def test_a_file_beside_wins_as_a_base(write, base):
    write("ViT_base_patch16_224.yaml", base)
    write("mine.yaml", "_base_: ViT_base_patch16_224.yaml\n")
    config = load_config("mine.yaml")
    assert config.Model["name"] == "ToyNet"
    assert "not the config of the same name" in config.notes[0]


def test_ones_own_copy_may_begin_with_the_shipped_config_of_its_name(write):
    write("ViT_base_patch16_224.yaml", "_base_: ViT_base_patch16_224\nGlobal: {epochs: 7}\n")
    config = load_config("ViT_base_patch16_224.yaml")
    assert (config.Global.epochs, config.Model["drop_rate"]) == (7, 0.1)


def test_a_misspelled_base_is_answered_with_near_names(write):
    write("mine.yaml", "_base_: ViT_base_patch16_225\n")
    message = _message("mine.yaml")
    assert message.startswith("mine.yaml:1: _base_: ViT_base_patch16_225: no such file")
    assert "did you mean 'ViT_base_patch16_224'" in message


# -- other systems' files ----------------------------------------------------------------------


def test_a_json_file_without_our_sections_is_told_of_the_importer(write):
    write("vit.json", '{"data_config_path": "data.json", "train_config": {"epochs": 3}}')
    assert _message("vit.json") == (
        "vit.json: a JSON file without any section of a config; if it is myrtle-vision's: "
        "passl-config import-myrtle vit.json --out vit.yaml"
    )


def test_a_json_file_with_our_sections_is_a_config(write):
    write("own.json", '{"Model": {"name": "ToyNet"}, "Global": {"imports": ["fake_parts"]}}')
    assert load_config("own.json").Model["name"] == "ToyNet"

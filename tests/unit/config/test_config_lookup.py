"""A key is found by its name, a part, a pattern, or PASSL's name; the source says its meaning."""

from __future__ import annotations

import pytest

from passl.config.foreign import FOREIGN
from passl.config.keys import all_keys, fixed_keys, without_places
from passl.config.lookup import look_up, written_in
from passl.errors import ConfigError


def paths(text: str) -> list[str]:
    return [key.path for key in look_up(text).keys]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Global.epochs", ["Global.epochs"]),
        ("epochs", ["Global.epochs"]),
        ("Optimizer.AdamW.weight_decay", ["Optimizer.AdamW.weight_decay"]),
        ("AdamW.weight_decay", ["Optimizer.AdamW.weight_decay"]),
        ("Model.ViT_base_patch16_224.drop_rate", ["Model.ViT_base_patch16_224.drop_rate"]),
        ("AdamW", ["Optimizer.AdamW"]),
        ("Loss.Train.0.weight", ["Loss.Train.weight"]),
        ("Loss.Train.0.CELoss.epsilon", ["Loss.Train.CELoss.epsilon"]),
        ("Global.*_interval", ["Global.eval_interval", "Global.save_interval"]),
        ("sampler.batch_size", ["DataLoader.Train.sampler.batch_size"]),
        (
            "DataLoader.Eval.dataset.transform_ops.2.RandCropImage.size",
            ["DataLoader.Eval.dataset.transform_ops.RandCropImage.size"],
        ),
        (
            "DataLoader.Train.dataset.ImageNetDataset.transform_ops.RandCropImage.size",
            ["DataLoader.Train.dataset.transform_ops.RandCropImage.size"],
        ),
    ],
)
def test_a_key_is_found_by(text, found):
    assert paths(text) == found


def test_without_its_component_an_argument_is_that_of_each():
    found = look_up("Optimizer.weight_decay").keys
    assert {key.owner for key in found} >= {"AdamW", "Lion", "SGD"}
    assert {key.written for key in found} == {"Optimizer.weight_decay"}


def test_what_is_said_of_a_key_is_what_the_checker_knows():
    (key,) = look_up("FP16.GradScaler.decr_ratio").keys
    assert key.takes == "a number above 0 and below 1"
    assert key.default == "0.5"
    assert key.doc == "factor after `decr_every_n_nan_or_inf` bad steps."


def test_a_section_and_a_component_tell_what_is_below_them():
    assert [key.path for key in look_up("EMA").below] == [
        "EMA.decay", "EMA.warmup", "EMA.every", "EMA.eval_start_epoch",
    ]  # fmt: skip
    assert "Optimizer.AdamW.betas" in [key.path for key in look_up("AdamW").below]
    assert "Optimizer.AdamW" not in [key.path for key in look_up("Optimizer").below]


@pytest.mark.parametrize(
    ("text", "here"),
    [
        ("Optimizer.epsilon", "read as Optimizer.eps"),
        ("Optimizer.AdamW.epsilon", "read as Optimizer.eps"),
        ("use_dali", "dropped"),
        (
            "DataLoader.Train.dataset.transform_ops.RandomErasing.sl",
            "read as min_area of RandomErasing",
        ),
        ("EMA.thres_steps", "read as warmup"),
    ],
)
def test_a_key_of_passl_is_told_what_it_became(text, here):
    assert here in [rule.here for rule in look_up(text).rules]


def test_a_key_of_other_systems_is_led_to_ours():
    found = look_up("num_classes")
    assert found.note == "num_classes is no key here; it is Model.class_num"
    assert {key.written for key in found.keys} == {"Model.class_num"}


def test_every_name_of_another_program_leads_to_a_key():
    keys = all_keys()
    there = {key.path for key in keys} | {without_places(key.written) for key in keys}
    assert sorted(set(FOREIGN.values()) - there) == []


@pytest.mark.parametrize("theirs", ["drop_path", "gradient-accumulation-steps", "reprob"])
def test_a_name_of_another_program_is_surer_than_a_near_one(theirs):
    found = look_up(theirs)
    assert found.note == f"{theirs} is no key here; it is {FOREIGN[theirs.replace('-', '_')]}"
    assert found.keys


def test_a_key_in_the_wrong_section_is_led_to_its_own():
    assert paths("Model.pretrained_model") == ["Global.pretrained_model"]


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        ("Global.epoch", "'Global.epochs'"),
        ("Optimizer.AdamW.beta1", "'Optimizer.AdamW.betas'"),
        ("Optimizer.AdmW.betas", "'Optimizer.AdamW.betas'"),
        ("Globl.epochs", "'Global.epochs'"),
        ("weight_decy", "'weight_decay'"),
    ],
)
def test_a_misspelled_key_is_answered_with_near_ones(text, suggestion):
    with pytest.raises(ConfigError, match="did you mean") as error:
        look_up(text)
    assert suggestion in str(error.value)
    assert error.value.exit_code == 2


def test_a_pattern_that_nothing_matches_is_a_mistake():
    with pytest.raises(ConfigError, match=r"no key matches 'Global\.zz\*'"):
        look_up("Global.zz*")


def test_a_key_inside_a_free_mapping_is_the_mappings():
    found = look_up("Global.flags.FLAGS_cudnn_deterministic")
    assert [key.path for key in found.keys] == ["Global.flags"]
    assert "a key of your own" in found.note


def test_every_fixed_key_has_a_meaning():
    assert [key.written for key in fixed_keys() if not key.doc] == []
    assert [key.path for key in all_keys() if key.kind == "value" and not key.takes] == []


def test_components_of_the_users_modules_are_keys_too(load):
    load()
    (key,) = look_up("Optimizer.ToyOpt.weight_decay").keys
    assert key.default


# -- in a config -------------------------------------------------------------------------------


def test_the_values_of_a_key_in_a_config_have_their_origins(load):
    config = load()
    (key,) = look_up("Loss.Train.ToyLoss.epsilon").keys
    (found,) = written_in(config, key)
    assert (found.path, found.value, found.origin) == ("Loss.Train.0.epsilon", 0.1, "x.yaml:10")
    (default,) = written_in(config, look_up("Global.seed").keys[0])
    assert (default.value, default.origin) == (2021, "default")


def test_an_argument_of_another_component_is_nowhere_in_the_config(load):
    config = load()
    assert written_in(config, look_up("Optimizer.AdamW.weight_decay").keys[0]) == []


def test_every_written_value_of_a_recipe_is_explained():
    from passl.config import load_config
    from passl.config.flat import flatten

    known = {without_places(key.written) for key in all_keys()}
    config = load_config("DeiT_base_distilled_patch16_224")
    unknown = [
        path
        for path, _ in flatten(config.to_dict())
        if without_places(path) not in known and ".flags" not in path
    ]
    assert unknown == []

"""Layer-wise decay: timm's factors, every parameter in one layer, and a table to read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import passl
from passl.errors import ConfigError
from passl.layers.init import no_init
from passl.optim.groups import GroupRule, build_param_groups, describe_groups
from passl.optim.layer_decay import layer_scales

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "finetune.npz")


class Model:
    """Names and depths, as a network has them."""

    def __init__(self, parameters, ids) -> None:
        self.parameters, self.ids = parameters, ids

    def named_parameters(self):
        return self.parameters.items()

    def layer_ids(self):
        return self.ids


IDS = {"pos_embed": 0, "blocks.0.fc.weight": 1, "blocks.0.fc.bias": 1, "norm.weight": 2}


@pytest.fixture(scope="module")
def vit_base():
    with no_init():
        return passl.create_model("vit_base_patch16_224")


def test_vit_base_has_timms_factors_and_decay(vit_base):
    scales = layer_scales(vit_base, 0.75)
    groups = build_param_groups(
        vit_base.named_parameters(),
        no_weight_decay_1d=True,
        no_weight_decay_name=["pos_embed", "cls_token"],
        weight_decay=0.05,
        layer_scales=scales,
    )
    found = {
        name: (group.lr_scale, group.weight_decay) for group in groups for name, _ in group.params
    }
    names = GOLDEN["layer_decay/names"].tolist()
    assert sorted(found) == sorted(names)
    for name, scale, decay in zip(
        names, GOLDEN["layer_decay/lr_scale"], GOLDEN["layer_decay/weight_decay"]
    ):
        assert found[name] == (pytest.approx(scale, rel=1e-12), decay), name


def test_the_table_counts_every_parameter_once(vit_base):
    lines = str(layer_scales(vit_base, 0.75)).splitlines()
    assert lines[0] == "layer decay 0.75:"
    assert lines[2].split() == [
        "0", "0.02376", "4", "742,656", "cls_token,", "pos_embed,", "...",
    ]  # fmt: skip
    assert lines[-1].split()[:4] == ["13", "1", "2", "769,000"]
    assert sum(int(line.split()[3].replace(",", "")) for line in lines[2:]) == 86_567_656
    assert sum(int(line.split()[2]) for line in lines[2:]) == 152


def test_factors_multiply_those_of_the_rules(make_parameters):
    parameters = make_parameters()
    groups = build_param_groups(
        parameters.items(),
        rules=[GroupRule("norm", "^norm", lr_scale=10.0)],
        layer_scales=layer_scales(Model(parameters, IDS), 0.5),
    )
    assert {group.name: group.lr_scale for group in groups} == {
        "default/lr x0.5": 0.5,
        "norm": 10.0,
        "default/lr x0.25": 0.25,
    }
    assert "default/lr x0.25" in describe_groups(groups)


def test_a_decay_of_1_changes_nothing(make_parameters):
    assert set(layer_scales(Model(make_parameters(), IDS), 1.0).values()) == {1.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pos_embed": None}, "the parameter pos_embed belongs to no layer"),
        ({"pos_embd": 0}, "pos_embd has a layer, but is no parameter"),
        ({"norm.weight": -1}, "the layer of norm.weight is -1"),
        ({"norm.weight": 3}, "layer 2 has no parameter; layers must count 0, 1, 2, ..."),
    ],
)
def test_layers_that_do_not_cover_the_model_are_refused(make_parameters, change, message):
    ids = {name: depth for name, depth in {**IDS, **change}.items() if depth is not None}
    with pytest.raises(ConfigError) as error:
        layer_scales(Model(make_parameters(), ids), 0.75)
    assert error.value.problems == [f"Optimizer.layer_decay: {message}"]


def test_a_model_without_layers_says_so():
    with pytest.raises(ConfigError, match="object does not say which layer a parameter belongs to"):
        layer_scales(object(), 0.75)

"""Parameter groups: each parameter once, each rule with an effect, and a table to read."""

from __future__ import annotations

import paddle
import pytest

from passl.errors import ConfigError
from passl.optim.groups import (
    GroupRule,
    build_param_groups,
    describe_groups,
    freeze_parameters,
)


def layout(groups):
    return {group.name: [name for name, _ in group.params] for group in groups}


def test_without_rules_everything_decays_alike(make_parameters, make_groups):
    parameters = make_parameters()
    (group,) = make_groups(parameters, weight_decay=0.3)
    assert (group.name, group.weight_decay, group.lr_scale) == ("default", 0.3, 1.0)
    assert [name for name, _ in group.params] == list(parameters)
    assert all(param is parameters[name] for name, param in group.params)


def test_names_that_do_not_decay_are_substrings(make_parameters, make_groups):
    groups = make_groups(
        make_parameters(), weight_decay=0.3, no_weight_decay_name=["bias", "pos_embed"]
    )
    assert layout(groups) == {
        "default": ["blocks.0.fc.weight", "norm.weight"],
        "default/no_decay": ["blocks.0.fc.bias", "pos_embed"],
    }
    assert [group.weight_decay for group in groups] == [0.3, 0.0]


def test_one_dimensional_parameters_can_be_spared_as_a_kind(make_parameters, make_groups):
    groups = make_groups(make_parameters(), weight_decay=0.3, no_weight_decay_1d=True)
    assert layout(groups)["default/no_decay"] == ["blocks.0.fc.bias", "norm.weight"]


def test_the_first_rule_that_matches_wins_and_keeps_its_own_decay_and_rate(
    make_parameters, make_groups
):
    rules = [
        {"name": "biases", "pattern": r"\.bias$", "lr_scale": 2.0},
        GroupRule("body", "^blocks", lr_scale=0.1, weight_decay=0.05),
    ]
    groups = make_groups(make_parameters(), weight_decay=0.3, rules=rules)
    assert layout(groups) == {
        "body": ["blocks.0.fc.weight"],
        "biases": ["blocks.0.fc.bias"],
        "default": ["norm.weight", "pos_embed"],
    }
    assert {g.name: (g.lr_scale, g.weight_decay) for g in groups} == {
        "body": (0.1, 0.05),
        "biases": (2.0, 0.3),
        "default": (1.0, 0.3),
    }


def test_sparing_from_decay_wins_over_a_rule(make_parameters, make_groups):
    rules = [GroupRule("body", "^blocks", weight_decay=0.05)]
    groups = make_groups(make_parameters(), rules=rules, no_weight_decay_name=["bias"])
    assert layout(groups)["body/no_decay"] == ["blocks.0.fc.bias"]


def test_layer_scales_multiply_the_rate(make_parameters, make_groups):
    scales = {
        "blocks.0.fc.weight": 0.5,
        "blocks.0.fc.bias": 0.5,
        "norm.weight": 1.0,
        "pos_embed": 0.25,
    }
    groups = make_groups(
        make_parameters(), rules=[GroupRule("body", "^blocks", lr_scale=0.1)], layer_scales=scales
    )
    assert {group.name: group.lr_scale for group in groups} == {
        "body/lr x0.5": 0.05,
        "default": 1.0,
        "default/lr x0.25": 0.25,
    }


def test_frozen_parameters_are_left_out_and_counted(make_parameters, make_groups):
    parameters = make_parameters()
    parameters["pos_embed"].stop_gradient = True
    groups = make_groups(parameters, no_weight_decay_name=["pos_embed"])  # matches, though frozen
    assert layout(groups) == {"default": ["blocks.0.fc.weight", "blocks.0.fc.bias", "norm.weight"]}
    assert [name for name, _ in groups.frozen] == ["pos_embed"]
    assert describe_groups(groups).endswith("; 1 tensor (12 parameters) frozen")


def test_what_a_pattern_freezes_is_not_trained(make_parameters, make_groups):
    parameters = make_parameters()
    frozen = freeze_parameters(parameters.items(), [r"\.bias$", "^norm"])
    assert frozen == ["blocks.0.fc.bias", "norm.weight"]
    assert layout(make_groups(parameters)) == {"default": ["blocks.0.fc.weight", "pos_embed"]}


def test_a_pattern_that_freezes_nothing_is_refused_and_none_is_frozen(make_parameters):
    parameters = make_parameters()
    with pytest.raises(ConfigError) as error:
        freeze_parameters(parameters.items(), ["^norm", "^nrom", "("])
    assert error.value.problems == [
        "Optimizer.freeze.1: the pattern '^nrom' matches no parameter; the nearest names are "
        "norm.weight, pos_embed, blocks.0.fc.weight",
        "Optimizer.freeze.2: '(' is no regular expression: missing ), unterminated subpattern at "
        "position 0",
    ]
    assert not any(param.stop_gradient for param in parameters.values())


def test_a_shared_parameter_is_updated_once(make_parameters):
    shared = make_parameters()["norm.weight"]
    (group,) = build_param_groups([("a.weight", shared), ("b.weight", shared)])
    assert [name for name, _ in group.params] == ["a.weight"]


def test_rules_and_names_without_effect_are_listed_together(make_parameters, make_groups):
    rules = [
        GroupRule("norms", r"^nrom\."),
        GroupRule("everything", ""),
        GroupRule("late", "norm"),
        GroupRule("broken", "(norm"),
    ]
    with pytest.raises(ConfigError) as error:
        make_groups(make_parameters(), rules=rules, no_weight_decay_name=["bias", "pos_embd"])
    assert error.value.problems == [
        "Optimizer.no_weight_decay_name: no parameter's name contains 'pos_embd'; the nearest "
        "names are pos_embed, norm.weight, blocks.0.fc.weight",
        "Optimizer.param_groups.0 (norms): the pattern '^nrom\\\\.' matches no parameter; the "
        "nearest names are norm.weight, pos_embed, blocks.0.fc.weight",
        "Optimizer.param_groups.2 (late): everything 'norm' matches (norm.weight, ...) already "
        "belongs to the group 'everything'; put the narrower rule first",
        "Optimizer.param_groups.3 (broken): '(norm' is no regular expression: missing ), "
        "unterminated subpattern at position 0",
    ]


def test_layer_scales_name_every_trainable_parameter_and_no_other(make_parameters, make_groups):
    scales = {"blocks.0.fc.weight": 1.0, "blocks.0.fc.bias": 1.0, "norm.weight": 1.0, "norm": 1.0}
    with pytest.raises(ConfigError) as error:
        make_groups(make_parameters(), layer_scales=scales)
    assert error.value.problems == [
        "layer decay: 1 of the trainable parameters have no layer: pos_embed",
        "layer decay: no such parameters: norm",
    ]


def test_a_model_that_is_frozen_as_a_whole_cannot_be_trained():
    with pytest.raises(ConfigError, match="no trainable parameter"):
        build_param_groups([("w", paddle.zeros([2]))])


def test_the_table_is_aligned_and_adds_up(make_parameters, make_groups):
    groups = make_groups(
        make_parameters(
            shapes={"w.weight": [100, 50], "w.bias": [50], "norm.weight": [7], "norm.bias": [7]}
        ),
        weight_decay=0.3,
        no_weight_decay_name=["norm", "bias"],
    )
    assert describe_groups(groups) == "\n".join(
        [
            "group             tensors  parameters  lr x  weight decay  for example",
            "default                 1       5,000     1           0.3  w.weight",
            "default/no_decay        3          64     1             0  w.bias, norm.weight, ...",
            "weight decay: 1 tensor (5,000 parameters) decayed, "
            "3 tensors (64 parameters) not decayed",
        ]
    )

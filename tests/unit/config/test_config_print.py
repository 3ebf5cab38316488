"""The printed config: it loads to the same config, and every value shows where it came from."""

from __future__ import annotations

import yaml

from passl.config import load_config
from passl.config.dump import emit
from passl.config.tree import plain
from passl.config.yaml_tree import parse_yaml

AWKWARD = {
    "texts": [
        "", " ", "on", "true", "null", "3e-3", "1/2", "(1, 2)", "a: b", "a #b", "#", "- a", "a,b",
        "[x]", "{x}",
        "it's", 'say "x"', "tab\there", "line\nbreak", "ü λ 漢", "*a", "&a", "!tag", "%a",
        "@a", "`a`",
        "|", ">",
        "?", "~", "2021-11-12", "\x85\u2028", "C:\\x", "a=b", "=", "<<",
        "trailing ", "0x10", "1_000",
    ],
    "numbers": [0, -1, 10**20, 0.1, 1e-8, 1e300, -0.0, float("inf"), float("-inf"), 3.0],
    "tuples": [(0.9, 0.999), (1,), (1, -2)],
    "others": [None, True, False, [], {}, [[1, [2]], []], {"a": {"b": [{"c": None}, {}]}}],
    "mapping with key: colon": {"1": 1, "on": 2, "a b": {"x.y": []}},
    "list of mappings": [{"name": "x", "list": [{"y": 1}, 5]}, {}, "text"],
}  # fmt: skip


def test_whatever_is_printed_reads_back_to_the_same_values():
    problems: list[str] = []
    for text in (emit(AWKWARD), emit(AWKWARD, lambda path: f"origin of\n{path} # x")):
        node = parse_yaml(text, str, problems)
        assert problems == []
        assert plain(node) == AWKWARD


def test_the_printed_config_loads_to_the_same_config(repo, write, monkeypatch):
    monkeypatch.chdir(repo)
    overrides = ["Global.seed=5", "Model.drop_rate=1/4", "Global.flags={a: 'on', b: [1, 2]}"]
    config = load_config("configs/ViT_base_patch16_224.yaml", overrides, mode="train")
    for origins in (False, True):
        again = load_config(write("again.yaml", config.to_yaml(origins=origins)), mode="train")
        assert again.to_dict() == config.to_dict()
        assert again.Model == config.Model
        assert again.Optimizer == config.Optimizer
        assert again.DataLoader == config.DataLoader
        assert again.notes == []


def test_the_printed_config_is_yaml_for_everyone_else_too(base, load):
    config = load(base)
    theirs = yaml.safe_load(config.to_yaml(origins=True))
    assert theirs["Global"]["epochs"] == 2
    assert theirs["DataLoader"]["Train"]["dataset"]["transform_ops"][0]["name"] == "ToyCrop"


def test_every_value_shows_its_origin(base, load):
    lines = load(base, "Global.seed=5", "Optimizer.name=Momentum").to_yaml(origins=True).split("\n")
    assert lines[:4] == [
        "# resolved from x.yaml",
        "# -o Global.seed=5",
        "# -o Optimizer.name=Momentum",
        "# -o Optimizer.name=Momentum: Optimizer: ToyOpt -> Momentum; arguments of ToyOpt "
        "dropped: weight_decay",
    ]
    shown = {
        line.split("  # ")[0].strip(): line.split("  # ")[1] for line in lines[4:] if "  # " in line
    }
    assert shown["epochs: 2"] == "x.yaml:3"
    assert shown["seed: 5"] == "-o Global.seed=5"
    assert shown["device: auto"] == "default"
    assert shown["- name: ToyLoss"] == "x.yaml:10"
    assert shown["weight: 0.5"] == "x.yaml:10"
    assert shown["learning_rate: 0.003"] == "x.yaml:13"


def test_the_plain_form_has_no_comments(base, load):
    assert "#" not in load(base).to_yaml()

"""Random damage to a config is answered with sentences, never with another exception.

What survives the damage prints to a config that loads to the same values.
"""

from __future__ import annotations

import copy
import random
from typing import Any

import yaml

from passl.config import load_config
from passl.errors import ConfigError

VALUES: list[Any] = [
    None, True, 0, -1, 3.5, "x", "name", [], {}, {"name": "AdamW"}, {"name": 3}, {"CELoss": None},
    ["x"], [None], [{"a": 1}], {"x": {"y": 1}}, "1/0", [[1]], {"name": None}, "1.0/3",
    [{"name": "ToyMetric", "topk": []}], {"TransformOpSampler": {"Mixup": None}},
]  # fmt: skip
KEYS = [
    "name", "lr", "epsilon", "decay_unit", "batch_transform", "transform", "class_num",
    "layer_decay",
    "regular_exp", "zz", "_delete_", "weight", "_base_", "imports", "GradScaler",
]  # fmt: skip
TAILS: list[tuple[str, ...]] = [(), ("name",), ("0",), ("q", "r")]
ASSIGNMENTS = ["", "=3", "={a: 1}", "=[1]", "=", "=name"]


def paths_in(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    return [
        found for key, child in items for found in ((*path, key), *paths_in(child, (*path, key)))
    ]


def damage(tree: Any, rng: random.Random) -> None:
    path = rng.choice(paths_in(tree))
    node = tree
    for key in path[:-1]:
        node = node[key]
    choice = rng.random()
    if choice < 0.6:
        node[path[-1]] = copy.deepcopy(rng.choice(VALUES))
    elif choice < 0.8:
        del node[path[-1]]
    elif isinstance(node, dict):
        node[rng.choice(KEYS)] = copy.deepcopy(rng.choice(VALUES))


def random_override(tree: Any, rng: random.Random) -> str:
    path = rng.choice(paths_in(tree))
    parts = [*map(str, path[: rng.randint(1, len(path))]), *rng.choice(TAILS)]
    return rng.choice(["", "~", "+"]) + ".".join(parts) + rng.choice(ASSIGNMENTS)


def test_damage_is_answered_with_sentences(base, write):
    rng = random.Random(0)
    whole = yaml.safe_load(base)
    survivors = 0
    for _ in range(300):
        tree = copy.deepcopy(whole)
        for _ in range(rng.randint(0, 2)):
            damage(tree, rng)
        file = write("x.yaml", yaml.safe_dump(tree))
        overrides = [random_override(whole, rng)] if rng.random() < 0.5 else []
        problems: list[str] = []
        try:
            config = load_config(file, overrides, mode=rng.choice(["train", "eval", None]))
        except ConfigError as error:
            problems = error.problems or ["an error without a sentence\n"]
        assert not any("\n" in problem for problem in problems)
        if problems:
            continue
        survivors += 1
        again = load_config(write("again.yaml", config.to_yaml(origins=True)))
        assert again.to_dict() == config.to_dict()
    assert 20 < survivors < 280

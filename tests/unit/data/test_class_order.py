"""A class that is in two lists under different labels, and nothing else, is a contradiction."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image
from small_run import digits_config

from passl import load_config
from passl.config import plan_batches
from passl.data.class_names import classes_of
from passl.data.class_order import moved_class
from passl.distributed.world import World
from passl.engine.build import _build_loaders, _refuse_other_order
from passl.errors import ConfigError


def test_only_a_name_of_both_with_another_label_is_moved():
    assert moved_class(["a", "b"], ["a", "b"]) is None
    assert moved_class(["a", "b"], ["x", "y"]) is None
    assert moved_class(["a", "b", "c"], ["a", "b", "x"]) is None
    assert moved_class(["a", "b", "c"], ["a", "c", "d"]) == ("c", 2, 1)
    assert moved_class(["b", "a"], ["a", "b"]) == ("b", 0, 1)
    assert moved_class(["crane", "dog", "crane"], ["crane", "dog", "crane"]) is None
    assert moved_class(["crane", "dog", "crane"], ["crane", "dog", "lift"]) is None
    assert moved_class([], ["a"]) is None


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        (["b", "a"], ["b", "a"]),
        (("b", "a"), ["b", "a"]),
        (np.array(["b", "a"]), ["b", "a"]),
        ([0, 1], ["0", "1"]),
        (10, None),
        ([], None),
        (np.array(3), None),
    ],
)
def test_a_data_set_of_ones_own_keeps_what_it_likes_as_classes(classes, names):
    own, plain = SimpleNamespace(classes=classes), SimpleNamespace(classes=["a", "b"])
    assert classes_of(own) == names
    config = SimpleNamespace(origin=str, DataLoader=SimpleNamespace(Train=None, Eval=None))
    _refuse_other_order(config, own, own)
    if names == ["b", "a"]:
        with pytest.raises(ConfigError, match="class 'b' has label 1 there and 0"):
            _refuse_other_order(config, own, plain)


def folders(root: Path, *names: str) -> str:
    for name in names:
        (root / name).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(root / name / "0.png")
    return str(root)


def test_a_class_that_lacks_in_one_folder_moves_the_others(tmp_path):
    """As many folders on both sides, so nothing else would tell."""
    train = folders(tmp_path / "train", "cat", "dog", "owl")
    evaluated = folders(tmp_path / "val", "cat", "emu", "owl")
    wrong = folders(tmp_path / "wrong", "cat", "owl", "zebra")
    content = digits_config(tmp_path / "out")
    content["Model"].update(class_num=3, in_chans=3)
    for name in ("Train", "Eval"):
        section = content["DataLoader"][name]
        steps = section["dataset"]["transform_ops"]
        section["dataset"] = {"name": "ImageFolder", "root": train, "transform_ops": steps}
        section["sampler"]["batch_size"] = 1
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))

    def build(root: str) -> None:
        config = load_config(tmp_path / "c.yaml", [f"DataLoader.Eval.dataset.root={root}"])
        _build_loaders(config, "train", plan_batches(config, 1, mode="train"), World())

    build(train)
    build(evaluated)
    with pytest.raises(ConfigError, match=r"Eval.dataset: class 'owl' has label 1 .*and 2 in"):
        build(wrong)

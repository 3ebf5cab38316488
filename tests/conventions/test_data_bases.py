"""The bases for data and augmentation fit under a recipe and say what their sources say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from passl.config import Config, load_config
from passl.registry import BATCH_TRANSFORMS, TRANSFORMS

REPO = Path(__file__).resolve().parents[2]
BASES = sorted(REPO.glob("configs/_base_/data/imagenet*_224*.yaml"))
# Level: alpha of Mixup, level of RandAugment. Source: arXiv:2106.10270, big_vision.
AUGREG = {
    "none": (0.0, None),
    "light1": (0.0, 0),
    "light2": (0.2, 10),
    "medium1": (0.2, 15),
    "medium2": (0.5, 15),
    "strong1": (0.5, 20),
    "strong2": (0.8, 20),
}


def under_a_recipe(base: Path, folder: Path) -> Config:
    """The recipe of ViT-B/16 with another base for its data."""
    recipe = (REPO / "configs/ViT_base_patch16_224.yaml").read_text(encoding="utf-8")
    own = "_base_/data/imagenet1k_224.yaml"
    assert own in recipe
    text = recipe.replace(own, str(base)).replace("_base_/r", f"{REPO}/configs/_base_/r")
    file = folder / "recipe.yaml"
    file.write_text(text.replace("_base_/f", f"{REPO}/configs/_base_/f"), encoding="utf-8")
    classes = 21841 if "21k" in base.name else 1000
    return load_config(str(file), [f"Model.class_num={classes}"])


def parts(config: Config, key: str) -> dict[str, dict[str, Any]]:
    train = config.DataLoader.Train
    items = train.batch_transform if key == "batch_transform" else train.dataset["transform_ops"]
    return {item["name"]: item for item in items}


@pytest.mark.parametrize("path", BASES, ids=lambda path: path.stem)
def test_a_base_fits_under_a_recipe_and_its_transforms_can_be_built(path, tmp_path):
    assert path.read_text(encoding="utf-8").startswith("# ")
    config = under_a_recipe(path, tmp_path)
    for section in (config.DataLoader.Train, config.DataLoader.Eval):
        assert [TRANSFORMS.build(item) for item in section.dataset["transform_ops"]]
        for item in section.batch_transform:
            BATCH_TRANSFORMS.build(item, model_class_num=1000)


@pytest.mark.parametrize("level", AUGREG)
def test_the_levels_of_augreg(level, tmp_path):
    config = under_a_recipe(
        REPO / f"configs/_base_/data/imagenet1k_224_augreg_{level}.yaml", tmp_path
    )
    alpha, magnitude = AUGREG[level]
    mixup = parts(config, "batch_transform").get("Mixup", {"alpha": 0.0})
    assert mixup["alpha"] == alpha
    assert parts(config, "transform_ops").get("RandAugment", {}).get("magnitude") == magnitude


def test_every_level_of_augreg_ships():
    names = {path.stem.rpartition("_")[2] for path in BASES if "augreg" in path.name}
    assert names == set(AUGREG)


PASSL_DEIT = """
DataLoader:
  Train:
    dataset:
      transform_ops:
        - DecodeImage: {to_rgb: true, channel_first: false}
        - RandCropImage: {size: 224, interpolation: bicubic, backend: pil}
        - RandFlipImage: {flip_code: 1}
        - TimmAutoAugment:
            config_str: rand-m9-mstd0.5-inc1
            interpolation: bicubic
            img_size: 224
            mean: [0.485, 0.456, 0.406]
        - NormalizeImage:
            {scale: 1.0/255.0, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225], order: ''}
        - RandomErasing:
            EPSILON: 0.25
            sl: 0.02
            sh: 1.0/3.0
            r1: 0.3
            attempt: 10
            use_log_aspect: true
            mode: pixel
        - ToCHWImage:
      batch_transform_ops:
        - TransformOpSampler:
            Mixup: {alpha: 0.8, prob: 0.5, epsilon: 0.1, class_num: 1000}
            Cutmix: {alpha: 1.0, prob: 0.5, epsilon: 0.1, class_num: 1000}
    sampler: {name: RepeatedAugSampler, drop_last: false, shuffle: true}
"""


def test_passls_spelling_of_deits_augmentation_is_the_base(tmp_path):
    file = tmp_path / "passl.yaml"
    recipe = REPO / "configs/ViT_base_patch16_224.yaml"
    file.write_text(f"_base_: [{recipe}]\n{PASSL_DEIT}", encoding="utf-8")
    passls = load_config(str(file))
    ours = under_a_recipe(REPO / "configs/_base_/data/imagenet1k_224_deit.yaml", tmp_path)
    assert passls.DataLoader.Train.sampler.component["name"] == "RepeatedAugSampler"
    built: list[list[dict[str, Any]]] = []
    for config in (passls, ours):
        chain = [
            TRANSFORMS.build(item) for item in config.DataLoader.Train.dataset["transform_ops"]
        ]
        built.append([{"type": type(op).__name__, **_plain(vars(op))} for op in chain])
    assert built[0] == built[1]
    assert any("img_size" in note for note in passls.notes)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value.tolist() if hasattr(value, "tolist") else value for key, value in values.items()
    }

"""A section of a config becomes a loader, or a sentence that says what does not fit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from passl.config.schema import LoaderSection, SamplerSection, WorkerSection
from passl.data.build import _check_class_num, build_loader
from passl.data.dataset import Dataset
from passl.errors import ConfigError, DataError
from passl.registry import import_user_modules

NORMALIZE = [{"name": "NormalizeImage", "order": ""}, {"name": "ToCHWImage"}]


def section(dataset: dict[str, Any], **sampler: Any) -> LoaderSection:
    return LoaderSection(
        dataset={"transform_ops": NORMALIZE, **dataset},
        sampler=SamplerSection(**sampler),
        loader=WorkerSection(num_workers=2),
    )


def build(part: LoaderSection, **arguments: Any) -> Any:
    return build_loader(part, **{"mode": "train", "global_batch_size": 64, "seed": 3, **arguments})


def test_digits_from_a_config():
    loader = build(section({"name": "DigitsDataset"}, shuffle=True, drop_last=True), class_num=10)
    assert (loader.num_batches, loader.num_samples) == (22, 1408)
    batch = next(loader.epoch(0))
    loader.close()
    assert batch.images.shape == (64, 8, 8, 3)
    assert batch.images.dtype == np.uint8
    assert loader.device_transform is not None


def test_an_imagenet_list_with_passls_transforms_and_batch_transforms(image_tree):
    part = LoaderSection(
        dataset={
            "name": "ImageNetDataset",
            "image_root": str(image_tree / "images"),
            "cls_label_path": str(image_tree / "list.txt"),
            "transform_ops": [
                {"name": "DecodeImage"},
                {
                    "name": "RandCropImage",
                    "size": 32,
                    "scale": (0.05, 1.0),
                    "interpolation": "bicubic",
                },
                {"name": "RandFlipImage", "flip_code": 1},
                *NORMALIZE,
            ],
        },
        batch_transform=[{"name": "Mixup", "alpha": 0.2}],
        sampler=SamplerSection(component={"name": "BatchSampler"}),
    )
    batches = list(build(part, class_num=3, global_batch_size=8).epoch(0))
    assert [b.images.shape for b in batches] == [(8, 3, 32, 32), (4, 3, 32, 32)]
    assert [b.labels.shape for b in batches] == [(8, 3), (4, 3)]


def folder(tree: Path) -> dict[str, Any]:
    return {"name": "ImageFolder", "root": str(tree / "images")}


def test_class_counts_that_differ_name_both_and_the_key(image_tree):
    with pytest.raises(ConfigError) as error:
        build(section(folder(image_tree)), mode="eval", class_num=1000)
    assert str(error.value) == (
        "Model.class_num is 1000 but DataLoader.Eval.dataset (ImageFolder) has 3 classes; set "
        "Model.class_num=3"
    )


def test_a_negative_label_is_told_before_the_first_step():
    dataset = Dataset()
    dataset.labels = np.array([0, -1])
    with pytest.raises(ConfigError, match=r"DataLoader.Train.dataset has label -1; labels count"):
        _check_class_num(dataset, 2, "DataLoader.Train")


def test_a_label_beyond_the_model_names_both_and_the_key(image_tree):
    dataset = {
        "name": "ImageNetDataset",
        "image_root": str(image_tree / "images"),
        "cls_label_path": str(image_tree / "list.txt"),
    }
    with pytest.raises(ConfigError) as error:
        build(section(dataset), class_num=2)
    assert str(error.value) == (
        "Model.class_num is 2, so labels go from 0 to 1, but DataLoader.Train.dataset has label 2; "
        "set Model.class_num=3 or more, or correct the list"
    )
    assert len(build(section(dataset), class_num=1000)) == 1  # a list may lack classes


def test_an_epoch_without_a_batch_is_refused(image_tree):
    with pytest.raises(ConfigError) as error:
        build(section(folder(image_tree), drop_last=True), class_num=3)
    assert str(error.value) == (
        "DataLoader.Train: an epoch would have no batch: the data set has 12 samples, fewer than "
        "the global batch of 64, and sampler.drop_last leaves out a batch that is not full; set "
        "DataLoader.Train.sampler.drop_last=false or make the batch smaller"
    )


def test_missing_data_is_said_at_once():
    with pytest.raises(DataError, match="root /no/such/folder does not exist"):
        build(section({"name": "ImageFolder", "root": "/no/such/folder"}))


def test_data_that_cannot_be_read_is_a_sentence(image_tree):
    loop = image_tree / "images/loop"
    loop.symlink_to("loop")
    with pytest.raises(DataError, match=rf"ImageFolder: {loop}: cannot be read \(Too many levels"):
        build(section(folder(image_tree)))


def test_the_data_set_of_the_documentation_works(repo, tmp_path, monkeypatch):
    page = (repo / "docs" / "data.md").read_text(encoding="utf-8")
    (tmp_path / "my_stripes.py").write_text(page.split("```python\n")[1].split("```")[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    import_user_modules(["my_stripes"], execute=True)
    batch = next(build(section({"name": "Stripes", "count": 70}), class_num=2).epoch(0))
    assert batch.images.shape == (64, 8, 8, 3)
    assert batch.labels.tolist() == [0, 1] * 32


def test_building_and_loading_imports_no_paddle():
    code = (
        "import sys\n"
        "from passl.data.build import build_loader\n"
        "assert not {'cv2', 'PIL', 'sklearn', 'paddle'} & set(sys.modules)\n"
        "from passl.config.schema import LoaderSection\n"
        "ops = [{'name': 'NormalizeImage', 'order': ''}, {'name': 'ToCHWImage'}]\n"
        "section = LoaderSection(dataset={'name': 'DigitsDataset', 'transform_ops': ops})\n"
        "loader = build_loader(section, mode='train', global_batch_size=8, class_num=10)\n"
        "next(loader.epoch(0))\n"
        "assert 'paddle' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr

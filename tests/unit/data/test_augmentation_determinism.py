"""What a sample looks like depends on (seed, epoch, sample) alone, whatever the augmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from passl.data.datasets.imagenet import ImageNetDataset
from passl.data.loader import Loader
from passl.data.samplers import DistributedBatchSampler
from passl.registry import BATCH_TRANSFORMS, TRANSFORMS

TIMM_ERASING = {"prob": 0.5, "use_log_aspect": True, "mode": "pixel"}
AUGMENTATIONS: dict[str, list[dict[str, Any]]] = {
    "rand": [{"name": "TimmAutoAugment", "interpolation": "random"}],
    "weighted": [{"name": "TimmAutoAugment", "config_str": "rand-n2-tweights"}],
    "auto": [{"name": "TimmAutoAugment", "config_str": "original-mstd0.5"}],
    "augmix": [{"name": "TimmAutoAugment", "config_str": "augmix"}],
    "google": [{"name": "RandAugment", "magnitude": 15}],
    "three": [{"name": "ThreeAugment"}],
    "jitter": [
        {"name": "ColorJitter", "brightness": 0.4, "hue": 0.1},
        {"name": "RandomGrayscale"},
    ],
    "blur": [{"name": "GaussianBlur", "p": 0.5}],
    "erasing": [{"name": "RandomErasing", **TIMM_ERASING}],
}
BATCH_WISE = {
    mode: [{"name": "MixupCutmix", "cutmix_alpha": 1.0, "mode": mode}]
    for mode in ("batch", "pair", "elem")
}


def chain(operations: list[dict[str, Any]]) -> list[Any]:
    behind = [item for item in operations if item["name"] == "RandomErasing"]
    before = [item for item in operations if item not in behind]
    items = [
        {"name": "DecodeImage"},
        {"name": "RandCropImage", "size": 24},
        *before,
        {"name": "NormalizeImage", "order": ""},
        *behind,
        {"name": "ToCHWImage"},
    ]
    return [TRANSFORMS.build(item) for item in items]


def run(
    tree: Path, operations: list[dict[str, Any]], mixing: Any = (), *, start: int = 0, **rest: Any
) -> dict[int, tuple[bytes, ...]]:
    """(sample index) -> image and target, of one epoch over a fresh data set and loader."""
    data = ImageNetDataset(
        image_root=str(tree / "images"),
        cls_label_path=str(tree / "list.txt"),
        transform_ops=chain(operations),
    )
    sampler = DistributedBatchSampler(
        num_samples=len(data), batch_size=4, seed=rest.get("seed", 3), shuffle=True
    )
    transforms = [BATCH_TRANSFORMS.build(item, model_class_num=3) for item in mixing]
    loader = Loader(data, sampler, batch_transforms=transforms, **{"seed": 3, **rest})
    found: dict[int, tuple[bytes, ...]] = {}
    for batch in loader.epoch(1, start_batch=start):
        for index, image, target in zip(batch.indices, batch.images, batch.labels):
            found[int(index)] = (image.tobytes(), np.asarray(target).tobytes())
    return found


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_workers_ranks_and_restarts_change_nothing(image_tree, name):
    operations = AUGMENTATIONS[name]
    alone = run(image_tree, operations, num_workers=0)
    assert len(alone) == 12
    assert run(image_tree, operations, num_workers=3) == alone
    together: dict[int, tuple[bytes, ...]] = {}
    for rank in range(3):
        together |= run(image_tree, operations, num_workers=1, rank=rank, world_size=3)
    assert together == alone
    resumed = run(image_tree, operations, num_workers=2, start=2)
    assert len(resumed) == 4
    assert resumed.items() <= alone.items()
    assert run(image_tree, operations, num_workers=0, seed=4) != alone


@pytest.mark.parametrize("mode", BATCH_WISE)
def test_mixing_depends_on_the_batch_and_not_on_workers_or_restarts(image_tree, mode):
    alone = run(image_tree, [], BATCH_WISE[mode], num_workers=0)
    assert run(image_tree, [], BATCH_WISE[mode], num_workers=3) == alone
    resumed = run(image_tree, [], BATCH_WISE[mode], num_workers=1, start=1)
    assert len(resumed) == 8
    assert resumed.items() <= alone.items()
    assert run(image_tree, [], num_workers=0) != alone

"""From a config's ``DataLoader.Train`` or ``DataLoader.Eval`` to a loader."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from passl.data.loader import Loader
from passl.errors import ConfigError, DataError
from passl.registry import BATCH_TRANSFORMS, DATASETS, SAMPLERS
from passl.runtime import keep_image_blocks

if TYPE_CHECKING:
    from passl.config.schema import LoaderSection
    from passl.data.dataset import Dataset

__all__ = ["build_dataset", "build_loader"]


def build_loader(
    section: LoaderSection,
    *,
    mode: str,
    global_batch_size: int,
    class_num: Optional[int] = None,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    run_dir: Optional[Path] = None,
) -> Loader:
    """Build data set, sampler, batch transforms and loader; imports no Paddle.

    Args:
        section: ``DataLoader.Train`` or ``DataLoader.Eval`` of a config.
        mode: ``train`` or ``eval``; names the section in messages.
        global_batch_size: samples of a batch over all ranks.
        class_num: number of classes of the model, or None where there is no such thing.
        seed: of the run.
        rank, world_size: this process among all.
        run_dir: folder of the run, for the list of skipped samples; it need not exist yet.

    Raises:
        DataError: the data is missing or wrong.
        ConfigError: the parts do not fit together.
    """
    key = f"DataLoader.{mode.capitalize()}"
    keep_image_blocks()
    dataset = build_dataset(section, class_num=class_num)
    _check_class_num(dataset, class_num, key)
    sampler = SAMPLERS.build(
        section.sampler.component,
        num_samples=len(dataset),
        batch_size=global_batch_size,
        seed=seed,
        drop_last=section.sampler.drop_last,
        shuffle=section.sampler.shuffle,
    )
    if sampler.num_batches == 0:
        raise ConfigError(
            f"{key}: an epoch would have no batch: the data set has {len(dataset)} samples, fewer "
            f"than the global batch of {global_batch_size}, and sampler.drop_last leaves out a "
            f"batch that is not full; set {key}.sampler.drop_last=false or make the batch smaller"
        )
    loader = Loader(
        dataset,
        sampler,
        batch_transforms=[
            BATCH_TRANSFORMS.build(item, model_class_num=_class_num(dataset, class_num))
            for item in section.batch_transform
        ],
        num_workers=section.loader.num_workers,
        workers=section.loader.workers,
        exact=section.loader.exact or mode == "eval",
        prefetch_batches=section.loader.prefetch_batches,
        seed=seed,
        rank=rank,
        world_size=world_size,
        normalize_on_device=section.loader.normalize_on_device,
        bad_sample=section.loader.bad_sample,
        max_bad_samples=section.loader.max_bad_samples,
        bad_samples_file=None if run_dir is None else run_dir / "bad_samples.txt",
        timeout_s=section.loader.timeout_s,
    )
    if mode == "eval" and loader.num_samples != len(dataset):
        raise ConfigError(
            f"{key}.sampler: {section.sampler.component['name']} gives {loader.num_samples} "
            f"samples of a data set of {len(dataset)}, and an accuracy over other images is "
            "another number; evaluate with the DistributedBatchSampler and drop_last: false"
        )
    loader.start_workers()
    return loader


def build_dataset(section: LoaderSection, **runtime: Any) -> Dataset:
    """The data set of ``DataLoader.Train`` or ``DataLoader.Eval``.

    Args:
        section: of a config.
        runtime: what the data set cannot know from the config, such as ``class_num``.

    Raises:
        DataError: the data is missing, wrong, or cannot be read.
        ConfigError: arguments that contradict each other.
    """
    try:
        dataset: Dataset = DATASETS.build(section.dataset, **runtime)
        return dataset
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        raise DataError(
            f"{section.dataset['name']}: {where}cannot be read ({error.strerror or error}); check "
            "the path and its rights"
        ) from error


def _class_num(dataset: Dataset, class_num: Optional[int]) -> Optional[int]:
    return dataset.class_num if class_num is None else class_num


def _check_class_num(dataset: Any, class_num: Optional[int], key: str) -> None:
    """The model must have exactly the data's classes, or where those are unknown enough of them."""
    if class_num is None:
        return
    if dataset.class_num is not None and dataset.class_num != class_num:
        raise ConfigError(
            f"Model.class_num is {class_num} but {key}.dataset ({type(dataset).__name__}) has "
            f"{dataset.class_num} classes; set Model.class_num={dataset.class_num}"
        )
    labels = dataset.labels
    if labels is not None and len(labels) and int(np.max(labels)) >= class_num:
        highest = int(np.max(labels))
        raise ConfigError(
            f"Model.class_num is {class_num}, so labels go from 0 to {class_num - 1}, but "
            f"{key}.dataset has label {highest}; set Model.class_num={highest + 1} or more, or "
            "correct the list"
        )
    if labels is not None and len(labels) and int(np.min(labels)) < 0:
        raise ConfigError(
            f"{key}.dataset has label {int(np.min(labels))}; labels count from 0: correct them"
        )

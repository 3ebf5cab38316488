"""The sections of a config about data, see :mod:`passl.config.schema`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Optional

from passl.registry import Component, Range

__all__ = ["DataLoaderSection", "LoaderSection", "SamplerSection", "WorkerSection"]

ComponentDict = dict[str, Any]


@dataclass(frozen=True)
class SamplerSection:
    """Which samples make a batch.

    Attributes:
        component: the sampler.
        batch_size: images of one process and optimizer step (before accumulation cuts them).
        drop_last: leave out the last batch of an epoch if it is not full.
        shuffle: a new order each epoch; where it is not written, true for Train and false for Eval.
    """

    component: Annotated[ComponentDict, Component("samplers")] = field(
        default_factory=lambda: {"name": "DistributedBatchSampler"}
    )
    batch_size: Annotated[Optional[int], Range(min=1)] = None
    drop_last: bool = False
    shuffle: bool = False


@dataclass(frozen=True)
class WorkerSection:
    """How samples are fetched.

    Attributes:
        num_workers: how many load and transform; 0 does it in the training thread.
        workers: ``threads``, or ``processes`` for transforms that hold Python's lock; null takes
            processes only where a transform says so (``holds_lock = True``).
        exact: decode and resize random crops as Pillow does, bit for bit; false is about twice as
            fast and off by about one grey level of 255. Evaluation is always exact.
        use_shared_memory: kept for PASSL's files; nothing here needs /dev/shm.
        collate_fn: kept for PASSL's files; there is one way to stack samples.
        prefetch_batches: batches prepared in advance.
        normalize_on_device: send images as uint8 and normalize them there, where the transforms
            allow it.
        bad_sample: a sample that cannot be used is an ``error``, or (Train only) ``skip``: another
            one takes its place and ``bad_samples.txt`` lists it.
        max_bad_samples: stop when more samples than this are skipped: a count, or below 1 a
            fraction of the data set; null: a thousandth of it, at least 10.
        timeout_s: seconds to wait for a single sample of a worker before the run stops; 0 waits
            forever.
    """

    num_workers: Annotated[int, Range(min=0)] = 4
    workers: Optional[Literal["threads", "processes"]] = None
    exact: bool = False
    use_shared_memory: bool = True
    collate_fn: Optional[str] = None
    prefetch_batches: Annotated[int, Range(min=1)] = 2
    normalize_on_device: bool = True
    bad_sample: Literal["error", "skip"] = "error"
    max_bad_samples: Annotated[Optional[float], Range(min=0.0)] = None
    timeout_s: Annotated[float, Range(min=0.0)] = 300.0


@dataclass(frozen=True)
class LoaderSection:
    """Data of one mode.

    Attributes:
        dataset: the data set with its transforms.
        batch_transform: transforms of whole batches, such as Mixup.
        sampler: how batches are formed.
        loader: how they are fetched.
    """

    dataset: Annotated[ComponentDict, Component("datasets")]
    batch_transform: Annotated[list[ComponentDict], Component("batch_transforms")] = field(
        default_factory=list
    )
    sampler: SamplerSection = field(default_factory=SamplerSection)
    loader: WorkerSection = field(default_factory=WorkerSection)


@dataclass(frozen=True)
class DataLoaderSection:
    """Data to train on and to evaluate on.

    Attributes:
        Train: training data.
        Eval: evaluation data.
    """

    Train: Optional[LoaderSection] = None
    Eval: Optional[LoaderSection] = None

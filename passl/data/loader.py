"""Batches in order, made by threads.

Decoding, resizing and array work release Python's lock, so threads scale and need no shared
memory, no copies between processes and no clean-up after a kill.  Each sample is written straight
into its place in the batch.  At most ``prefetch_batches`` finished batches wait; an exception
arrives in the caller at the turn of its batch, naming the sample, with any number of workers.

Nothing depends on timing: the order comes from the sampler, the randomness of a sample from
(seed, epoch, index), so an epoch may start at any batch without reading what was before it.
"""

from __future__ import annotations

import copy
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Optional, cast

import numpy as np

from passl.data.dataset import Dataset, Label
from passl.data.device import DeviceNormalize, split_normalize
from passl.data.rng import batch_rng, sample_rng
from passl.data.samplers import rank_slice
from passl.data.threads import ThreadPool
from passl.errors import DataError

__all__ = ["Batch", "Loader"]

_TASKS_PER_WORKER = 4  # of a batch: enough to even out slow images, few enough to cost nothing


@dataclass
class Batch:
    """One rank's part of a global batch.

    Attributes:
        images: uint8 [B, H, W, C] where the device normalises, else float32 [B, C, H, W].
        labels: int64 [B], or float32 [B, classes].
        indices: int64 [B], positions in the data set.
        global_size: samples of the batch over all ranks.
        wait_s: seconds that the caller had to wait for it.
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    global_size: int
    wait_s: float = 0.0


class Loader:
    """Gives the batches of an epoch for one rank.

    Args:
        dataset: where samples come from.
        sampler: global batches of indices.
        batch_transforms: applied to a rank's batch, in this order; with them, images are
            normalised before they are mixed.
        num_workers: threads; 0 does the work in the caller's thread.
        prefetch_batches: batches prepared ahead of the one in use.
        seed: of the run.
        rank, world_size: this process among all.
        normalize_on_device: leave ``NormalizeImage`` and ``ToCHWImage`` at the end of the chain to
            ``device_transform``.

    Attributes:
        num_batches: batches of an epoch.
        num_samples: samples of an epoch over all ranks.
        device_transform: what the caller must apply to a batch's images as a tensor, or None.
    """

    def __init__(
        self,
        dataset: Dataset,
        sampler: Any,
        *,
        batch_transforms: Sequence[Any] = (),
        num_workers: int = 4,
        prefetch_batches: int = 2,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        normalize_on_device: bool = True,
    ) -> None:
        # A copy, as its chain of transforms may be cut; other users of the data set keep theirs.
        self.dataset, self.sampler = copy.copy(dataset), sampler
        self.batch_transforms = list(batch_transforms)
        self.num_workers, self.prefetch_batches = num_workers, prefetch_batches
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.num_batches, self.num_samples = sampler.num_batches, sampler.num_samples
        self.device_transform: Optional[DeviceNormalize] = None
        if normalize_on_device and not self.batch_transforms:
            kept, self.device_transform = split_normalize(dataset.transforms)
            self.dataset.transforms = kept
        self._epochs: weakref.WeakSet[_Epoch] = weakref.WeakSet()

    def __len__(self) -> int:
        return self.num_batches

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """Batches ``start_batch`` and on of ``epoch``; skipped ones cost nothing.

        Raises:
            DataError: a sample cannot be used; the iterator is closed by then.
        """
        running = _Epoch(self, epoch, start_batch)
        self._epochs.add(running)
        return running

    def close(self) -> None:
        """End the threads of every epoch that is still open."""
        for running in list(self._epochs):
            running.close()


class _Epoch(Iterator[Batch]):
    """The iterator over one epoch, with its threads and the batches under way."""

    def __init__(self, loader: Loader, epoch: int, start_batch: int) -> None:
        self._loader, self._epoch, self._next = loader, epoch, start_batch
        self._pending: deque[_Job] = deque()
        self._pool = ThreadPool(loader.num_workers) if loader.num_workers else None
        self._closed = False

    def __next__(self) -> Batch:
        started = time.perf_counter()
        try:
            if self._closed:
                raise StopIteration
            self._schedule()
            if not self._pending:
                raise StopIteration
            batch = self._pending.popleft().result()
        except BaseException:
            self.close()
            raise
        self._schedule()
        batch.wait_s = time.perf_counter() - started
        return batch

    def close(self) -> None:
        """End the threads; batches under way are dropped."""
        self._closed = True
        self._pending.clear()
        if self._pool is not None:
            self._pool.close()

    def _schedule(self) -> None:
        """Start jobs until enough are under way; without threads only the one that is due."""
        loader = self._loader
        wanted = loader.prefetch_batches + 1 if self._pool is not None else 1
        if self._pool is None and self._pending:
            return
        while len(self._pending) < wanted and self._next < loader.num_batches:
            self._pending.append(_Job(loader, self._epoch, self._next, self._pool))
            self._next += 1


class _Job:
    """One batch in the making; written to by several threads."""

    def __init__(self, loader: Loader, epoch: int, number: int, pool: Optional[ThreadPool]) -> None:
        indices = loader.sampler.batch_indices(epoch, number)
        self._loader, self._epoch, self._number = loader, epoch, number
        self._global_size = len(indices)
        self._indices = rank_slice(indices, loader.rank, loader.world_size)
        self._labels: list[Label] = [0] * len(self._indices)
        self._images: Optional[np.ndarray] = None
        self._error: Optional[tuple[int, BaseException]] = None
        self._lock = threading.Lock()
        self._finished = threading.Event()
        self._batch: Optional[Batch] = None
        self._submit(pool)

    def result(self) -> Batch:
        """The batch, when it is there.

        Raises:
            DataError: the error of the first sample (in the batch's order) that had one.
        """
        if not self._finished.is_set() and self._lazy is not None:
            self._lazy()
        self._finished.wait()
        if self._error is not None:
            raise self._error[1]
        return cast(Batch, self._batch)  # there is either an error or a batch

    def _submit(self, pool: Optional[ThreadPool]) -> None:
        count = len(self._indices)
        self._lazy: Optional[Callable[[], None]] = None
        if pool is None:
            self._parts_left = 1
            self._lazy = partial(self._run, 0, count)
            return
        size = max(1, -(-count // (self._loader.num_workers * _TASKS_PER_WORKER)))
        starts = range(0, max(count, 1), size)
        self._parts_left = len(starts)
        for start in starts:
            pool.submit(partial(self._run, start, min(start + size, count)))

    def _run(self, start: int, stop: int) -> None:
        """Make samples ``start`` to ``stop``; whoever does the last part completes the batch."""
        at = start
        try:
            for at in range(start, stop):
                if self._error is not None and self._error[0] < at:
                    break
                self._make(at)
        except BaseException as error:  # also a transform's SystemExit: nobody may wait forever
            self._fail(at, error)
        with self._lock:
            self._parts_left -= 1
            last = self._parts_left == 0
        if last:
            try:
                if self._error is None:
                    self._batch = self._complete()
            except BaseException as error:
                self._fail(0, error)
            self._finished.set()

    def _fail(self, position: int, error: BaseException) -> None:
        with self._lock:
            if self._error is None or position < self._error[0]:
                self._error = (position, error)

    def _make(self, position: int) -> None:
        index = int(self._indices[position])
        loader = self._loader
        rng = sample_rng(loader.seed, self._epoch, index)
        image, self._labels[position] = loader.dataset.sample(index, rng)
        with self._lock:
            if self._images is None:
                self._images = self._allocate(image, index)
        if image.shape != self._images.shape[1:]:
            raise DataError(
                f"sample {index} ({loader.dataset.path_of(index)}) has shape {image.shape} after "
                f"the transforms, others of its batch {self._images.shape[1:]}; images of a batch "
                "must be of one size: add a crop or a resize to both sides to transform_ops"
            )
        self._images[position] = image

    def _allocate(self, image: np.ndarray, index: int) -> np.ndarray:
        """Room for the batch, after a look at whether a model could take such images."""
        where = f"sample {index} ({self._loader.dataset.path_of(index)})"
        device = self._loader.device_transform
        if image.ndim != 3:
            raise DataError(f"{where} has shape {image.shape} after the transforms; wanted: 3 axes")
        if device is not None:
            if image.dtype != np.uint8:
                raise DataError(
                    f"{where} is {image.dtype} before NormalizeImage, not uint8; set "
                    "loader.normalize_on_device to false"
                )
            device.check(image)
        elif image.dtype == np.uint8:
            raise DataError(
                f"{where} is still uint8 after the transforms; end transform_ops with "
                "NormalizeImage and ToCHWImage"
            )
        elif image.shape[0] > 4 and image.shape[2] <= 4:
            raise DataError(
                f"{where} has shape {image.shape} after the transforms, with the channels last; "
                "end transform_ops with ToCHWImage"
            )
        dtype = np.uint8 if image.dtype == np.uint8 else np.float32
        return np.empty((len(self._indices), *image.shape), dtype=dtype)

    def _complete(self) -> Batch:
        loader = self._loader
        labels = loader.dataset.collate_labels(self._labels)
        images = self._images if self._images is not None else self._no_images()
        if loader.batch_transforms and len(self._indices):
            rng = batch_rng(loader.seed, self._epoch, self._number)
            for transform in loader.batch_transforms:
                images, labels = transform(images, labels, rng)
        return Batch(images, labels, self._indices.astype(np.int64), self._global_size)

    def _no_images(self) -> np.ndarray:
        """A batch with nothing for this rank, in the shape that the others have."""
        image, _ = self._loader.dataset.sample(0, sample_rng(self._loader.seed, self._epoch, 0))
        return self._allocate(image, 0)

"""Batches in order, made by threads.

Decoding, resizing and array work release Python's lock, so threads scale and need no shared
memory, no copies between processes and no clean-up after a kill.  Each sample is written straight
into its place in the batch.  At most ``prefetch_batches`` finished batches wait; an exception
arrives in the caller at the turn of its batch, naming the sample, with any number of workers, and a
worker that died or is stuck is told of instead of waited for.

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
from pathlib import Path
from typing import Any, Callable, Optional, cast

import numpy as np

from passl.data.bad_samples import BadSampleLog, limit_of
from passl.data.dataset import Dataset, Label
from passl.data.device import DeviceNormalize, split_normalize
from passl.data.faults import FetchedSample, SampleFetcher
from passl.data.memory import available_memory, processes_here, tight_memory
from passl.data.rng import batch_rng
from passl.data.samplers import repeats_of_rank, share_of_rank
from passl.data.threads import ThreadPool
from passl.data.watch import CALLER, WorkerError, WorkerWatch, thread_stack
from passl.errors import DataError
from passl.logs.logger import get_logger

__all__ = ["Batch", "Loader"]

_TASKS_PER_WORKER = 4  # of a batch: enough to even out slow images, few enough to cost nothing


@dataclass
class Batch:
    """One rank's part of a global batch.

    Attributes:
        images: uint8 [B, H, W, C] where the device normalises, else float32 [B, C, H, W].
        labels: int64 [B], or float32 [B, classes].
        indices: int64 [B], positions in the data set (that of the substitute where one was taken).
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
        bad_sample: ``error``, or ``skip``: another sample takes the place of one that cannot be
            used.
        max_bad_samples: how many may be skipped, a count or below 1 a fraction of the data set;
            None: a thousandth, at least 10.
        bad_samples_file: where skipped samples are listed, or None.
        timeout_s: seconds to wait for a single sample of a worker; 0 waits forever.

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
        bad_sample: str = "error",
        max_bad_samples: Optional[float] = None,
        bad_samples_file: Optional[Path] = None,
        timeout_s: float = 300.0,
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
        self.timeout_s = timeout_s
        self.fetcher = SampleFetcher(self.dataset, seed, skip=bad_sample == "skip")
        limit = limit_of(max_bad_samples, len(dataset))
        self._bad_samples = BadSampleLog(bad_samples_file, limit, len(dataset), dataset.path_of)
        self._memory_checked = False
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

    def fetch(self, epoch: int, index: int, repeat: int = 0) -> FetchedSample:
        """Sample ``index`` or its substitute, of which note is taken.

        Args:
            epoch: number of the epoch.
            index: position in the data set.
            repeat: how often the epoch had the sample before.

        Raises:
            DataError: the sample cannot be used, or too many could not be.
        """
        fetched = self.fetcher.fetch(epoch, index, repeat)
        if fetched.bad:
            self._bad_samples.record(fetched)
        return fetched

    def check_memory(self, batch_bytes: int) -> None:
        """Warn, once, if the batches under way take more than half of the free memory."""
        if self._memory_checked:
            return
        self._memory_checked = True
        # Beside those that wait: one that the caller works on, one that is due next.
        batches = self.prefetch_batches + 2 if self.num_workers else 2
        warning = tight_memory(
            batch_bytes, min(batches, self.num_batches), available_memory(), processes_here()
        )
        if warning is not None:
            get_logger().warning(warning)

    def close(self) -> None:
        """End the threads of every epoch that is still open."""
        for running in list(self._epochs):
            running.close()


class _Epoch(Iterator[Batch]):
    """The iterator over one epoch, with its threads and the batches under way."""

    def __init__(self, loader: Loader, epoch: int, start_batch: int) -> None:
        self._loader, self._epoch, self._next = loader, epoch, start_batch
        self._pending: deque[_Job] = deque()
        self._watch = WorkerWatch(
            loader.rank, loader.num_workers, loader.timeout_s, loader.dataset.path_of
        )
        self._closed = False
        self._pool: Optional[ThreadPool] = None
        try:
            if loader.num_workers:
                self._pool = ThreadPool(loader.num_workers, self._watch.died)
        except RuntimeError as error:
            raise WorkerError(
                f"rank {loader.rank}: {loader.num_workers} data workers cannot be started "
                f"({error}); lower loader.num_workers, or raise the limit on threads (ulimit -u, "
                "or the container's limit on processes)"
            ) from error

    def __next__(self) -> Batch:
        started = time.perf_counter()
        try:
            if self._closed:
                raise StopIteration
            self._schedule()
            if not self._pending:
                raise StopIteration
            batch = self._result(self._pending.popleft())
        except BaseException:
            self.close()
            raise
        self._schedule()
        batch.wait_s = time.perf_counter() - started
        return batch

    def _result(self, job: _Job) -> Batch:
        pool = self._pool
        if pool is not None:
            idents = pool.idents()
            self._watch.wait(job.finished, pool.dead, lambda worker: thread_stack(idents[worker]))
        return job.result()

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
            self._pending.append(_Job(loader, self._epoch, self._next, self._pool, self._watch))
            self._next += 1


class _Job:
    """One batch in the making; written to by several threads."""

    def __init__(
        self,
        loader: Loader,
        epoch: int,
        number: int,
        pool: Optional[ThreadPool],
        watch: WorkerWatch,
    ) -> None:
        indices = loader.sampler.batch_indices(epoch, number)
        self._loader, self._epoch, self._number = loader, epoch, number
        self._watch = watch
        self._global_size = len(indices)
        # A copy: a substitute writes its own number here.
        self._indices = share_of_rank(
            loader.sampler, indices, loader.rank, loader.world_size
        ).astype(np.int64)
        self._repeats = repeats_of_rank(
            loader.sampler, epoch, number, loader.rank, loader.world_size
        )
        self._labels: list[Label] = [0] * len(self._indices)
        self._images: Optional[np.ndarray] = None
        self._error: Optional[tuple[int, BaseException]] = None
        self._lock = threading.Lock()
        self.finished = threading.Event()
        self._batch: Optional[Batch] = None
        self._submit(pool)

    def result(self) -> Batch:
        """The batch, when ``finished`` is set; without threads it is made now.

        Raises:
            DataError: the error of the first sample (in the batch's order) that had one.
        """
        if not self.finished.is_set() and self._lazy is not None:
            self._lazy()
        if self._error is not None:
            raise self._error[1]
        return cast(Batch, self._batch)  # there is either an error or a batch

    def _submit(self, pool: Optional[ThreadPool]) -> None:
        count = len(self._indices)
        self._lazy: Optional[Callable[[], None]] = None
        if pool is None:
            self._parts_left = 1
            self._lazy = partial(self._run, 0, count, CALLER)
            return
        size = max(1, -(-count // (self._loader.num_workers * _TASKS_PER_WORKER)))
        starts = range(0, max(count, 1), size)
        self._parts_left = len(starts)
        for start in starts:
            pool.submit(partial(self._run, start, min(start + size, count)))

    def _run(self, start: int, stop: int, worker: int) -> None:
        """Make samples ``start`` to ``stop``; whoever does the last part completes the batch."""
        at = start
        try:
            for at in range(start, stop):
                if self._error is not None and self._error[0] < at:
                    break
                self._watch.begin(worker, int(self._indices[at]))
                self._make(at)
                self._watch.end(worker)
        except BaseException as error:  # also a transform's SystemExit: nobody may wait forever
            self._fail(at, error, worker)
        with self._lock:
            self._parts_left -= 1
            last = self._parts_left == 0
        if last:
            try:
                if self._error is None:
                    self._watch.begin(worker, f"the whole of batch {self._number}")
                    self._batch = self._complete()
                    self._watch.end(worker)
            except BaseException as error:
                self._fail(0, error, worker)
            self.finished.set()

    def _fail(self, position: int, error: BaseException, worker: int) -> None:
        explained = self._watch.explain(worker, error)
        if explained is not error:
            explained.__cause__ = error
        with self._lock:
            if self._error is None or position < self._error[0]:
                self._error = (position, explained)

    def _make(self, position: int) -> None:
        loader = self._loader
        repeat = 0 if self._repeats is None else int(self._repeats[position])
        sample = loader.fetch(self._epoch, int(self._indices[position]), repeat)
        image, index = sample.image, sample.index
        self._labels[position], self._indices[position] = sample.label, index
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
        dtype = np.dtype(np.uint8 if image.dtype == np.uint8 else np.float32)
        self._loader.check_memory(len(self._indices) * image.size * dtype.itemsize)
        return np.empty((len(self._indices), *image.shape), dtype=dtype)

    def _complete(self) -> Batch:
        loader = self._loader
        labels = loader.dataset.collate_labels(self._labels)
        images = self._images if self._images is not None else self._no_images()
        if loader.batch_transforms and len(self._indices):
            rng = batch_rng(loader.seed, self._epoch, self._number)
            for transform in loader.batch_transforms:
                in_epoch = getattr(transform, "in_epoch", None)
                act = transform if in_epoch is None else in_epoch(self._epoch)
                images, labels = act(images, labels, rng)
        return Batch(images, labels, self._indices, self._global_size)

    def _no_images(self) -> np.ndarray:
        """A batch with nothing for this rank, in the shape that the others have."""
        sample = self._loader.fetch(self._epoch, 0)
        return self._allocate(sample.image, sample.index)

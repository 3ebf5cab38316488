"""One batch: what it is, and how several workers make it together."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Callable, Optional, cast

import numpy as np

from passl.data.buffers import BufferPool
from passl.data.dataset import Label
from passl.data.processes import ProcessPool
from passl.data.rng import batch_rng, sample_generators
from passl.data.samplers import repeats_of_rank, share_of_rank
from passl.data.threads import ThreadPool
from passl.data.watch import CALLER, WorkerWatch
from passl.errors import DataError

if TYPE_CHECKING:
    from passl.data.loader import Loader

__all__ = ["Batch", "BatchJob"]

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


class BatchJob:
    """One batch in the making; written to by several threads."""

    def __init__(
        self,
        loader: Loader,
        epoch: int,
        number: int,
        pool: Optional[ThreadPool],
        watch: WorkerWatch,
        processes: Optional[ProcessPool],
        buffers: BufferPool,
    ) -> None:
        indices = loader.sampler.batch_indices(epoch, number)
        self._loader, self._epoch, self._number = loader, epoch, number
        self._watch, self._processes, self._buffers = watch, processes, buffers
        self._global_size = len(indices)
        # A copy: a substitute writes its own number here.
        self._indices = share_of_rank(
            loader.sampler, indices, loader.rank, loader.world_size
        ).astype(np.int64)
        self._repeats = repeats_of_rank(
            loader.sampler, epoch, number, loader.rank, loader.world_size
        )
        # None: a worker process makes its own.
        self._generator = (
            sample_generators(loader.seed, epoch, self._indices, self._repeats)
            if processes is None
            else None
        )
        self._labels: list[Label] = [0] * len(self._indices)
        self._images: Optional[np.ndarray] = None
        self._error: Optional[tuple[int, BaseException]] = None
        self._lock = threading.Lock()
        self.finished = threading.Event()
        self._batch: Optional[Batch] = None
        self._lazy: Optional[Callable[[], None]] = None
        self._submit(pool)

    def result(self) -> Batch:
        """The batch, when ``finished`` is set; without threads it is made now.

        Raises:
            DataError: the error of the first sample (in the batch's order) that had one.
        """
        lazy, self._lazy = self._lazy, None  # it refers to this job, which would keep the images
        if lazy is not None:
            lazy()
        if self._error is not None:
            raise self._error[1]
        return cast(Batch, self._batch)  # there is either an error or a batch

    def _submit(self, pool: Optional[ThreadPool]) -> None:
        count = len(self._indices)
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
                self._make(at, worker)
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
                    self._batch = self._complete(worker)
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

    def _make(self, position: int, worker: int) -> None:
        loader = self._loader
        repeat = 0 if self._repeats is None else int(self._repeats[position])
        rng = None if self._generator is None else self._generator(position)
        sample = loader.fetch(
            self._epoch, int(self._indices[position]), repeat, worker, self._processes, rng
        )
        image, index = sample.image, sample.index
        self._labels[position], self._indices[position] = sample.label, index
        normalize = loader.host_normalize
        if normalize is not None and image.ndim != 3:
            normalize = None  # which is refused below
        shape = image.shape if normalize is None else (image.shape[2], *image.shape[:2])
        with self._lock:
            if self._images is None:
                first = image if normalize is None else normalize(image)
                self._images = self._allocate(first, index)
        if shape != self._images.shape[1:]:
            raise DataError(
                f"sample {index} ({loader.dataset.path_of(index)}) has shape {shape} after "
                f"the transforms, others of its batch {self._images.shape[1:]}; images of a batch "
                "must be of one size: add a crop or a resize to both sides to transform_ops"
            )
        if normalize is None:
            if (image.dtype == np.uint8) != (self._images.dtype == np.uint8):
                raise DataError(
                    f"sample {index} ({loader.dataset.path_of(index)}) is {image.dtype} after the "
                    f"transforms, others of its batch {self._images.dtype}; a transform must give "
                    "one type for all samples"
                )
            self._images[position] = image
        else:
            normalize.put(image, self._images[position])

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
        return self._buffers.empty((len(self._indices), *image.shape), dtype)

    def _complete(self, worker: int) -> Batch:
        loader = self._loader
        labels = loader.dataset.collate_labels(self._labels)
        images = self._images if self._images is not None else self._no_images(worker)
        if loader.batch_transforms and len(self._indices):
            rng = batch_rng(loader.seed, self._epoch, self._number)
            for transform in loader.batch_transforms:
                in_epoch = getattr(transform, "in_epoch", None)
                act = transform if in_epoch is None else in_epoch(self._epoch)
                images, labels = act(images, labels, rng)
        return Batch(images, labels, self._indices, self._global_size)

    def _no_images(self, worker: int) -> np.ndarray:
        """A batch with nothing for this rank, in the shape that the others have."""
        sample = self._loader.fetch(self._epoch, 0, 0, worker, self._processes)
        normalize = self._loader.host_normalize
        image = sample.image if normalize is None else normalize(sample.image)
        return self._allocate(image, sample.index)

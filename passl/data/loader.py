"""Batches in order, made by threads, or by processes that threads wait for.

Decoding, resizing and array work release Python's lock, so threads scale and need no shared
memory, no copies between processes and no clean-up after a kill.  For transforms that hold the lock
there are processes (:mod:`passl.data.processes`), which outlive an epoch.  Each sample is written
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
from pathlib import Path
from typing import Any, Optional

import numpy as np

from passl.data.bad_samples import BadSampleLog, limit_of
from passl.data.batch import Batch, BatchJob
from passl.data.buffers import BufferPool
from passl.data.dataset import Dataset
from passl.data.device import DeviceNormalize, HostNormalize, split_normalize
from passl.data.fast_decode import with_fast_decoding
from passl.data.faults import FetchedSample, SampleFetcher
from passl.data.memory import available_memory, processes_here, tight_memory
from passl.data.processes import ProcessPool, wants_processes
from passl.data.threads import ThreadPool
from passl.data.watch import CALLER, WorkerError, WorkerWatch, thread_stack
from passl.logs.logger import get_logger

__all__ = ["Batch", "Loader"]


class Loader:
    """Gives the batches of an epoch for one rank.

    Args:
        dataset: where samples come from.
        sampler: global batches of indices.
        batch_transforms: applied to a rank's batch, in this order; with them, images are
            normalised before they are mixed.
        num_workers: threads or processes; 0 does the work in the caller's thread.
        workers: ``threads``, ``processes``, or None: processes only where the data set or a
            transform has an attribute ``holds_lock`` that is true.
        exact: give Pillow's pixels bit for bit; else see :mod:`passl.data.fast_decode`.
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
        transforms: the whole chain of the data set, wherever its end is done.
        device_transform: what the caller must apply to a batch's images as a tensor, or None.
        host_normalize: what replaces the end of the chain where a batch is put together, or None.
    """

    def __init__(
        self,
        dataset: Dataset,
        sampler: Any,
        *,
        batch_transforms: Sequence[Any] = (),
        num_workers: int = 4,
        workers: Optional[str] = None,
        exact: bool = True,
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
        self.transforms = list(dataset.transforms)
        self.batch_transforms = list(batch_transforms)
        self.num_workers, self.prefetch_batches = num_workers, prefetch_batches
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.num_batches, self.num_samples = sampler.num_batches, sampler.num_samples
        self.device_transform: Optional[DeviceNormalize] = None
        self.host_normalize: Optional[HostNormalize] = None
        kept, at_the_end = split_normalize(dataset.transforms)
        on_device = normalize_on_device and not self.batch_transforms
        # What a data set of one's own does after the transforms, it does with normalised images.
        is_plain = type(dataset).sample is Dataset.sample
        if at_the_end is not None and (on_device or is_plain):
            self.dataset.transforms = kept
            if on_device:
                self.device_transform = at_the_end
            else:
                self.host_normalize = HostNormalize(at_the_end.normalize)
        self.dataset.transforms = with_fast_decoding(self.dataset.transforms, exact)
        parts = [self.dataset, *dataset.transforms]
        self._in_processes = wants_processes(workers, num_workers, parts)
        self._processes: Optional[ProcessPool] = None
        self.timeout_s = timeout_s
        self.fetcher = SampleFetcher(self.dataset, seed, skip=bad_sample == "skip")
        limit = limit_of(max_bad_samples, len(dataset))
        self._bad_samples = BadSampleLog(bad_samples_file, limit, len(dataset), dataset.path_of)
        self._memory_check = threading.Lock()  # taken by the first batch, for good
        # For those under way, the one in use, and one that is not collected yet.
        self.buffers = BufferPool(prefetch_batches + 3)
        self._epochs: weakref.WeakSet[_Epoch] = weakref.WeakSet()

    def __len__(self) -> int:
        return self.num_batches

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """Batches ``start_batch`` and on of ``epoch``; skipped ones cost nothing.

        Args:
            epoch: its number, from which orders and augmentations follow; training begins with 1.
            start_batch: number of the first batch that is wanted, from 0.

        Raises:
            DataError: a sample cannot be used; the iterator is closed by then.
            WorkerError: the workers cannot be started.
            ConfigError: worker processes cannot use the data set.
        """
        processes = self.start_workers()
        if processes is not None:
            processes.wait_until_ready(self.timeout_s)
        running = _Epoch(self, epoch, start_batch, processes)
        self._epochs.add(running)
        return running

    def start_workers(self) -> Optional[ProcessPool]:
        """Start the worker processes if there are to be some, without waiting for them.

        Raises:
            ConfigError: the data set cannot be sent to them.
            WorkerError: they cannot be started.
        """
        if self._in_processes and (self._processes is None or not self._processes.close.alive):
            try:
                self._processes = ProcessPool(self.fetcher, self.num_workers)
            except OSError as error:
                raise self.not_started(error) from error
        return self._processes

    def not_started(self, error: BaseException) -> WorkerError:
        """The error to raise when the system gives no more threads or processes."""
        return WorkerError(
            f"rank {self.rank}: {self.num_workers} data workers cannot be started "
            f"({error}); lower loader.num_workers, or raise the limit on threads (ulimit -u, "
            "or the container's limit on processes)"
        )

    def fetch(
        self,
        epoch: int,
        index: int,
        repeat: int = 0,
        worker: int = CALLER,
        processes: Optional[ProcessPool] = None,
        rng: Optional[np.random.Generator] = None,
    ) -> FetchedSample:
        """Sample ``index`` or its substitute, of which note is taken.

        Args:
            epoch: number of the epoch.
            index: position in the data set.
            repeat: how often the epoch had the sample before.
            worker: number of the worker that asks.
            processes: of which one makes it, unless the caller asks for itself.
            rng: the generator of the sample, if the caller has it.

        Raises:
            DataError: the sample cannot be used, or too many could not be.
        """
        if processes is not None and worker != CALLER:
            fetched = processes.fetch(worker, epoch, index, repeat)
        else:
            fetched = self.fetcher.fetch(epoch, index, repeat, rng)
        if fetched.bad:
            self._bad_samples.record(fetched)
        return fetched

    def check_memory(self, batch_bytes: int) -> None:
        """Warn, once, if the batches under way take more than half of the free memory."""
        if not self._memory_check.acquire(blocking=False):
            return
        # Beside those that wait: one that the caller works on, one that is due next.
        batches = self.prefetch_batches + 2 if self.num_workers else 2
        warning = tight_memory(
            batch_bytes, min(batches, self.num_batches), available_memory(), processes_here()
        )
        if warning is not None:
            get_logger().warning(warning)

    def close(self) -> None:
        """End the threads of every epoch that is still open, and the processes; free memory."""
        self.end_processes()
        for running in list(self._epochs):
            running.close()
        self.buffers.clear()

    def end_processes(self) -> None:
        """End the worker processes, if there are any; whoever waits for one gets an error."""
        if self._processes is not None:
            self._processes.close()


class _Epoch(Iterator[Batch]):
    """The iterator over one epoch, with its threads and the batches under way."""

    def __init__(
        self, loader: Loader, epoch: int, start_batch: int, processes: Optional[ProcessPool]
    ) -> None:
        self._loader, self._epoch, self._next = loader, epoch, start_batch
        self._pending: deque[BatchJob] = deque()
        self._processes = processes
        self._watch = WorkerWatch(
            loader.rank, loader.num_workers, loader.timeout_s, loader.dataset.path_of
        )
        if processes is not None:
            self._watch.name_of = lambda worker: f"process {processes.pid(worker)}"
        self._closed = False
        self._pool: Optional[ThreadPool] = None
        try:
            if loader.num_workers:
                self._pool = ThreadPool(loader.num_workers, self._watch.died)
        except RuntimeError as error:
            raise loader.not_started(error) from error

    def __next__(self) -> Batch:
        started = time.perf_counter()
        try:
            if self._closed:
                raise StopIteration
            self._schedule()
            if not self._pending:
                raise StopIteration
            batch = self._result(self._pending.popleft())
        except BaseException as error:
            if isinstance(error, WorkerError):
                self._loader.end_processes()  # one of them is dead or stuck
            self.close()
            raise
        self._schedule()
        batch.wait_s = time.perf_counter() - started
        return batch

    def _result(self, job: BatchJob) -> Batch:
        pool = self._pool
        if pool is not None:
            idents, processes = pool.idents(), self._processes
            self._watch.wait(
                job.finished,
                pool.dead,
                processes.stack_of
                if processes is not None
                else lambda worker: thread_stack(idents[worker]),
            )
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
            self._pending.append(
                BatchJob(
                    loader,
                    self._epoch,
                    self._next,
                    self._pool,
                    self._watch,
                    self._processes,
                    loader.buffers,
                )
            )
            self._next += 1

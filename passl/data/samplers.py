"""The order in which samples are seen, cut into global batches.

A sampler knows nothing of ranks: it gives the indices of a whole batch and each rank takes its
share (:func:`rank_slice`), so the order of samples is the same on any number of processes.  Nothing
is padded, and nothing repeated unless the sampler is there for that.

A sampler of one's own has ``num_batches``, ``num_samples`` and ``batch_indices``; it may have
``rank_share`` (another way of sharing a batch) and ``batch_repeats`` (how often the epoch had each
sample of a batch before).
"""

from __future__ import annotations

from typing import Annotated, Any, Optional

import numpy as np

from passl.data.rng import epoch_order
from passl.errors import ConfigError
from passl.registry import SAMPLERS, Range, Runtime

__all__ = [
    "DistributedBatchSampler",
    "RepeatedAugSampler",
    "rank_slice",
    "repeats_of_rank",
    "share_of_rank",
]

_ROUNDED_TO = 256  # DeiT's RASampler


@SAMPLERS.register(aliases=("BatchSampler",))
class DistributedBatchSampler:
    """Every sample once an epoch, in the list's order or shuffled by (seed, epoch).

    Args:
        num_samples: samples of the data set.
        batch_size: samples of a batch over all ranks.
        seed: of the run; the shuffle depends on it and on the epoch alone.
        drop_last: leave out the last batch of an epoch if it is not full.
        shuffle: a new random order each epoch.
    """

    def __init__(
        self,
        *,
        num_samples: Annotated[int, Runtime()],
        batch_size: Annotated[int, Runtime()],
        seed: Annotated[int, Runtime()],
        drop_last: Annotated[bool, Runtime()] = False,
        shuffle: Annotated[bool, Runtime()] = False,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"the global batch size is {batch_size}; it must be 1 or more")
        self.batch_size, self.seed, self.shuffle = batch_size, seed, shuffle
        full, rest = divmod(num_samples, batch_size)
        self.num_batches = full + (rest > 0 and not drop_last)
        self.num_samples = full * batch_size if drop_last else num_samples
        self._dataset_size = num_samples
        self._known: tuple[int, np.ndarray] = (-1, np.arange(0))

    def order(self, epoch: int) -> np.ndarray:
        """Sample indices of ``epoch``: int64 [num_samples of the data set]; read-only."""
        key = epoch if self.shuffle else 0
        known, order = self._known
        if known != key:
            order = (
                epoch_order(self._dataset_size, self.seed, epoch)
                if self.shuffle
                else np.arange(self._dataset_size)
            )
            order.flags.writeable = False
            self._known = (key, order)
        return order

    def batch_indices(self, epoch: int, batch: int) -> np.ndarray:
        """Sample indices of global batch number ``batch``: int64 [<= batch_size]."""
        return self.order(epoch)[batch * self.batch_size : (batch + 1) * self.batch_size]


@SAMPLERS.register(aliases=("RASampler", "RepeatedAugmentSampler"))
class RepeatedAugSampler:
    """Repeated augmentation: each sample several times in a row, each time augmented anew.

    An epoch is as long as the data set (rounded down to a multiple of 256 if it has 256 samples or
    more), so with 3 repeats it holds a third of the samples, another third each epoch.  The copies
    of a sample go to different processes, where there are several.

    DeiT rounds down the share of each process, so with a number of processes that does not divide
    256 its epoch is up to that number shorter; and a data set of fewer than 256 samples leaves it
    none.

    Args:
        num_repeats: copies of a sample.
        num_samples: samples of the data set.
        batch_size: samples of a batch over all ranks.
        seed: of the run; the shuffle depends on it and on the epoch alone.
        drop_last: leave out the last batch of an epoch if it is not full.
        shuffle: a new random order each epoch.

    Source: M. Berman et al., "MultiGrain", arXiv:1902.05509; DeiT's ``RASampler``
    (order, rounding); PASSL's ``RepeatedAugSampler``.
    """

    def __init__(
        self,
        *,
        num_repeats: Annotated[int, Range(min=1)] = 3,
        num_samples: Annotated[int, Runtime()],
        batch_size: Annotated[int, Runtime()],
        seed: Annotated[int, Runtime()],
        drop_last: Annotated[bool, Runtime()] = False,
        shuffle: Annotated[bool, Runtime()] = False,
    ) -> None:
        self._plain = DistributedBatchSampler(
            num_samples=num_samples, batch_size=batch_size, seed=seed, shuffle=shuffle
        )
        self.num_repeats, self.batch_size = num_repeats, batch_size
        kept = num_samples // _ROUNDED_TO * _ROUNDED_TO or num_samples
        full, rest = divmod(kept, batch_size)
        self.num_batches = full + (rest > 0 and not drop_last)
        self.num_samples = full * batch_size if drop_last else kept

    def batch_indices(self, epoch: int, batch: int) -> np.ndarray:
        """Sample indices of global batch number ``batch``: int64 [<= batch_size]."""
        return self._plain.order(epoch)[self._places(batch) // self.num_repeats]

    def batch_repeats(self, epoch: int, batch: int) -> np.ndarray:  # noqa: ARG002
        """How often the epoch had each sample of the batch before: int64 [<= batch_size]."""
        return self._places(batch) % self.num_repeats

    def rank_share(self, values: np.ndarray, rank: int, world_size: int) -> np.ndarray:
        """Every ``world_size``-th of a global batch, as DeiT; sizes differ by at most one."""
        return values[rank::world_size]

    def _places(self, batch: int) -> np.ndarray:
        """Places of the batch in the epoch, counted with the repeats."""
        start = batch * self.batch_size
        return np.arange(start, min(start + self.batch_size, self.num_samples))


def rank_slice(indices: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    """The share of ``rank`` in a global batch: contiguous, sizes differ by at most one."""
    return np.array_split(indices, world_size)[rank]


def share_of_rank(sampler: Any, values: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    """The share of ``rank`` in what a sampler gave for a global batch."""
    share = getattr(sampler, "rank_share", rank_slice)
    return np.asarray(share(values, rank, world_size))


def repeats_of_rank(
    sampler: Any, epoch: int, batch: int, rank: int, world_size: int
) -> Optional[np.ndarray]:
    """How often the epoch had each sample of a rank's batch before; None: never, none of them."""
    batch_repeats = getattr(sampler, "batch_repeats", None)
    if batch_repeats is None:
        return None
    return share_of_rank(sampler, batch_repeats(epoch, batch), rank, world_size)

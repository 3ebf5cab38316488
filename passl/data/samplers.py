"""The order in which samples are seen, cut into global batches.

A sampler knows nothing of ranks: it gives the indices of a whole batch and each rank takes its
share (:func:`rank_slice`), so the order of samples is the same on any number of processes.  Nothing
is padded or repeated.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np

from passl.data.rng import epoch_order
from passl.errors import ConfigError
from passl.registry import SAMPLERS, Runtime

__all__ = ["DistributedBatchSampler", "rank_slice"]


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


def rank_slice(indices: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    """The share of ``rank`` in a global batch: contiguous, sizes differ by at most one."""
    return np.array_split(indices, world_size)[rank]

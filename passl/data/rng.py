"""Where every random number of the data path comes from.

A generator is derived from what it is for (an order, a sample, a batch) and never carried along, so
the number of threads, ranks or restarts cannot change what a sample sees.
"""

from __future__ import annotations

import numpy as np

__all__ = ["batch_rng", "epoch_order", "sample_rng", "substitute_rng"]

# Spawn keys keep the streams apart: SeedSequence pads its entropy with zeros, so without
# them the generator of sample 0 would repeat the one that shuffles the epoch.
_SAMPLE, _BATCH, _SUBSTITUTE = 1, 2, 3
_WORD = 1 << 32  # what a word of SeedSequence's entropy is below


def epoch_order(num_samples: int, seed: int, epoch: int) -> np.ndarray:
    """The shuffled order of an epoch: int64 [num_samples], a permutation fixed by (seed, epoch)."""
    bits = np.random.PCG64(np.random.SeedSequence([seed, epoch]))
    return np.random.Generator(bits).permutation(num_samples)


def sample_rng(seed: int, epoch: int, index: int, repeat: int = 0) -> np.random.Generator:
    """The generator for the transforms of sample ``index`` in ``epoch``.

    Args:
        seed: of the run.
        epoch: number of the epoch.
        index: position in the data set.
        repeat: how often the epoch had the sample before; each time it looks different.
    """
    return _generator(seed, epoch, _SAMPLE, index, repeat)


def batch_rng(seed: int, epoch: int, batch: int) -> np.random.Generator:
    """The generator for the batch transforms of global batch number ``batch`` in ``epoch``."""
    return _generator(seed, epoch, _BATCH, batch)


def substitute_rng(seed: int, epoch: int, index: int, repeat: int = 0) -> np.random.Generator:
    """The generator that chooses, and augments, what stands in for sample ``index``."""
    return _generator(seed, epoch, _SUBSTITUTE, index, repeat)


def _generator(
    seed: int, epoch: int, stream: int, number: int, repeat: int = 0
) -> np.random.Generator:
    key = (stream, number, repeat) if repeat else (stream, number)
    if max(seed, epoch, number, repeat) < _WORD:
        # What SeedSequence makes of a spawn key, put together here in half the time: the entropy,
        # filled up with zeros to four words, and the key behind it.
        sequence = np.random.SeedSequence(np.array((seed, epoch, 0, 0, *key), np.uint32))
    else:
        sequence = np.random.SeedSequence([seed, epoch], spawn_key=key)
    return np.random.Generator(np.random.PCG64(sequence))

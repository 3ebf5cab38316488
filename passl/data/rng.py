"""Where every random number of the data path comes from.

A generator is derived from what it is for (an order, a sample, a batch) and never carried along, so
the number of threads, ranks or restarts cannot change what a sample sees.

numpy's ``SeedSequence`` takes longer to seed a generator than a loader to do all else for a sample.
Those of a batch differ in their last words alone, so :func:`sample_generators` computes the rest
once and the end for all of them together; the generators are the same.

Source: M. O'Neill, "Developing a seed_seq Alternative", 2015, as numpy has it (constants).
"""

from __future__ import annotations

from typing import Any, Callable, Optional

import numpy as np
from numpy.random.bit_generator import ISpawnableSeedSequence

__all__ = ["batch_rng", "epoch_order", "sample_generators", "sample_rng", "substitute_rng"]

# Spawn keys keep the streams apart: SeedSequence pads its entropy with zeros, so without
# them the generator of sample 0 would repeat the one that shuffles the epoch.
_SAMPLE, _BATCH, _SUBSTITUTE = 1, 2, 3
_WORD = 1 << 32  # what a word of SeedSequence's entropy is below


def _powers(start: int, factor: int, count: int) -> np.ndarray:
    """``start * factor**k`` in 32 bits: uint32 [count, 1]."""
    values = [start * pow(factor, k, _WORD) % _WORD for k in range(count)]
    return np.array(values, np.uint32)[:, None]


# The constants that successive words are hashed with; on entering the pool, and on leaving it.
_POOL = 4
_ENTER, _LEAVE = _powers(0x43B0D7E5, 0x931E8875, 30), _powers(0x8B51F9DD, 0x58F38DED, 9)
_LEFT, _RIGHT, _SHIFT = np.uint32(0xCA01F9DD), np.uint32(0x4973F715), np.uint32(16)
_HASHED = 20  # before the number of a sample: the pool, its mixing, and the word of the stream


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


def sample_generators(
    seed: int, epoch: int, indices: np.ndarray, repeats: Optional[np.ndarray] = None
) -> Callable[[int], np.random.Generator]:
    """What gives :func:`sample_rng` of each of many samples, by its place among them.

    Args:
        seed, epoch: as there.
        indices: int64 [N], positions in the data set.
        repeats: int64 [N], or None where all are 0.
    """
    again = np.zeros(len(indices), np.int64) if repeats is None else repeats
    largest = max(seed, epoch, int(indices.max(initial=0)), int(again.max(initial=0)))
    if largest >= _WORD:
        return lambda place: sample_rng(seed, epoch, int(indices[place]), int(again[place]))
    start = np.random.SeedSequence(np.array((seed, epoch, 0, 0, _SAMPLE), np.uint32)).pool
    pools = _entered(start[:, None], indices.astype(np.uint32), _HASHED)
    rows = np.flatnonzero(again)
    if len(rows):
        words = again[rows].astype(np.uint32)
        pools[:, rows] = _entered(pools[:, rows], words, _HASHED + _POOL)
    states = _left(pools)

    def generator(place: int) -> np.random.Generator:
        key = (seed, epoch, int(indices[place]), int(again[place]))
        seeded: Any = _Seeded(states[place], key)  # numpy's types know no such sequence
        return np.random.Generator(np.random.PCG64(seeded))

    return generator


def _entered(pools: np.ndarray, words: np.ndarray, hashed: int) -> np.ndarray:
    """The pools [4, N] or [4, 1] with one more word each [N] in them: uint32 [4, N]."""
    value = (words ^ _ENTER[hashed : hashed + _POOL]) * _ENTER[hashed + 1 : hashed + 1 + _POOL]
    value ^= value >> _SHIFT
    mixed = _LEFT * pools - _RIGHT * value
    return mixed ^ (mixed >> _SHIFT)


def _left(pools: np.ndarray) -> np.ndarray:
    """What the pools [4, N] give to seed PCG64: uint64 [N, 4]."""
    value = (np.concatenate((pools, pools)) ^ _LEAVE[:8]) * _LEAVE[1:9]
    value ^= value >> _SHIFT
    words = np.ascontiguousarray(value.T, dtype="<u4")
    return words.view("<u8").astype(np.uint64)


class _Seeded(ISpawnableSeedSequence):
    """A seed sequence whose state for PCG64 is known; the rest is numpy's, if it is asked for."""

    def __init__(self, state: np.ndarray, key: tuple[int, int, int, int]) -> None:
        self._state, self._key = state, key
        self._sequence: Optional[np.random.SeedSequence] = None

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        """The state."""
        if n_words == len(self._state) and dtype == np.uint64:
            return self._state
        return self._plain().generate_state(n_words, dtype)

    def spawn(self, n_children: int) -> list[Any]:
        """Sequences of one's own, for a transform that wants several generators."""
        return self._plain().spawn(n_children)

    def _plain(self) -> np.random.SeedSequence:
        if self._sequence is None:
            seed, epoch, index, repeat = self._key
            self._sequence = _sequence(seed, epoch, _SAMPLE, index, repeat)
        return self._sequence


def batch_rng(seed: int, epoch: int, batch: int) -> np.random.Generator:
    """The generator for the batch transforms of global batch number ``batch`` in ``epoch``."""
    return _generator(seed, epoch, _BATCH, batch)


def substitute_rng(seed: int, epoch: int, index: int, repeat: int = 0) -> np.random.Generator:
    """The generator that chooses, and augments, what stands in for sample ``index``."""
    return _generator(seed, epoch, _SUBSTITUTE, index, repeat)


def _generator(
    seed: int, epoch: int, stream: int, number: int, repeat: int = 0
) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(_sequence(seed, epoch, stream, number, repeat)))


def _sequence(
    seed: int, epoch: int, stream: int, number: int, repeat: int
) -> np.random.SeedSequence:
    key = (stream, number, repeat) if repeat else (stream, number)
    if max(seed, epoch, number, repeat) < _WORD:
        # What SeedSequence makes of a spawn key, put together here in half the time: the entropy,
        # filled up with zeros to four words, and the key behind it.
        return np.random.SeedSequence(np.array((seed, epoch, 0, 0, *key), np.uint32))
    return np.random.SeedSequence([seed, epoch], spawn_key=key)

"""Repeated augmentation: DeiT's selection, copies that look different, any epoch from any batch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from passl.data.dataset import Dataset
from passl.data.loader import Loader
from passl.data.rng import epoch_order, sample_rng
from passl.data.samplers import RepeatedAugSampler, repeats_of_rank, share_of_rank
from passl.registry import SAMPLERS


def make(**arguments: Any) -> RepeatedAugSampler:
    given = {"num_samples": 1000, "batch_size": 64, "seed": 5, "shuffle": True, **arguments}
    return RepeatedAugSampler(**given)


def epoch_of(sampler: RepeatedAugSampler, epoch: int) -> np.ndarray:
    return np.concatenate([sampler.batch_indices(epoch, b) for b in range(sampler.num_batches)])


@pytest.mark.parametrize(("world_size", "per_rank"), [(1, 1281024), (4, 320256), (8, 160128)])
def test_an_epoch_of_imagenet_is_as_long_as_deits(world_size, per_rank):
    sampler = make(num_samples=1281167, batch_size=1024)
    assert sampler.num_samples == per_rank * world_size
    assert sampler.num_batches == 1251


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_each_rank_has_the_samples_that_deit_gives_it(world_size):
    # DeiT: the permutation with every entry three times, each rank every world_size-th of it, of
    # which the first N // 256 * 256 / world_size are kept and cut into batches.
    sampler, batch_size = make(), 64
    repeated = np.repeat(epoch_order(1000, 5, 2), 3)
    for rank in range(world_size):
        wanted = repeated[rank::world_size][: 768 // world_size]
        mine = [
            share_of_rank(sampler, sampler.batch_indices(2, batch), rank, world_size)
            for batch in range(sampler.num_batches)
        ]
        np.testing.assert_array_equal(np.concatenate(mine), wanted)
        assert {len(part) for part in mine} == {batch_size // world_size}


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_ranks_share_each_batch_whole(world_size):
    sampler = make(num_samples=300, batch_size=50)
    for batch in range(sampler.num_batches):
        whole = sampler.batch_indices(0, batch)
        places = sampler.batch_repeats(0, batch)
        pairs = []
        for rank in range(world_size):
            mine = share_of_rank(sampler, whole, rank, world_size)
            repeats = repeats_of_rank(sampler, 0, batch, rank, world_size)
            assert repeats is not None
            pairs += list(zip(mine.tolist(), repeats.tolist()))
        assert sorted(pairs) == sorted(zip(whole.tolist(), places.tolist()))
        assert len(set(pairs)) == len(whole)  # no sample twice with the same number


@pytest.mark.parametrize(
    ("num_samples", "kept"), [(1, 1), (255, 255), (256, 256), (511, 256), (512, 512)]
)
def test_small_data_sets_keep_an_epoch(num_samples, kept):
    sampler = make(num_samples=num_samples, batch_size=16)
    assert sampler.num_samples == kept == len(epoch_of(sampler, 0))
    assert sampler.num_batches == math.ceil(kept / 16)
    dropping = make(num_samples=255, batch_size=16, drop_last=True)
    assert (dropping.num_samples, dropping.num_batches) == (240, 15)


def test_a_third_of_the_samples_three_times_and_others_next_time():
    sampler = make(num_samples=768)
    first, second = epoch_of(sampler, 0), epoch_of(sampler, 1)
    assert set(np.unique(first, return_counts=True)[1]) == {3}
    assert len(set(first)) == 256
    assert set(first) != set(second)
    plain = make(num_samples=768, shuffle=False)
    np.testing.assert_array_equal(epoch_of(plain, 3), np.repeat(np.arange(256), 3))


def test_its_other_names():
    for name in ("RASampler", "RepeatedAugmentSampler"):
        assert SAMPLERS.get(name) is RepeatedAugSampler


class Noise(Dataset):
    """Each image is what the generator of its sample says."""

    def __init__(self, count: int) -> None:
        super().__init__([lambda image, rng: rng.random((2, 2, 3), dtype=np.float32)])
        self.count = count

    def __len__(self) -> int:
        return self.count

    def load(self, index: int) -> tuple[np.ndarray, int]:
        return np.zeros((2, 2, 3), np.uint8), index


def images_of(sampler: RepeatedAugSampler, *, start: int = 0, **rest: Any) -> dict[Any, bytes]:
    """(batch, place in the global batch) -> bytes."""
    loader = Loader(Noise(1000), sampler, seed=5, **rest)
    rank, world_size = rest.get("rank", 0), rest.get("world_size", 1)
    found = {}
    for number, batch in enumerate(loader.epoch(1, start_batch=start), start):
        for place, image in enumerate(batch.images):
            found[number, place * world_size + rank] = image.tobytes()
    return found


def test_copies_look_different_and_every_start_worker_and_rank_sees_the_same():
    sampler = make(batch_size=60)
    alone = images_of(sampler, num_workers=0)
    assert len(set(alone.values())) == len(alone) == 768
    assert images_of(sampler, num_workers=3) == alone
    resumed = images_of(sampler, num_workers=2, start=7)
    assert resumed == {key: image for key, image in alone.items() if key[0] >= 7}
    for world_size in (2, 3):
        together: dict[Any, bytes] = {}
        for rank in range(world_size):
            together |= images_of(sampler, num_workers=1, rank=rank, world_size=world_size)
        assert together == alone


def test_the_first_copy_is_augmented_as_without_repeats():
    assert sample_rng(1, 2, 3, 0).bytes(8) == sample_rng(1, 2, 3).bytes(8)
    streams = {
        sample_rng(1, 2, index, repeat).bytes(8) for index in range(9) for repeat in range(9)
    }
    assert len(streams) == 81

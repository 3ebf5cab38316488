"""Every sample once an epoch, in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

import numpy as np
import pytest

from passl.data.rng import batch_rng, epoch_order, sample_generators, sample_rng
from passl.data.samplers import DistributedBatchSampler, rank_slice
from passl.errors import ConfigError
from passl.registry import SAMPLERS


def make(**arguments: object) -> DistributedBatchSampler:
    return DistributedBatchSampler(**{"num_samples": 103, "batch_size": 10, "seed": 5, **arguments})


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("drop_last", "batches", "samples"), [(False, 11, 103), (True, 10, 100)])
def test_an_epoch_is_every_sample_once(shuffle, drop_last, batches, samples):
    sampler = make(shuffle=shuffle, drop_last=drop_last)
    assert (sampler.num_batches, sampler.num_samples) == (batches, samples)
    seen = np.concatenate([sampler.batch_indices(3, b) for b in range(sampler.num_batches)])
    assert len(seen) == samples
    assert len(set(seen.tolist())) == samples
    if not shuffle:
        np.testing.assert_array_equal(seen, np.arange(samples))


def test_the_order_is_the_documented_permutation():
    bits = np.random.PCG64(np.random.SeedSequence([5, 3]))
    expected = np.random.Generator(bits).permutation(103)
    np.testing.assert_array_equal(make(shuffle=True).order(3), expected)


def test_seed_and_epoch_change_the_order():
    orders = {make(shuffle=True, seed=s).order(e).tobytes() for s in (1, 2) for e in (0, 1, 2)}
    assert len(orders) == 6


def test_going_back_to_an_epoch_gives_its_order_again():
    sampler = make(shuffle=True)
    first = sampler.order(1).copy()
    sampler.order(2)
    np.testing.assert_array_equal(sampler.order(1), first)


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [1, 2, 10, 13])
def test_ranks_share_a_batch_without_loss_padding_or_repeats(world_size, size):
    batch = np.arange(100, 100 + size)
    parts = [rank_slice(batch, rank, world_size) for rank in range(world_size)]
    np.testing.assert_array_equal(np.concatenate(parts), batch)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_batch_sampler_is_the_same_class():
    assert SAMPLERS.get("BatchSampler") is SAMPLERS.get("DistributedBatchSampler")


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="the global batch size is 0; it must be 1 or more"):
        make(batch_size=0)


def test_random_streams_do_not_repeat_one_another():
    bits = [sample_rng(1, 2, i).bytes(16) for i in range(50)]
    bits += [batch_rng(1, 2, i).bytes(16) for i in range(50)]
    bits += [sample_rng(1, 3, 0).bytes(16), sample_rng(2, 2, 0).bytes(16)]
    bits += [np.random.default_rng([1, 2]).bytes(16)]  # what shuffles the epoch
    assert len(set(bits)) == len(bits)
    assert sample_rng(1, 2, 3).bytes(16) == bits[3]


@pytest.mark.parametrize("seed", [0, 2021, 4294967295, 1 << 32, 1 << 40])
@pytest.mark.parametrize("repeat", [0, 2])
def test_a_generator_is_the_one_of_numpys_spawn_key(seed, repeat):
    for epoch, index in ((0, 0), (7, 13_999_999), (300, 1 << 33)):
        key = (1, index, repeat) if repeat else (1, index)
        sequence = np.random.SeedSequence([seed, epoch], spawn_key=key)
        expected = np.random.Generator(np.random.PCG64(sequence))
        assert sample_rng(seed, epoch, index, repeat).bytes(32) == expected.bytes(32)
    assert epoch_order(10, 1, 2).tolist() == epoch_order(10, 1, 2).tolist()


@pytest.mark.parametrize(
    ("seed", "epoch"), [(0, 0), (2021, 7), ((1 << 32) - 1, (1 << 32) - 1), (1 << 40, 3)]
)
@pytest.mark.parametrize("repeated", [False, True])
def test_the_generators_of_a_batch_are_those_of_its_samples(seed, epoch, repeated):
    rng = np.random.default_rng(0)
    indices = np.append(rng.integers(0, 1 << 32, 60), [0, 1, (1 << 31) - 1, (1 << 32) - 1])
    repeats = rng.integers(0, 3, len(indices)) if repeated else None
    of_place = sample_generators(seed, epoch, indices, repeats)
    for place, index in enumerate(indices.tolist()):
        found = of_place(place)
        expected = sample_rng(seed, epoch, index, 0 if repeats is None else int(repeats[place]))
        assert found.bit_generator.state == expected.bit_generator.state
    for _ in range(2):  # children of children, as numpy counts them
        pairs = zip(*(one.bit_generator.seed_seq.spawn(2) for one in (found, expected)))
        for ours, numpys in pairs:
            np.testing.assert_array_equal(ours.generate_state(4), numpys.generate_state(4))


def test_no_sample_needs_no_generator():
    sample_generators(1, 2, np.arange(0), np.arange(0))

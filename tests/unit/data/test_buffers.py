"""Memory of batches is used again, and never while somebody still holds it."""

from __future__ import annotations

import gc

import numpy as np

from passl.data.buffers import BufferPool

FLOAT = np.dtype(np.float32)


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_memory_comes_again_once_the_array_is_gone():
    pool = BufferPool(3)
    first = pool.empty((4, 100), FLOAT)
    first[:] = 1.0
    place = address(first)
    del first
    gc.collect()
    assert address(pool.empty((4, 100), FLOAT)) == place


def test_a_view_keeps_the_memory():
    pool = BufferPool(3)
    first = pool.empty((4, 100), FLOAT)
    first[:] = 7.0
    view = first[1:2].reshape(10, 10)[::2]
    del first
    gc.collect()
    second = pool.empty((4, 100), FLOAT)
    second[:] = 0.0
    assert (view == 7.0).all()


def test_a_smaller_array_fits_into_larger_memory_and_a_larger_one_gets_its_own():
    pool = BufferPool(3)
    first = pool.empty((10, 10), FLOAT)
    place = address(first)
    del first
    gc.collect()
    small = pool.empty((3, 5), np.dtype(np.uint8))
    assert (address(small), small.shape, small.dtype) == (place, (3, 5), np.uint8)
    del small
    gc.collect()
    large = pool.empty((1000, 1000), FLOAT)
    large[:] = 2.0
    assert large.sum() == 2e6


def test_no_more_is_kept_than_asked_for():
    pool = BufferPool(2)
    arrays = [pool.empty((100,), FLOAT) for _ in range(5)]
    arrays.clear()
    gc.collect()
    assert len(pool._free) == 2


def test_an_empty_array_needs_no_memory():
    assert BufferPool(1).empty((0, 3, 8, 8), FLOAT).shape == (0, 3, 8, 8)

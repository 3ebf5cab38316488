"""Copies to a device: in order, and nothing is let go of before the device is past it."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import paddle

from passl.data.batch import Batch
from passl.data.transfer import Transfer


class Kept:
    """Something on the device, or pinned for it."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array


class SlowDevice:
    """Queues what it is told, and does it when asked to."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.alive: list[weakref.ref[Kept]] = []
        self.marks = 0
        self.done = 0  # marks that the device has come to

    def copy(self, array: np.ndarray) -> tuple[Any, Any]:
        self.log.append("copy")
        both = Kept(array), Kept(array)
        self.alive += [weakref.ref(item) for item in both]
        return both

    def await_copies(self) -> None:
        self.log.append("await")

    def mark(self) -> int:
        self.log.append("mark")
        self.marks += 1
        return self.marks

    def is_past(self, mark: int) -> bool:
        return mark <= self.done

    def wait_for(self, mark: int) -> None:
        assert self.num_alive() >= 4 * (self.marks - mark + 1)  # what it was marked for among them
        self.done = mark
        self.log.append(f"wait {mark}")

    def num_alive(self) -> int:
        gc.collect()
        return sum(item() is not None for item in self.alive)


def batch(count: int = 2, value: int = 0) -> Batch:
    images = np.full((count, 4, 4, 3), value, np.uint8)
    return Batch(images, np.arange(count), np.arange(count), count)


def test_a_batch_is_used_after_its_copies_and_marked_before_the_next():
    device = SlowDevice()
    transfer = Transfer(device)
    for value in range(3):
        images, labels = transfer(batch(value=value))
        assert (images.array == value).all()
        assert (labels.array == [0, 1]).all()
        device.log.append("step")
    one = ["copy", "copy", "await", "step"]
    assert device.log == [*one, "mark", *one, "mark", *one]


def test_what_a_copy_uses_is_held_until_the_device_is_past_the_step():
    device = SlowDevice()
    transfer = Transfer(device)
    for _ in range(3):
        transfer(batch())
    assert device.num_alive() == 12  # the device has done nothing yet
    device.done = 2
    transfer(batch())
    assert device.num_alive() == 4 * 2
    device.done = 99
    transfer(batch())
    assert device.num_alive() == 4  # the batch in use: its end is not even queued


def test_nothing_is_let_go_of_out_of_turn():
    class Odd(SlowDevice):
        def is_past(self, mark: int) -> bool:
            return mark == 2

    device = Odd()
    transfer = Transfer(device)
    for _ in range(3):
        transfer(batch())
    assert device.num_alive() == 12


def test_the_host_does_not_run_far_ahead():
    device = SlowDevice()
    transfer = Transfer(device)
    for _ in range(6):
        transfer(batch())
        assert device.num_alive() <= 12
    assert [entry for entry in device.log if entry.startswith("wait")] == [
        "wait 1",
        "wait 2",
        "wait 3",
    ]


def test_an_empty_share_of_a_batch_is_not_copied_by_the_device():
    device = SlowDevice()
    images, labels = Transfer(device)(batch(0))
    assert device.log == []
    assert (list(images.shape), list(labels.shape)) == ([0, 4, 4, 3], [0])


def test_on_a_cpu_a_batch_becomes_tensors_and_nothing_is_held():
    transfer = Transfer()
    given = batch(value=7)
    images, labels = transfer(given)
    assert images.dtype == paddle.uint8
    assert labels.dtype == paddle.int64
    np.testing.assert_array_equal(images.numpy(), given.images)
    alive = weakref.ref(given.images)
    expected = images.numpy().copy()
    given.images[...] = 9  # memory of a batch is used again: the tensor must have its own
    np.testing.assert_array_equal(images.numpy(), expected)
    del given
    gc.collect()
    assert alive() is None

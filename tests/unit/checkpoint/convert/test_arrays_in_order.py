"""Arrays of files larger than memory are made one at a time."""

from __future__ import annotations

import numpy as np
import pytest

from passl.checkpoint.convert.casting import ArraysInOrder, as_stored
from passl.checkpoint.files import read_arrays, write_arrays
from passl.errors import CheckpointError


class Counted(ArraysInOrder):
    """Three arrays; notes how many were made."""

    def __init__(self) -> None:
        self.made = 0

    def pairs(self):
        for number in range(3):
            self.made += 1
            yield f"array.{number}", np.full((2, 2), number, np.float32)


def test_they_are_a_mapping():
    arrays = Counted()
    assert list(arrays) == ["array.0", "array.1", "array.2"]
    assert len(arrays) == 3
    assert {name: float(array[0, 0]) for name, array in arrays.items()} == {
        "array.0": 0.0, "array.1": 1.0, "array.2": 2.0,
    }
    with pytest.raises(KeyError):
        arrays["array.3"]


def test_asking_for_one_makes_none_after_it():
    arrays = Counted()
    assert arrays["array.1"][0, 0] == 1.0
    assert arrays.made == 2


def test_writing_makes_each_once(tmp_path):
    arrays = Counted()
    write_arrays(tmp_path / "x.pdparams", arrays)
    assert arrays.made == 3
    assert list(read_arrays(tmp_path / "x.pdparams")) == list(Counted())


def test_an_array_is_stored_as_asked_and_halved_where_nothing_is_lost():
    exact, inexact = np.array([1.0, 0.5], np.float32), np.array([1.0, 0.1], np.float32)
    assert as_stored("a", exact, None).dtype == np.uint16  # bfloat16
    assert as_stored("a", inexact, None).dtype == np.float32
    assert as_stored("a", inexact, "float16").dtype == np.float16
    with pytest.raises(CheckpointError, match="a: 70000 is too large for float16"):
        as_stored("a", np.array([7e4], np.float32), "float16")

"""Numbers and a picture of how evenly the classes are filled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from passl.data.label_statistics import describe_balance, draw_balance, label_statistics


def test_the_numbers_of_an_uneven_data_set():
    counts = np.array([0, 10, 40, 50, 100])
    assert label_statistics(counts, 160) == {
        "classes": 5,
        "smallest": 0,
        "largest": 100,
        "mean": 40.0,
        "median": 40.0,
        "imbalance": 10.0,  # of the classes that have any
        "classes_of_half": 1,  # 100 of 200
        "labels_per_sample": 1.25,
    }
    assert describe_balance(label_statistics(counts, 160)) == (
        "5 classes with 0 to 100 samples, 40.0 on average, median 40; the largest has 10.0 times "
        "the smallest that has any, and half of all; 1.25 labels a sample"
    )


def test_an_even_data_set_is_told_in_one_sentence():
    text = describe_balance(label_statistics(np.full(10, 3), 30))
    assert text == "10 classes with 3 to 3 samples, 3.0 on average, median 3"


@pytest.mark.parametrize("counts", [np.zeros(0, np.int64), np.zeros(4, np.int64)])
def test_nothing_to_count_is_no_division_by_zero(counts, tmp_path: Path):
    assert label_statistics(counts, 0) == {}
    draw_balance(tmp_path / "picture.png", {"Train": counts})


def bar_heights(picture: Image.Image, top: int) -> list[int]:
    """Blue pixels in each column of one panel, from the axis to the right border; no gaps."""
    pixels = np.asarray(picture.convert("RGB"))[top : top + 320, 90:936].astype(int)
    blue = (pixels == (66, 112, 168)).all(2)
    return [height for height in blue.sum(0).tolist() if height]


def test_the_picture_has_a_falling_row_of_bars_for_each_data_set(tmp_path: Path):
    path = tmp_path / "picture.png"
    draw_balance(path, {"Train": np.array([1, 1000, 10, 100]), "Eval": np.array([7, 7])})
    with Image.open(path) as picture:
        assert picture.size == (960, 640)
        train, even = bar_heights(picture, 0), bar_heights(picture, 320)
    assert train == sorted(train, reverse=True)
    bars = sorted(set(train), reverse=True)
    assert len(bars) == 4
    assert min(bars) > 0  # the class with one sample can be seen
    steps = np.diff(bars)
    assert steps.max() - steps.min() <= 2  # each is a tenth of the one before: equal steps
    assert len(set(even)) == 1


@pytest.mark.parametrize(("classes", "gaps"), [(3, 2), (100, 99), (1000, 0)])
def test_bars_of_few_classes_stand_apart(classes, gaps, tmp_path: Path):
    path = tmp_path / "picture.png"
    draw_balance(path, {"Train": np.full(classes, 50)})
    with Image.open(path) as picture:
        assert 936 - 90 - len(bar_heights(picture, 0)) == gaps

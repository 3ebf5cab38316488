"""Top-k counts: an oracle that sorts, ties, NaN, and k beyond the classes."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from passl.errors import ConfigError
from passl.metrics.topk import TopkAcc


def count(logits, labels, topk=(1, 5)):
    sums = TopkAcc(topk=topk)(paddle.to_tensor(logits), paddle.to_tensor(labels))
    assert all(total.dtype == paddle.int64 and list(total.shape) == [] for total in sums.values())
    return {name: total.item() for name, total in sums.items()}


def test_counts_equal_those_of_a_stable_sort():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 12)).astype("float32").round(1)  # many ties
    labels = rng.integers(0, 12, 200)
    order = np.argsort(-logits, axis=1, kind="stable")
    expected = {f"top{k}": int((order[:, :k] == labels[:, None]).any(1).sum()) for k in (1, 3, 5)}
    assert count(logits, labels, [1, 3, 5]) == expected


def test_sums_of_parts_are_the_sum_of_the_whole():
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(50, 10)).astype("float32"), rng.integers(0, 10, 50)
    parts = [count(logits[a:b], labels[a:b]) for a, b in ((0, 7), (7, 8), (8, 50))]
    whole = count(logits, labels)
    assert {name: sum(part[name] for part in parts) for name in whole} == whole


def test_equal_logits_go_to_the_lower_class():
    assert count(np.zeros((4, 4), "float32"), np.arange(4), [1, 2]) == {"top1": 1, "top2": 2}


def test_k_above_the_number_of_classes_means_all_of_them():
    assert count(np.zeros((4, 3), "float32"), np.array([0, 1, 2, 2])) == {"top1": 1, "top5": 4}


def test_nan_logits_are_never_right():
    assert count(np.full((3, 4), np.nan, "float32"), np.array([0, 1, 3])) == {"top1": 0, "top5": 0}


def test_names_keep_the_order_of_the_config():
    assert TopkAcc(topk=[5, 1]).names == ["top5", "top1"]
    assert TopkAcc(topk=3).names == ["top3"]
    assert TopkAcc().names == ["top1", "top5"]


@pytest.mark.parametrize("topk", [[], [0], [1, 1]])
def test_meaningless_k_is_refused(topk):
    with pytest.raises(ValueError, match="different numbers of at least 1"):
        TopkAcc(topk=topk)


@pytest.mark.parametrize("target", [np.zeros((2, 3), "float32"), np.zeros((2, 3), "int64")])
def test_targets_per_class_are_refused_with_the_way_out(target):
    with pytest.raises(ConfigError, match="remove TopkAcc from that part of Metric"):
        count(np.zeros((2, 3), "float32"), target)

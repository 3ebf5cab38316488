"""The switch between Mixup and CutMix: shares, rectangles and targets, by batch, pair and image."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from passl.data.batch_transforms.switching import Mix, MixupCutmix
from passl.data.dataset import Dataset
from passl.data.loader import Loader
from passl.data.samplers import DistributedBatchSampler
from passl.data.transforms.normalize import NormalizeImage, ToCHWImage
from passl.errors import ConfigError

CLASSES = 6
MODES = ["batch", "pair", "elem"]


def make(**arguments: Any) -> MixupCutmix:
    settings = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "class_num": CLASSES, **arguments}
    return MixupCutmix(**settings)


def flat(values: np.ndarray) -> np.ndarray:
    """Images [B, 1, 20, 30], each of one value."""
    return np.repeat(values.astype(np.float32), 600).reshape(-1, 1, 20, 30)


def check(before: np.ndarray, after: np.ndarray, labels: np.ndarray, target: np.ndarray) -> set:
    """Every image and target is the mix of two that it claims to be; returns the kinds seen."""
    kinds = set()
    own = labels if labels.ndim == 2 else np.eye(CLASSES)[labels]
    own = own * 0.9 + 0.1 / CLASSES
    for i in range(len(before)):
        partner = len(before) - 1 - i
        a, b = before[i, 0, 0, 0], before[partner, 0, 0, 0]
        values = np.unique(after[i])
        if a == b or np.array_equal(values, [a]):
            share, kind = 1.0, "none"
        elif set(values) <= {a, b}:
            hole = after[i, 0] == b
            rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
            assert hole.sum() == len(rows) * len(columns)
            share, kind = 1 - hole.mean(), "cutmix"
        else:
            assert len(values) == 1
            share, kind = float((values[0] - b) / (a - b)), "mixup"
        kinds.add(kind)
        expected = share * own[i] + (1 - share) * own[partner]
        np.testing.assert_allclose(target[i], expected, atol=1e-5)
    return kinds


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("count", [8, 7, 1])
def test_targets_are_mixed_by_the_shares_of_the_pixels(mode, count):
    rng, kinds = np.random.default_rng(0), set()
    op = make(mode=mode, prob=0.8)
    for _ in range(60):
        labels = rng.integers(CLASSES, size=count)
        before = flat(np.arange(1, count + 1))
        after, target = op(before.copy(), labels, rng)
        assert target.dtype == after.dtype == np.float32
        kinds |= check(before, after, labels, target)
    assert kinds == ({"none"} if count == 1 else {"none", "mixup", "cutmix"})


@pytest.mark.parametrize("mode", MODES)
def test_soft_and_multi_label_targets_are_mixed_alike(mode):
    rng = np.random.default_rng(0)
    for labels in (
        (rng.random((8, CLASSES)) < 0.3).astype(np.float32),
        rng.dirichlet(np.ones(CLASSES), 8).astype(np.float32),
    ):
        kept = labels.copy()
        for _ in range(20):
            before = flat(np.arange(1, 9))
            after, target = make(mode=mode)(before.copy(), labels, rng)
            check(before, after, labels, target)
        np.testing.assert_array_equal(labels, kept)


def test_a_pair_is_mixed_alike_and_images_of_their_own_otherwise():
    rng, labels = np.random.default_rng(0), np.zeros(8, int)
    for mode, distinct in (("batch", 1), ("pair", 4), ("elem", 8)):
        op = make(mode=mode, cutmix_alpha=0.0)
        after, _ = op(flat(np.array([0.0] * 4 + [1.0] * 4)), labels, rng)
        shares = np.abs(after[:, 0, 0, 0] - np.array([1] * 4 + [0] * 4))
        assert len(np.unique(shares.round(6))) == distinct
        if mode == "pair":
            np.testing.assert_allclose(shares, shares[::-1], atol=1e-6)


def test_the_draws_follow_prob_switch_prob_and_the_beta_distributions():
    op, rng, draws = make(prob=0.7, switch_prob=0.3), np.random.default_rng(0), 6000
    mixes = [op.draw(200, 200, rng) for _ in range(draws)]
    cut = [mix for mix in mixes if mix.box is not None]
    blended = np.array([mix.share for mix in mixes if mix.box is None and mix.share != 1.0])
    for count, probability in ((len(cut), 0.21), (len(blended), 0.49)):
        assert abs(count - draws * probability) < 5 * math.sqrt(
            draws * probability * (1 - probability)
        )
    variance = 1 / (4 * (2 * 0.8 + 1))  # of Beta(a, a)
    assert abs(blended.mean() - 0.5) < 5 * math.sqrt(variance / len(blended))
    assert abs(blended.var() - variance) < 5 * variance / math.sqrt(len(blended))
    assert all(mix.share == 1 - area(mix) / 200**2 for mix in cut)
    assert Mix(1.0) in mixes


def area(mix: Mix) -> int:
    assert mix.box is not None
    top, bottom, left, right = mix.box
    assert 0 <= top <= bottom <= 200
    assert 0 <= left <= right <= 200
    return (bottom - top) * (right - left)


@pytest.mark.parametrize(
    ("alphas", "kind"), [({"cutmix_alpha": 0.0}, "mixup"), ({"mixup_alpha": 0.0}, "cutmix")]
)
def test_one_of_the_two_may_be_off(alphas, kind):
    op, rng = make(**alphas), np.random.default_rng(0)
    boxes = {op.draw(200, 200, rng).box is not None for _ in range(200)}
    assert boxes == {kind == "cutmix"}


def test_rectangles_between_bounds_lie_inside():
    op, rng = make(mixup_alpha=0.0, cutmix_minmax=(0.2, 0.4)), np.random.default_rng(0)
    sides = []
    for _ in range(2000):
        top, bottom, left, right = op.draw(200, 100, rng).box
        assert 0 <= top < bottom <= 200
        assert 0 <= left < right <= 100
        sides.append((bottom - top, right - left))
    low, high = np.min(sides, axis=0), np.max(sides, axis=0)
    assert (low.tolist(), high.tolist()) == ([40, 20], [79, 39])
    whole = make(mixup_alpha=0.0, cutmix_minmax=(0.0, 0.001))
    assert area(whole.draw(200, 200, rng)) == 0


def test_after_off_epoch_epochs_targets_are_only_smoothed():
    op, labels = make(off_epoch=2), np.arange(6)
    for epoch, mixed in ((1, True), (2, True), (3, False), (4, False)):
        before = flat(np.arange(6))
        after, target = op.in_epoch(epoch)(before.copy(), labels, np.random.default_rng(0))
        assert (not np.array_equal(after, before)) == mixed
        if not mixed:
            np.testing.assert_allclose(target, np.eye(6) * 0.9 + 0.1 / 6, atol=1e-6)
    assert make().in_epoch(10**6)(flat(np.arange(6)), labels, np.random.default_rng(0))[0].any()


def test_the_loader_tells_the_epoch():
    class Plain(Dataset):
        class_num = CLASSES

        def __len__(self) -> int:
            return 8

        def load(self, index: int) -> tuple[np.ndarray, int]:
            return np.full((6, 6, 3), 20 * index, np.uint8), index % CLASSES

    data = Plain([NormalizeImage(order="hwc"), ToCHWImage()])
    sampler = DistributedBatchSampler(num_samples=8, batch_size=8, seed=0)
    loader = Loader(data, sampler, batch_transforms=[make(off_epoch=1)], num_workers=0)
    first, second = (next(loader.epoch(epoch)) for epoch in (1, 2))
    assert (first.labels > 1 / CLASSES * 0.1 + 1e-6).sum() > 8
    assert (second.labels > 1 / CLASSES * 0.1 + 1e-6).sum() == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mixup_alpha": 0.0, "cutmix_alpha": 0.0}, "mixup_alpha and cutmix_alpha are both 0"),
        ({"cutmix_minmax": (0.5, 0.5)}, r"cutmix_minmax is \[0\.5, 0\.5\]; the lower bound"),
    ],
)
def test_settings_that_mix_nothing_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=f"MixupCutmix: {message}"):
        make(**arguments)

"""Mixed images and targets follow their closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from passl.data.batch_transforms.mixing import Cutmix, Mixup, TransformOpSampler
from passl.errors import ConfigError, DataError
from passl.registry import BATCH_TRANSFORMS

CLASSES = 5


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((6, 3, 20, 30)).astype(np.float32)


LABELS = np.array([0, 1, 2, 3, 4, 0])


def smooth(labels: np.ndarray, epsilon: float) -> np.ndarray:
    return np.eye(CLASSES)[labels] * (1 - epsilon) + epsilon / CLASSES


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_mixup_is_the_weighted_sum_of_a_pair(images, epsilon):
    before, rng = images.copy(), np.random.default_rng(3)
    mixed, target = Mixup(alpha=0.8, epsilon=epsilon, class_num=CLASSES)(images, LABELS, rng)
    again = np.random.default_rng(3)
    again.random()  # the draw of "mix at all"
    share = again.beta(0.8, 0.8)
    expected = share * before + (1 - share) * before[::-1]
    np.testing.assert_allclose(mixed, expected, rtol=1e-5, atol=1e-6)
    own = smooth(LABELS, epsilon)
    np.testing.assert_allclose(target, share * own + (1 - share) * own[::-1], atol=1e-6)
    assert target.dtype == mixed.dtype == np.float32
    np.testing.assert_allclose(target.sum(1), 1.0, atol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_cutmix_pastes_a_rectangle_and_counts_its_area(images, seed):
    before = images.copy()
    op = Cutmix(alpha=1.0, epsilon=0.1, class_num=CLASSES)
    mixed, target = op(images, LABELS, np.random.default_rng(seed))
    changed = (mixed != before).any(axis=1)  # [B, H, W]
    for mask in changed:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask.sum() == len(rows) * len(columns)  # one filled rectangle
        np.testing.assert_array_equal(mask, changed[0])
    np.testing.assert_array_equal(
        mixed.transpose(0, 2, 3, 1)[changed], before[::-1].transpose(0, 2, 3, 1)[changed]
    )
    share = 1 - changed[0].mean()
    own = smooth(LABELS, 0.1)
    np.testing.assert_allclose(target, share * own + (1 - share) * own[::-1], atol=1e-6)


def test_shares_follow_the_beta_distribution(images):
    op, rng = Mixup(alpha=0.4, class_num=CLASSES), np.random.default_rng(0)
    labels = np.array([0, 1])
    shares = np.array([op(images[:2].copy(), labels, rng)[1][0, 0] for _ in range(3000)])
    variance = 1 / (4 * (2 * 0.4 + 1))  # of Beta(a, a)
    assert abs(shares.mean() - 0.5) < 4 * np.sqrt(variance / 3000)
    assert abs(shares.var() / variance - 1) < 0.1


def test_an_unmixed_batch_has_soft_targets_too(images):
    before = images.copy()
    op = Mixup(prob=0.0, epsilon=0.1, class_num=CLASSES)
    mixed, target = op(images, LABELS, np.random.default_rng(0))
    np.testing.assert_array_equal(mixed, before)
    np.testing.assert_allclose(target, smooth(LABELS, 0.1), atol=1e-6)


def test_soft_and_multi_hot_targets_are_mixed_as_they_are(images):
    soft = np.random.default_rng(1).random((6, CLASSES)).astype(np.float32)
    _, target = Mixup(class_num=CLASSES)(images, soft, np.random.default_rng(3))
    again = np.random.default_rng(3)
    again.random()
    share = again.beta(1.0, 1.0)
    np.testing.assert_allclose(target, share * soft + (1 - share) * soft[::-1], atol=1e-6)


def test_one_of_several_is_chosen_by_probability(images):
    op = TransformOpSampler(
        ops=[Mixup(prob=0.5, class_num=CLASSES), Cutmix(prob=0.2, alpha=1.0, class_num=CLASSES)]
    )
    rng, kinds = np.random.default_rng(0), []
    small = images[:, :, :8, :8]
    for _ in range(1500):
        mixed, target = op(small.copy(), LABELS, rng)
        same = (mixed == small).mean()
        kinds.append("none" if same == 1 else "mixup" if same == 0 else "cutmix")
        assert target.shape == (6, CLASSES)
    assert abs(kinds.count("mixup") / 1500 - 0.5) < 0.06
    # A rectangle may be empty or the whole image, so some of CutMix's count elsewhere.
    assert 0.1 < kinds.count("cutmix") / 1500 < 0.22
    assert 0.25 < kinds.count("none") / 1500 < 0.4


def test_the_models_class_count_is_used(images):
    given: dict[str, Any] = {"name": "TransformOpSampler", "ops": [{"name": "Mixup", "alpha": 0.8}]}
    op = BATCH_TRANSFORMS.build(given, model_class_num=7)
    assert op(images, LABELS, np.random.default_rng(0))[1].shape == (6, 7)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Mixup(), "Mixup: class_num is not known; give it"),
        (
            lambda: Cutmix(class_num=3, model_class_num=4),
            "Cutmix: class_num is 3 but Model.class_num is 4; leave Cutmix's out",
        ),
        (
            lambda: TransformOpSampler(ops=[Mixup(class_num=3), Cutmix(class_num=3, prob=0.25)]),
            "TransformOpSampler: the prob of its ops sum to 1.25; at most 1",
        ),
        (
            lambda: TransformOpSampler(ops=[]),
            "TransformOpSampler: ops must be one or more of Mixup and Cutmix",
        ),
        (
            lambda: TransformOpSampler(ops=[len]),
            "TransformOpSampler: ops must be one or more of Mixup and Cutmix; "
            "builtin_function_or_method cannot be chosen by probability",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(make, text):
    with pytest.raises(ConfigError) as error:
        make()
    assert str(error.value) == text


def test_a_label_out_of_range_is_refused(images):
    with pytest.raises(DataError, match="Mixup: label 4 is out of range for 3 classes"):
        Mixup(class_num=3)(images, LABELS, np.random.default_rng(0))

"""Losses: PASSL's numbers, double-precision oracles, and what decides the kind of a target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest

from passl.losses.binary import BCELoss
from passl.losses.combined import CombinedLoss
from passl.losses.cross_entropy import CELoss, ViTCELoss


def log_softmax(logits):
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.normal(size=(6, 9)) * 3, rng.integers(0, 9, 6), rng.dirichlet(np.ones(9), 6)


def value(loss, logits, target):
    result = loss(paddle.to_tensor(logits.astype("float32")), paddle.to_tensor(target))
    assert result.dtype == paddle.float32
    assert list(result.shape) == []
    return result.item()


@pytest.mark.parametrize("epsilon", [None, 0.0, 0.1, 1.0])
@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_ce_of_indices_is_the_smoothed_cross_entropy(batch, epsilon, dtype):
    logits, labels, _ = batch
    smooth = np.eye(9)[labels] * (1 - (epsilon or 0)) + (epsilon or 0) / 9
    expected = -(smooth * log_softmax(logits)).sum(1).mean()
    assert value(CELoss(epsilon=epsilon), logits, labels.astype(dtype)) == pytest.approx(
        expected, rel=1e-6
    )


@pytest.mark.parametrize("epsilon", [None, 0.1])
def test_ce_of_soft_targets(batch, epsilon):
    logits, _, soft = batch
    smooth = soft * (1 - (epsilon or 0)) + (epsilon or 0) / 9
    expected = -(smooth * log_softmax(logits)).sum(1).mean()
    assert value(CELoss(epsilon=epsilon), logits, soft.astype("float32")) == pytest.approx(
        expected, rel=1e-6
    )


@pytest.mark.parametrize("loss", [CELoss(), ViTCELoss(type="softmax")])
def test_a_batch_as_large_as_the_number_of_classes_still_holds_indices(loss):
    # PASSL takes the label vector for a soft target here and says 6.00.
    assert value(loss, np.zeros((4, 4)), np.arange(4)) == pytest.approx(np.log(4), rel=1e-6)


@pytest.mark.parametrize(
    "loss", [CELoss(), CELoss(epsilon=0.1), ViTCELoss(), ViTCELoss(type="softmax")]
)
def test_a_column_of_indices_means_the_same_as_a_row(loss, batch):
    logits, labels, _ = batch
    assert value(loss, logits, labels) == value(loss, logits, labels[:, None])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (np.zeros((6, 9), "int64"), "an integer target must hold one class index per sample"),
        (np.zeros(5, "int64"), r"logits float32 \[6, 9\], target int64 \[5\]"),
        (np.zeros(6, "float32"), "a floating-point target must have one number per class"),
        (np.zeros((6, 8), "float32"), r"target float32 \[6, 8\]"),
    ],
)
@pytest.mark.parametrize("loss", [CELoss(), ViTCELoss(), BCELoss()])
def test_a_target_of_neither_kind_is_refused_in_words(loss, target, message, batch):
    with pytest.raises(ValueError, match=message):
        value(loss, batch[0], target)


@pytest.mark.parametrize(
    ("loss", "logit", "passl"),
    [
        (ViTCELoss(epsilon=1e-4), -10.0, "11.0442"),
        (ViTCELoss(epsilon=1e-4, type="sigmoid"), 0.0, "693.154"),
        (ViTCELoss(type="softmax"), 0.0, "6.9078"),
    ],
)
def test_vit_loss_gives_passls_numbers(loss, logit, passl):
    found = value(loss, np.full((8, 1000), logit), np.arange(8))
    assert f"{found:.6g}" == passl or f"{found:.5g}" == passl


def vit_oracle(kind, epsilon, logits, targets):
    wanted = targets * (1 - epsilon) + epsilon
    if kind == "softmax":
        return -(wanted * log_softmax(logits)).sum(1).mean()
    return (np.logaddexp(0, logits) - wanted * logits).sum(1).mean()


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
@pytest.mark.parametrize("epsilon", [0.0, 1e-4, 0.3])
@pytest.mark.parametrize("multi_hot", [False, True])
def test_vit_loss_smooths_every_class_by_epsilon(kind, epsilon, multi_hot, batch):
    logits, labels, soft = batch
    dense = (soft > 0.1).astype("float32") if multi_hot else np.eye(9)[labels]
    expected = vit_oracle(kind, epsilon, logits, dense)
    found = value(ViTCELoss(epsilon=epsilon, type=kind), logits, dense if multi_hot else labels)
    assert found == pytest.approx(expected, rel=3e-6)


@pytest.mark.parametrize(
    ("loss", "kind", "epsilon"),
    [
        (CELoss(epsilon=0.1), "ce", 0.1),
        (ViTCELoss(epsilon=0.01), "sigmoid", 0.01),
        (ViTCELoss(epsilon=0.01, type="softmax"), "softmax", 0.01),
    ],
)
def test_gradients_equal_the_derivative_by_hand(loss, kind, epsilon, batch):
    logits, labels, _ = batch
    tensor = paddle.to_tensor(logits.astype("float32"), stop_gradient=False)
    loss(tensor, paddle.to_tensor(labels)).backward()
    spread = epsilon / 9 if kind == "ce" else epsilon
    wanted = np.eye(9)[labels] * (1 - epsilon) + spread
    if kind == "sigmoid":
        expected = (1 / (1 + np.exp(-logits)) - wanted) / 6
    else:
        expected = (np.exp(log_softmax(logits)) * wanted.sum(1, keepdims=True) - wanted) / 6
    np.testing.assert_allclose(tensor.grad.numpy(), expected, rtol=2e-5, atol=1e-7)


def test_smoothed_cross_entropy_equals_timms():
    golden = np.load(Path(__file__).parents[2] / "golden" / "vit.npz")
    found = value(CELoss(epsilon=0.1), golden["logits"], golden["y"])
    assert found == pytest.approx(float(golden["loss"]), rel=1e-6)


def test_half_precision_logits_are_lifted_to_float32():
    logits = paddle.full([2, 3], 60000.0, dtype="float32").astype("float16")
    assert CELoss()(logits, paddle.to_tensor([0, 1])).item() == pytest.approx(np.log(3), rel=1e-6)


def test_a_combined_loss_reports_weighted_parts_that_add_up(batch):
    logits, labels, _ = batch
    loss = CombinedLoss([("CELoss", 1.0, CELoss()), ("CELoss", 0.25, CELoss(epsilon=1.0))])
    parts = loss(paddle.to_tensor(logits.astype("float32")), paddle.to_tensor(labels))
    assert list(parts) == loss.names == ["CELoss", "CELoss_2", "loss"]
    assert parts["CELoss"].item() == pytest.approx(value(CELoss(), logits, labels))
    assert parts["CELoss_2"].item() == pytest.approx(
        0.25 * value(CELoss(epsilon=1.0), logits, labels)
    )
    assert parts["loss"].item() == pytest.approx(parts["CELoss"].item() + parts["CELoss_2"].item())


def test_a_combined_loss_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one loss"):
        CombinedLoss([])


# -- sample by sample, for evaluation -----------------------------------------------------------


@pytest.mark.parametrize("kind", ["indices", "column", "soft"])
@pytest.mark.parametrize(
    "loss",
    [CELoss(), CELoss(epsilon=0.1), ViTCELoss(), ViTCELoss(epsilon=0.01),
     ViTCELoss(type="softmax"), ViTCELoss(type="softmax", epsilon=0.1)],
)  # fmt: skip
def test_the_mean_over_the_samples_is_the_loss_in_double_precision(loss, kind, batch):
    logits, labels, soft = batch
    target = {"indices": labels, "column": labels[:, None], "soft": soft.astype("float32")}[kind]
    each = loss.per_sample(paddle.to_tensor(logits), paddle.to_tensor(target))
    assert (list(each.shape), each.dtype) == ([6], paddle.float64)
    whole = loss(paddle.to_tensor(logits.astype("float32")), paddle.to_tensor(target)).item()
    assert each.numpy().mean() == pytest.approx(whole, rel=1e-6)
    for index in range(6):
        one = slice(index, index + 1)
        assert each[index].item() == pytest.approx(value(loss, logits[one], target[one]), rel=1e-6)


def test_a_loss_of_ones_own_is_asked_sample_by_sample(batch):
    logits, labels, _ = batch

    def squares(logits, target):
        return (logits.square().sum(axis=1) * (1.0 + target.astype("float32"))).mean()

    combined = CombinedLoss([("Own", 0.5, squares), ("CELoss", 2.0, CELoss())])
    values = combined.per_sample(paddle.to_tensor(logits), paddle.to_tensor(labels))
    expected = 0.5 * (logits**2).sum(1) * (1 + labels)
    np.testing.assert_allclose(values["Own"].numpy(), expected, rtol=1e-6)
    np.testing.assert_array_equal(
        values["loss"].numpy(), values["Own"].numpy() + values["CELoss"].numpy()
    )
    assert all(each.dtype == paddle.float64 for each in values.values())


@pytest.mark.parametrize(
    ("threshold", "expected"),
    # torch.nn.BCEWithLogitsLoss of torch 2.13 in float64, of targets.gt(threshold) where there is
    # one, as DeiT's engine.py has it.
    [(None, 1.4069005083084722), (0.0, 1.0679014815974581), (0.2, 1.2868206469198173)],
)
def test_bce_of_soft_targets_is_torchs(threshold, expected):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 9)) * 3
    rng.integers(0, 9, 6)
    soft = rng.dirichlet(np.ones(9) * 0.1, 6)
    soft[soft < 0.05] = 0
    loss = BCELoss(target_threshold=threshold)
    assert value(loss, logits, soft.astype("float32")) == pytest.approx(expected, rel=1e-6)
    each = loss.per_sample(paddle.to_tensor(logits), paddle.to_tensor(soft.astype("float32")))
    assert each.dtype == paddle.float64
    assert each.numpy().mean() == pytest.approx(expected, rel=1e-6)
    wanted = soft if threshold is None else (soft > threshold).astype(float)
    closed = np.logaddexp(0, logits) - wanted * logits
    np.testing.assert_allclose(each.numpy(), closed.mean(1), rtol=1e-6)


def test_bce_of_indices_is_that_of_one_hot_targets(batch):
    logits, labels, _ = batch
    expected = value(BCELoss(), logits, np.eye(9, dtype="float32")[labels])
    for kind in ("int64", "int32"):
        for threshold in (None, 0.0, 0.9):
            loss = BCELoss(target_threshold=threshold)
            assert value(loss, logits, labels.astype(kind)) == pytest.approx(expected, rel=1e-6)
    # A class is one of nine here, and one of the sum there.
    vit = value(ViTCELoss(), logits, labels)
    assert expected == pytest.approx(vit / 9, rel=1e-6)


def test_bce_pulls_at_every_class(batch):
    logits, _, soft = batch
    given = paddle.to_tensor(logits.astype("float32"), stop_gradient=False)
    BCELoss()(given, paddle.to_tensor((soft > 0.3).astype("float32"))).backward()
    sigmoid = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(given.grad.numpy(), (sigmoid - (soft > 0.3)) / 54, atol=1e-7)


def test_bce_bears_the_largest_logits(batch):
    logits = np.array([[1e4, -1e4]])
    assert value(BCELoss(), logits, np.array([[1.0, 0.0]], "float32")) == 0.0
    assert value(BCELoss(), logits, np.array([[0.0, 1.0]], "float32")) == pytest.approx(1e4)


@pytest.mark.parametrize("loss", [ViTCELoss(), ViTCELoss(epsilon=0.2), BCELoss()])
@pytest.mark.parametrize("soft", [False, True], ids=["indices", "targets"])
def test_a_logit_of_zero_learns_as_its_neighbours_do(loss, soft):
    """Every logit is 0 where a classifier starts with zeros; Paddle's own gradient is off there."""
    indices = paddle.to_tensor([1, 0, 3])
    target = paddle.nn.functional.one_hot(indices, 4) if soft else indices
    found = []
    for value in (0.0, 1e-6, -1e-6, 30.0, -30.0):
        logits = paddle.full([3, 4], value)
        logits.stop_gradient = False
        loss(logits, target).backward()
        found.append(logits.grad.numpy())
    wanted = np.eye(4, dtype="f4")[[1, 0, 3]]
    if isinstance(loss, ViTCELoss):
        wanted = wanted * (1 - loss.epsilon) + loss.epsilon
    share = 1 / 3 if isinstance(loss, ViTCELoss) else 1 / 12
    for gradient, value in zip(found, (0.5, 0.5, 0.5, 1.0, 0.0)):
        np.testing.assert_allclose(gradient, (value - wanted) * share, atol=1e-6)

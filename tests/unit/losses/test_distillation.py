"""Losses with a teacher: closed forms in double precision, their gradients, and PyTorch's."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from passl.losses.distillation import DistillationLoss, hard_distillation, soft_distillation

B, C = 5, 7


@pytest.fixture
def logits():
    rng = np.random.default_rng(0)
    return [(rng.normal(size=(B, C)) * 3).astype("float32") for _ in range(2)]


def softmax(z):
    e = np.exp(z.astype("float64") - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def divergence(student, teacher, tau):
    p, q = softmax(teacher / tau), softmax(student / tau)
    return (p * np.log(p / q)).sum()


def with_gradient(function, student, *others):
    z = paddle.to_tensor(student, stop_gradient=False)
    value = function(z, *others)
    value.backward()
    return value.item(), z.grad.numpy()


@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
def test_soft_is_tau_squared_times_the_divergence_of_a_sample(logits, tau):
    student, teacher = logits
    value, grad = with_gradient(
        lambda z: soft_distillation(z, paddle.to_tensor(teacher), tau), student
    )
    assert value == pytest.approx(tau**2 / B * divergence(student, teacher, tau), rel=1e-5)
    wanted = tau / B * (softmax(student / tau) - softmax(teacher / tau))
    np.testing.assert_allclose(grad, wanted, atol=1e-6)


def test_hard_is_the_cross_entropy_with_the_teachers_choice(logits):
    student, teacher = logits
    value, grad = with_gradient(lambda z: hard_distillation(z, paddle.to_tensor(teacher)), student)
    chosen = np.eye(C)[teacher.argmax(1)]
    assert value == pytest.approx(-(chosen * np.log(softmax(student))).sum(1).mean(), rel=1e-6)
    np.testing.assert_allclose(grad, (softmax(student) - chosen) / B, atol=1e-6)


@pytest.mark.parametrize("tau", [1.0, 3.0])
@pytest.mark.parametrize("form", ["deit", "myrtle"])
def test_alpha_weights_the_teacher_in_deit_and_the_labels_in_myrtle(logits, form, tau):
    student, teacher = logits
    losses = DistillationLoss("soft", form, 0.2, tau)(
        paddle.to_tensor(2.0), paddle.to_tensor(student), paddle.to_tensor(teacher)
    )
    whole = tau**2 * divergence(student, teacher, tau)
    kd = whole / (B * C) if form == "deit" else whole / B
    total = 0.8 * 2.0 + 0.2 * kd if form == "deit" else 0.2 * 2.0 + 0.8 * kd
    assert list(losses) == list(DistillationLoss.names) == ["loss_ce", "loss_kd", "loss"]
    assert losses["loss_ce"].item() == 2.0
    assert losses["loss_kd"].item() == pytest.approx(kd, rel=1e-5)
    assert losses["loss"].item() == pytest.approx(total, rel=1e-5)


def test_hard_is_not_divided_by_the_classes(logits):
    student, teacher = (paddle.to_tensor(each) for each in logits)
    losses = DistillationLoss("hard", "deit", 0.5, 1.0)(paddle.to_tensor(0.0), student, teacher)
    assert losses["loss_kd"].item() == hard_distillation(student, teacher).item()


def test_a_student_that_agrees_has_nothing_to_learn(logits):
    student, _ = logits
    value, grad = with_gradient(
        lambda z: soft_distillation(z, paddle.to_tensor(student), 2.0), student
    )
    assert value == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(grad, 0.0, atol=1e-7)


def test_sure_teachers_and_half_precision_stay_finite():
    student = paddle.to_tensor(np.array([[200.0, -200.0]], dtype="float16"))
    teacher = paddle.to_tensor(np.array([[-3e4, 3e4]], dtype="float16"))
    assert soft_distillation(student, teacher, 1.0).item() == pytest.approx(400.0)


def test_no_gradient_reaches_the_teacher(logits):
    student, teacher = (paddle.to_tensor(each, stop_gradient=False) for each in logits)
    (soft_distillation(student, teacher, 1.0) + hard_distillation(student, teacher)).backward()
    assert student.grad is not None
    assert teacher.grad is None


@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_values_and_gradients_are_pytorchs(logits, tau):
    torch = pytest.importorskip("torch")
    student, teacher = logits
    z = torch.tensor(student, requires_grad=True)
    reference = torch.nn.functional.kl_div(
        torch.log_softmax(z / tau, 1), torch.softmax(torch.tensor(teacher) / tau, 1),
        reduction="batchmean",
    ) * tau**2
    reference.backward()
    value, grad = with_gradient(
        lambda z: soft_distillation(z, paddle.to_tensor(teacher), tau), student
    )
    assert value == pytest.approx(reference.item(), rel=1e-5)
    np.testing.assert_allclose(grad, z.grad.numpy(), atol=1e-6)

"""Learning from a teacher: the losses of DeiT and of myrtle-vision, which differ in three ways.

With ``z`` the student's logits that learn from the teacher (of the distillation token, where there
is one), ``t`` the teacher's, ``tau`` the temperature, B samples and C classes, and ``CE`` the loss
of the config on the logits of the class token:

======== =========================================================================================
deit     (1 - alpha) CE + alpha KD, where KD is, **soft**, tau^2 / (B C) times the sum over samples
         and classes of p log(p / q), p = softmax(t / tau), q = softmax(z / tau); or, **hard**, the
         cross entropy of z with the class that the teacher thinks likeliest
myrtle   alpha CE + (1 - alpha) KD, where KD is tau^2 / B times that sum: C times DeiT's.  alpha
         weights the other term.  There is no hard form
======== =========================================================================================

Source: Touvron et al. 2021, equations 2 and 3, and DeiT's ``losses.py``; myrtle-vision's
``DistillWrapper``, which is vit-pytorch's with alpha turned round.
"""

from __future__ import annotations

from typing import Literal

import paddle
import paddle.nn.functional as F

from passl.losses.targets import in_fp32

__all__ = ["DistillationLoss", "hard_distillation", "soft_distillation"]


def soft_distillation(
    student: paddle.Tensor, teacher: paddle.Tensor, temperature: float
) -> paddle.Tensor:
    """``tau^2 / B`` times the divergence of the student from the teacher, a float32 scalar.

    Args:
        student, teacher: logits ``[B, C]``; no gradient reaches the teacher's.
        temperature: ``tau``, above 0.
    """
    log_q = _log_softmax(in_fp32(student) / temperature)
    log_p = _log_softmax(in_fp32(teacher).detach() / temperature)
    divergence = (log_p.exp() * (log_p - log_q)).sum(axis=1).mean()
    return divergence * (temperature * temperature)


def hard_distillation(student: paddle.Tensor, teacher: paddle.Tensor) -> paddle.Tensor:
    """Cross entropy with the class that the teacher thinks likeliest, a float32 scalar.

    Args:
        student, teacher: logits ``[B, C]``; no gradient reaches the teacher's.
    """
    log_q = _log_softmax(in_fp32(student))
    return F.nll_loss(log_q, in_fp32(teacher).detach().argmax(axis=1))


class DistillationLoss:
    """The two terms of a loss with a teacher, and their sum.

    Args:
        type: ``soft`` or ``hard``.
        form: ``deit`` or ``myrtle``; see the module.
        alpha: in DeiT's form the weight of the teacher's term, in myrtle's that of the labels'.
        temperature: ``tau`` of the soft form.

    Attributes:
        names: keys of the result, in the order of the log.
    """

    names = ("loss_ce", "loss_kd", "loss")

    def __init__(
        self,
        type: Literal["soft", "hard"],
        form: Literal["deit", "myrtle"],
        alpha: float,
        temperature: float,
    ) -> None:
        self._is_hard, self._temperature = type == "hard", temperature
        self._divides_by_classes = form == "deit" and type == "soft"
        self._kd_weight = alpha if form == "deit" else 1.0 - alpha

    def __call__(
        self, base: paddle.Tensor, student: paddle.Tensor, teacher: paddle.Tensor
    ) -> dict[str, paddle.Tensor]:
        """``loss_ce`` and ``loss_kd`` without their weights, and ``loss``; float32 scalars.

        Args:
            base: the loss on the labels, a scalar.
            student, teacher: logits ``[B, C]``.
        """
        if self._is_hard:
            kd = hard_distillation(student, teacher)
        else:
            kd = soft_distillation(student, teacher, self._temperature)
        if self._divides_by_classes:
            kd = kd / float(student.shape[1])
        total = base * (1.0 - self._kd_weight) + kd * self._kd_weight
        return {"loss_ce": base, "loss_kd": kd, "loss": total}


def _log_softmax(logits: paddle.Tensor) -> paddle.Tensor:
    """Paddle's own ends at -64 on a CPU."""
    return logits - paddle.logsumexp(logits, axis=1, keepdim=True)

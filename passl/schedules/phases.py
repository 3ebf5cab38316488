"""Settings that hold, or fall, for the first part of a run: soft masks and dropout.

Each value is a function of the step alone, so a run that continues has the values it would have
had.  A step is an optimizer step, from 0, those skipped for a gradient that is not finite included.

Source: the schedules of iLLaMA's released training code, whose logs the tests compare with; Liu et
al. 2023, "Dropout Reduces Underfitting", for early and late dropout.
"""

from __future__ import annotations

__all__ = ["cutoff_in_steps", "early_rate", "late_rate"]


def early_rate(step: int, *, rate: float, schedule: str, cutoff: int) -> float:
    """``rate`` for ``cutoff`` steps, or a line from ``rate`` to 0 over them; 0 afterwards.

    Args:
        step: from 0.
        rate: of the first step.
        schedule: ``constant`` or ``linear``; a line is 0 at step ``cutoff - 1`` already, as
            ``numpy.linspace(rate, 0, cutoff)``.
        cutoff: length of the phase in steps.
    """
    if step >= cutoff:
        return 0.0
    if schedule == "constant" or cutoff == 1:
        return rate
    # the additions of numpy.linspace, so that logs agree to the last digit
    return 0.0 if step == cutoff - 1 else step * (-rate / (cutoff - 1)) + rate


def late_rate(step: int, *, rate: float, cutoff: int) -> float:
    """0 for ``cutoff`` steps, then ``rate``."""
    return rate if step >= cutoff else 0.0


def cutoff_in_steps(cutoff_epochs: float, cutoff_steps: int, steps_per_epoch: int) -> int:
    """The length of a phase that is given in epochs or in steps; 0 where neither is."""
    return cutoff_steps or round(cutoff_epochs * steps_per_epoch)

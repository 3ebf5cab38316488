"""The log lines that scripts read: PASSL's fields, order and units, from plain values.

They differ from the former PASSL's where those were not true: ``ips`` counts all ranks, ``lr`` is
the rate of the update that the line reports (with more digits when six decimals would show zero),
losses and metrics are means over the samples of all ranks, and hours of ``eta`` are not turned
into days.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Optional

__all__ = ["best_line", "eval_avg_line", "eval_line", "format_eta", "train_avg_line", "train_line"]


def train_line(
    *,
    epoch: int,
    num_epochs: int,
    iteration: int,
    num_iterations: int,
    lr: float,
    metrics: Mapping[str, float],
    losses: Mapping[str, float],
    batch_cost_s: float,
    reader_cost_s: float,
    ips: float,
    eta_s: float,
    max_mem_gb: Optional[float] = None,
    ema_cost_s: Optional[float] = None,
) -> str:
    """One line every ``Global.print_batch_step`` steps.

    Args:
        epoch: counted from 1.
        num_epochs: epochs of the run.
        iteration: step within the epoch, counted from 0.
        num_iterations: steps of an epoch.
        lr: learning rate of this update.
        metrics: means since the last line, in the order to print (``top1``, ``metric``, ``top5``).
        losses: the same for losses, components before their sum ``loss``.
        batch_cost_s: seconds a step took, data included.
        reader_cost_s: seconds of it spent waiting for data.
        ips: images per second over all ranks.
        eta_s: seconds to the end of the run.
        max_mem_gb: peak of device memory in GB, where there is such a thing.
        ema_cost_s: seconds a step spent on averaging weights, if it does.
    """
    fields = [f"lr: {_format_lr(lr)}", *_pairs(metrics), *_pairs(losses)]
    fields += [f"batch_cost: {batch_cost_s:.5f}", f"reader_cost: {reader_cost_s:.5f}"]
    if ema_cost_s is not None:
        fields.append(f"ema_cost: {ema_cost_s:.5f}")
    fields.append(f"ips: {ips:.5f} images/sec")
    if max_mem_gb is not None:
        fields.append(f"max mem: {max_mem_gb:.2f} GB")
    fields.append(f"eta: {format_eta(eta_s)}")
    where = f"[Train][Epoch {epoch}/{num_epochs}][Iter: {iteration}/{num_iterations}]"
    return f"{where} {', '.join(fields)}"


def train_avg_line(
    *, epoch: int, num_epochs: int, metrics: Mapping[str, float], losses: Mapping[str, float]
) -> str:
    """Means over the samples of one epoch of training."""
    return f"[Train][Epoch {epoch}/{num_epochs}][Avg]{', '.join(_pairs(metrics) + _pairs(losses))}"


def eval_line(
    *,
    epoch: int,
    iteration: int,
    num_iterations: int,
    losses: Mapping[str, float],
    metrics: Mapping[str, float],
    batch_cost_s: float,
    reader_cost_s: float,
    ips: float,
) -> str:
    """One line every ``Global.print_batch_step`` batches of evaluation; values of that batch."""
    fields = _pairs(losses) + _pairs(metrics)
    fields += [f"batch_cost: {batch_cost_s:.5f}s", f"reader_cost: {reader_cost_s:.5f}"]
    fields.append(f"ips: {ips:.5f} images/sec")
    return f"[Eval][Epoch {epoch}][Iter: {iteration}/{num_iterations}]{', '.join(fields)}"


def eval_avg_line(
    *, epoch: int, losses: Mapping[str, float], metrics: Mapping[str, float], samples: int
) -> str:
    """Means over all samples of the evaluation, and how many these are."""
    fields = [*_pairs(losses), *_pairs(metrics), f"samples: {samples}"]
    return f"[Eval][Epoch {epoch}][Avg]{', '.join(fields)}"


def best_line(*, epoch: int, best: float, what: str = "metric") -> str:
    """The best value of the first metric so far, with all its digits."""
    return f"[Eval][Epoch {epoch}][best {what}: {float(best)!r}]"


def format_eta(seconds: float) -> str:
    """``H:MM:SS``; hours are not turned into days.

    >>> format_eta(93784.6)
    '26:03:04'
    """
    minutes, second = divmod(max(int(seconds), 0), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}"


def _pairs(values: Mapping[str, float]) -> list[str]:
    return [f"{name}: {value:.5f}" for name, value in values.items()]


def _format_lr(lr: float) -> str:
    """Six decimals as PASSL prints, and more where they would leave fewer than three digits."""
    decimals = 6
    while 0.0 < lr < 10.0 ** (2 - decimals) and decimals < 20:
        decimals += 1
    return f"{lr:.{decimals}f}"

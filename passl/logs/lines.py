"""The log lines that scripts read: PASSL's fields, order and units, from plain values.

They differ from the former PASSL's where those were not true: ``ips`` counts all ranks, ``lr`` is
the rate of the update that the line reports (with more digits when six decimals would show zero),
losses and metrics are means over the samples of all ranks, and hours of ``eta`` are not turned
into days.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

__all__ = [
    "TrainFigures",
    "best_line",
    "eval_avg_line",
    "eval_fields",
    "eval_line",
    "format_eta",
    "train_avg_line",
    "train_fields",
    "train_line",
]


@dataclass(frozen=True)
class TrainFigures:
    """What is said every ``Global.print_batch_step`` steps.

    Attributes:
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
    """

    epoch: int
    num_epochs: int
    iteration: int
    num_iterations: int
    lr: float
    metrics: Mapping[str, float]
    losses: Mapping[str, float]
    batch_cost_s: float
    reader_cost_s: float
    ips: float
    eta_s: float
    max_mem_gb: Optional[float] = None


def train_line(figures: TrainFigures) -> str:
    """The line of a log window."""
    say = figures
    fields = [f"lr: {_format_lr(say.lr)}", *_pairs(say.metrics), *_pairs(say.losses)]
    fields += [f"batch_cost: {say.batch_cost_s:.5f}", f"reader_cost: {say.reader_cost_s:.5f}"]
    fields.append(f"ips: {say.ips:.5f} images/sec")
    if say.max_mem_gb is not None:
        fields.append(f"max mem: {say.max_mem_gb:.2f} GB")
    fields.append(f"eta: {format_eta(say.eta_s)}")
    where = (
        f"[Train][Epoch {say.epoch}/{say.num_epochs}][Iter: {say.iteration}/{say.num_iterations}]"
    )
    return f"{where} {', '.join(fields)}"


def train_fields(figures: TrainFigures) -> list[str]:
    """The same for a terminal, the most important first: what does not fit is left out."""
    say = figures
    place = f"{say.iteration + 1:{len(str(say.num_iterations))}d}/{say.num_iterations}"
    loss = say.losses.get("loss")
    fields = [f"epoch {say.epoch}/{say.num_epochs} {place}"]
    fields += [f"loss {loss:.4f}"] if loss is not None else []
    first, others = _shown(say.metrics)
    fields += [*first, f"lr {say.lr:.3g}", f"{say.ips:.0f} img/s"]
    if say.batch_cost_s > 0:
        fields.append(f"data {say.reader_cost_s / say.batch_cost_s:.0%}")
    fields.append(f"eta {format_eta(say.eta_s)}")
    fields += [f"{say.max_mem_gb:.1f} GB"] if say.max_mem_gb is not None else []
    parts = [f"{name} {value:.4f}" for name, value in say.losses.items() if name != "loss"]
    return fields + others + (parts if len(parts) > 1 else [])


def eval_fields(
    *,
    epoch: int,
    losses: Mapping[str, float],
    metrics: Mapping[str, float],
    samples: int,
    ips: float,
) -> list[str]:
    """The result of an evaluation for a terminal, the most important first."""
    first, others = _shown(metrics)
    fields = [f"evaluated epoch {epoch}", *first, *others]
    fields += [f"{name} {value:.4f}" for name, value in losses.items() if name.endswith("loss")]
    return [*fields, f"{samples:,} samples", f"{ips:.0f} img/s"]


def _shown(metrics: Mapping[str, float]) -> tuple[list[str], list[str]]:
    """The first metric, which is PASSL's ``metric`` once more, and the others."""
    texts = [
        f"{name} {value:.4f}" for name, value in metrics.items() if not name.endswith("metric")
    ]
    return texts[:1], texts[1:]


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

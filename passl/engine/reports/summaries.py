"""The first and the last words of a training run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import paddle

import passl
from passl.checkpoint.resolve import BEST_EMA, EMA_NAME
from passl.config import BatchPlan, Config
from passl.engine.plan import RunPlan
from passl.engine.state import Best, TrainState
from passl.logs.lines import format_eta

if TYPE_CHECKING:
    from passl.engine.train_parts import TrainParts

__all__ = ["opening", "results", "what_next", "where_files_are"]


def opening(
    config: Config,
    parts: TrainParts,
    plan: RunPlan,
    state: TrainState,
    batches: BatchPlan,
    device: str,
) -> list[str]:
    """What is about to run."""
    total = sum(
        int(parameter.size)
        for name, parameter in parts.model.named_parameters()
        # Paddle keeps the running averages of batch normalisation as parameters.
        if not name.endswith(("._mean", "._variance"))
    )
    optimizer = config.Optimizer.component["name"] if config.Optimizer is not None else "none"
    schedule = config.LRScheduler["name"] if config.LRScheduler is not None else "none"
    evaluated = parts.evaluator.loader.num_samples if parts.evaluator is not None else None
    length = f"{_count(plan.total_steps, 'step')}, {_count(plan.num_epochs, 'epoch')}"
    early = f"; stops at step {plan.last_step}" if plan.last_step < plan.total_steps else ""
    return [
        f"train with passl {passl.__version__}, paddle {paddle.__version__} on {device}, "
        f"{parts.precision.describe()}",
        f"model {config.Model['name']}: {total:,} parameters; {optimizer}, {schedule}",
        batches.describe(),
        f"data: {parts.loader.num_samples:,} training samples, {plan.steps_per_epoch} steps an "
        "epoch" + (f"; {evaluated:,} to evaluate" if evaluated is not None else ""),
        f"run: {length}{early}; from step {state.step}",
    ]


def results(
    state: TrainState, plan: RunPlan, ips: Optional[float], criterion: str
) -> list[str]:
    """What came out.

    Args:
        state: of the run at its end.
        plan: its lengths.
        ips: mean images per second; None if no step was timed.
        criterion: name of what evaluations are judged by.
    """
    speed = f"; {ips:.1f} images/sec in steps" if ips is not None else ""
    seconds = state.train_time_s
    time = f"{seconds:.1f} s" if seconds < 60 else format_eta(seconds)
    lines = [
        f"done: {_count(state.step, 'step')}, {_count(plan.epoch_of(state.step), 'epoch')}, "
        f"{time}{speed}"
    ]
    if state.best is not None:
        lines.append(f"best {criterion}: {_when(state.best)}")
        lines.append(f"last {criterion}: {state.last_eval['metric']:.5f}")
    if state.best_ema is not None:
        lines.append(f"best {criterion} of the averaged weights: {_when(state.best_ema)}")
    return lines


def where_files_are(run_dir: Path, commands: Sequence[str]) -> list[str]:
    """Which file is what; ``commands`` show what was recorded."""
    best = run_dir / "best"
    shown = best if best.exists() else run_dir / "latest"
    lines = [
        f"weights: {shown}/model.pdparams",
        f"log: {run_dir}/train.log",
        f"numbers: {run_dir}/metrics.jsonl",
    ]
    if (run_dir / BEST_EMA).exists():
        lines.insert(1, f"averaged weights: {run_dir / BEST_EMA}/{EMA_NAME}")
    return lines + [f"curves: {command}" for command in commands]


def what_next(config: Config, run_dir: Path, plan: RunPlan) -> list[str]:
    """What to type next, as it can be pasted."""
    file = shlex.quote(str(config.argument))
    kept = [
        text
        for text in config.overrides
        if not text.startswith(("Global.epochs=", "Global.max_train_step="))
    ]
    trained = [
        text for text in kept if not text.startswith(("Global.pretrained_model=", "Logging."))
    ]
    longer = [*kept, f"Global.epochs={2 * plan.num_epochs}"]
    lines = ["next: evaluate, look at mistakes, export, or train longer from here"]
    if config.DataLoader.Eval is not None:
        lines.append(f"  passl-eval -c {file}{_options(trained)}")
        lines.append(f"  passl-visualize confusion {shlex.quote(str(run_dir))}")
    lines.append(f"  passl-export -c {file}{_options(trained)}")
    lines.append(f"  passl-train -c {file}{_options(longer)}")
    return lines


def _when(best: Best) -> str:
    return f"{best.metric:.5f} at step {best.step} (epoch {best.epoch})"


def _options(overrides: Sequence[str]) -> str:
    return f" -o {shlex.join(overrides)}" if overrides else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"

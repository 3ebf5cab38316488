"""What changes with the step of a run, drawn from the very objects that training asks.

Learning rate, soft mask, dropout, drop path and the decay of the averaged weights are functions of
the step alone, so no model is built and nothing is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from passl.config import Config, plan_batches
from passl.distributed.world import read_world
from passl.engine.plan import plan_run
from passl.errors import ConfigError, DataError
from passl.registry import HOOKS, SCHEDULES, import_user_modules
from passl.runtime import import_paddle
from passl.visualize.figure import OKABE_ITO, add_heading, new_figure, save_figure

__all__ = ["Curve", "RunSchedule", "draw_schedule", "plan_schedule", "save_schedule"]

_POINTS = 2000


@dataclass(frozen=True)
class Curve:
    """One quantity over the run.

    Attributes:
        name: as logs call it.
        label: as the picture calls it.
        values: float64, at each of :attr:`RunSchedule.steps`.
        is_log: it spans orders of magnitude near 1, so ``1 - value`` is drawn logarithmically.
    """

    name: str
    label: str
    values: np.ndarray
    is_log: bool = False


@dataclass(frozen=True)
class RunSchedule:
    """What a run will do.

    Attributes:
        steps: int64, the steps that are looked at: all, or evenly chosen ones with the ends.
        steps_per_epoch: optimizer steps of an epoch.
        last_step: where the run ends.
        curves: the learning rate first, then what else changes.
        constants: what stays as it is, by name.
        notes: what a schedule says of itself.
    """

    steps: np.ndarray
    steps_per_epoch: int
    last_step: int
    curves: list[Curve]
    constants: dict[str, float]
    notes: list[str]


def plan_schedule(config: Config, steps_per_epoch: Optional[int] = None) -> RunSchedule:
    """Evaluate everything that changes at the steps of a run.

    Args:
        config: checked for training.
        steps_per_epoch: None: as many as the training data gives, for the processes of this call.

    Raises:
        ConfigError: the data is needed and missing, or a schedule cannot be built.
    """
    import_user_modules(config.Global.imports, execute=True)
    per_epoch = steps_per_epoch if steps_per_epoch is not None else _steps_of_data(config)
    settings, batches = config.Global, plan_batches(config, read_world().size)
    plan = plan_run(
        seed=settings.seed,
        global_batch_size=batches.global_batch_size,
        micro_batch_size=batches.micro_batch_size,
        steps_per_epoch=per_epoch,
        epochs=settings.epochs,
        max_train_step=settings.max_train_step,
        log_every=settings.print_batch_step,
        eval_interval=None,
        eval_unit="epoch",
        save_interval=settings.save_interval,
        save_unit=settings.save_unit,
    )
    assert config.LRScheduler is not None  # the config check demands it of a run that trains
    rate = _build(
        config, "LRScheduler", SCHEDULES, config.LRScheduler,
        total_steps=plan.total_steps, steps_per_epoch=per_epoch,
    )
    steps = _chosen_steps(plan.last_step, per_epoch, rate)
    curves = [Curve("lr", "learning rate", _over(steps, rate))]
    constants = _constants(config)
    for hook in (_build(config, "Hooks", HOOKS, item) for item in config.Hooks):
        if not hasattr(hook, "setting") or not hasattr(hook, "plan"):
            continue  # it changes nothing by the step
        hook.plan(per_epoch)
        constants.pop(hook.setting, None)
        curves.append(
            Curve(hook.setting, hook.setting.replace("_", " "), _over(steps, hook.value))
        )
    if config.EMA is not None:
        decays = _ema(config, steps)
        if (decays == decays[0]).all():
            constants["ema_decay"] = float(decays[0])
        else:
            curves.append(Curve("ema_decay", "1 - decay of the average", decays, True))
    return RunSchedule(
        steps, per_epoch, plan.last_step, curves, constants, list(getattr(rate, "notes", ()))
    )


def draw_schedule(schedule: RunSchedule, path: Path, *, title: str) -> Path:
    """One panel for each quantity that changes, over steps and epochs; constants in words.

    Args:
        schedule: of :func:`plan_schedule`.
        path: of the file.
        title: of the run.

    Raises:
        ConfigError: matplotlib is missing, or the file cannot be written.
    """
    count = len(schedule.curves)
    constants = ", ".join(f"{name}={value:g}" for name, value in schedule.constants.items())
    epochs = schedule.last_step / schedule.steps_per_epoch
    note = (
        f"{_count(schedule.last_step, 'step')}, {epochs:.4g} epoch{'s' * (epochs != 1)} of "
        f"{_count(schedule.steps_per_epoch, 'step')}"
        + (f"; constant: {constants}" if constants else "")
        + "".join(f"; {sentence}" for sentence in schedule.notes)
    )
    width, height = 7.5, 1.5 + 2.0 * count
    with new_figure(width, height) as figure:
        used = add_heading(figure, title, note)
        panels = figure.subplots(count, 1, squeeze=False, sharex=True)[:, 0]
        for number, (axes, curve) in enumerate(zip(panels, schedule.curves)):
            _draw_curve(axes, schedule, curve, OKABE_ITO[number % len(OKABE_ITO)])
        panels[-1].set_xlabel("optimizer steps")
        panels[-1].xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        per_epoch = schedule.steps_per_epoch
        above = panels[0].secondary_xaxis(
            "top", functions=(lambda step: step / per_epoch, lambda epoch: epoch * per_epoch)
        )
        above.set_xlabel("epochs")
        figure.subplots_adjust(
            left=0.95 / width, right=1 - 0.25 / width, bottom=0.5 / height,
            top=1 - (used + 0.5) / height, hspace=0.18,
        )
        return save_figure(figure, path)


def save_schedule(schedule: RunSchedule, path: Path) -> Path:
    """The same numbers as CSV: ``step``, ``epoch`` and a column for each curve.

    Raises:
        ConfigError: it cannot be written.
    """
    lines = [",".join(["step", "epoch", *(curve.name for curve in schedule.curves)])]
    for row, step in enumerate(schedule.steps.tolist()):
        values = [step, step / schedule.steps_per_epoch]
        values += [float(curve.values[row]) for curve in schedule.curves]
        lines.append(",".join(f"{value:.10g}" for value in values))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    return path


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _draw_curve(axes: Any, schedule: RunSchedule, curve: Curve, colour: str) -> None:
    from matplotlib.ticker import LogFormatter, MaxNLocator

    values = 1 - curve.values if curve.is_log else curve.values
    per_epoch = curve.name == "lr" and _is_constant_in_epochs(schedule, values)
    style = "steps-post" if per_epoch else "default"
    axes.plot(
        schedule.steps, values, color=colour, linewidth=1.5, drawstyle=style,
        marker="o" if len(values) == 1 else None,
    )
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.set_ylabel(curve.label)
    axes.grid(True)
    if curve.is_log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False))
    else:
        top = float(values.max())
        axes.set_ylim(min(0.0, float(values.min())), 1.25 * top if top > 0 else None)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        at = int(np.argmax(values))
        if top > 0:
            edge = "left" if at < 0.15 * len(values) else "center"
            axes.annotate(
                f"{top:.3g} at step {schedule.steps[at]:,}", (schedule.steps[at], top),
                fontsize=8, va="bottom", ha="right" if at > 0.85 * len(values) else edge,
                xytext=(0, 2), textcoords="offset points",
            )
    axes.margins(x=0.01)


def _is_constant_in_epochs(schedule: RunSchedule, values: np.ndarray) -> bool:
    epochs = schedule.steps // schedule.steps_per_epoch
    same = epochs[1:] == epochs[:-1]
    return bool(same.any()) and bool((np.diff(values)[same] == 0).all())


def _steps_of_data(config: Config) -> int:
    from passl.data.build import build_loader

    section = config.DataLoader.Train
    assert section is not None  # the config check demands it of a run that trains
    world = read_world()
    batches = plan_batches(config, world.size)
    try:
        loader = build_loader(
            section,
            mode="train",
            global_batch_size=batches.global_batch_size,
            class_num=config.Model.get("class_num"),
            seed=config.Global.seed,
        )
    except DataError as error:
        where = config.origin("DataLoader.Train.dataset")
        raise ConfigError(
            f"{where}: DataLoader.Train.dataset: {str(error).rstrip('.')}. Without the data, say "
            "how many steps an epoch has: --steps-per-epoch N"
        ) from error
    return loader.num_batches


def _build(
    config: Config, path: str, registry: Any, component: Mapping[str, Any], **runtime: Any
) -> Any:
    try:
        return registry.build(component, **runtime)
    except ValueError as error:
        raise ConfigError(f"{config.origin(path)}: {path}: {error}") from error


def _chosen_steps(last: int, per_epoch: int, rate: Callable[[int], float]) -> np.ndarray:
    """All steps of a short run; else evenly chosen ones, starts of epochs, and the highest rate."""
    if last <= _POINTS:
        return np.arange(max(last, 1))
    even = np.linspace(0, last - 1, _POINTS)
    starts = np.arange(0, last, per_epoch)[:_POINTS]
    steps = np.unique(np.rint(np.concatenate([even, starts])).astype(np.int64))
    at = int(np.argmax(_over(steps, rate)))
    near = np.arange(steps[max(0, at - 1)], steps[min(len(steps) - 1, at + 1)] + 1)
    return np.union1d(steps, near[int(np.argmax(_over(near, rate)))])


def _over(steps: np.ndarray, function: Callable[[int], float]) -> np.ndarray:
    return np.array([function(int(step)) for step in steps], np.float64)


def _ema(config: Config, steps: np.ndarray) -> np.ndarray:
    """Of the update of the average that each step leads to: its own, or the next."""
    import_paddle()  # quietly; the next import would do it aloud
    from passl.precision.ema import decay_of_update

    section = config.EMA
    assert section is not None
    return _over(
        steps,
        lambda step: decay_of_update(
            step // section.every, decay=section.decay, warmup=section.warmup
        ),
    )


def _constants(config: Config) -> dict[str, float]:
    """Numbers that a recipe is known by and that no step changes."""
    optimizer = dict(config.Optimizer.component) if config.Optimizer is not None else {}
    found: dict[str, float] = {}
    for name in ("momentum", "weight_decay"):
        if isinstance(optimizer.get(name), (int, float)):
            found[name] = optimizer[name]
    for name, beta in zip(("beta1", "beta2"), optimizer.get("betas") or ()):
        found[name] = beta
    for name in ("beta1", "beta2"):
        if isinstance(optimizer.get(name), (int, float)):
            found[name] = optimizer[name]
    for name in ("drop_rate", "attn_drop_rate", "drop_path_rate", "soft_mask_rate"):
        if config.Model.get(name):
            found[name] = config.Model[name]
    if config.Optimizer is not None and config.Optimizer.layer_decay is not None:
        found["layer_decay"] = config.Optimizer.layer_decay
    return found

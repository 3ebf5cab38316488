"""Dropout or drop path for a part of the run only."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from paddle import nn

from passl.engine.hooks.scheduled import ScheduledSetting
from passl.errors import ConfigError
from passl.layers.drop_path import DropPath, drop_path_rates
from passl.registry import HOOKS, Range
from passl.schedules.phases import early_rate, late_rate

__all__ = ["DropSchedule"]


@HOOKS.register()
class DropSchedule(ScheduledSetting):
    """Change dropout or drop path with the step; use two of these to change both.

    It takes the place of ``Model.drop_rate`` or ``Model.drop_path_rate``.

    Args:
        target: ``dropout`` (every dropout of the model but that of attention probabilities), or
            ``drop_path`` (each block's, growing linearly from 0 at the first to the rate at the
            last).
        rate: probability to drop.
        mode: ``standard`` the whole run; ``early`` until the cutoff and then 0; ``late`` 0 until
            the cutoff.
        schedule: with ``early``: ``constant``, or ``linear`` from ``rate`` to 0 at the cutoff.
        cutoff_epochs: when the mode turns, in epochs, fractions allowed.
        cutoff_steps: the same in optimizer steps; give one of the two.

    Source: Liu et al. 2023, "Dropout Reduces Underfitting", section 4.
    """

    def __init__(
        self,
        *,
        target: Literal["dropout", "drop_path"],
        rate: Annotated[float, Range(min=0.0, max=1.0, max_open=True)],
        mode: Literal["standard", "early", "late"] = "early",
        schedule: Literal["constant", "linear"] = "constant",
        cutoff_epochs: Annotated[float, Range(min=0.0)] = 0.0,
        cutoff_steps: Annotated[int, Range(min=0)] = 0,
    ) -> None:
        super().__init__(cutoff_epochs, cutoff_steps)
        if mode == "standard" and (cutoff_epochs or cutoff_steps):
            raise ValueError("DropSchedule: mode standard has no cutoff; use early or late")
        if mode != "standard" and not (cutoff_epochs or cutoff_steps):
            raise ValueError(f"DropSchedule: mode {mode} needs cutoff_epochs or cutoff_steps")
        if schedule == "linear" and mode != "early":
            raise ValueError(f"DropSchedule: schedule linear goes with mode early, not {mode}")
        self.target, self.rate, self.mode, self.schedule = target, rate, mode, schedule
        self.setting = {"dropout": "drop_rate", "drop_path": "drop_path_rate"}[target]

    def check(self, model: Any) -> None:
        """Refuse a model without layers of the kind.

        Raises:
            ConfigError: it has none.
        """
        found = _dropouts(model) if self.target == "dropout" else _drop_paths(model)
        if not found:
            raise ConfigError(
                f"Hooks: DropSchedule: the model {type(model).__name__} has no layer of the kind "
                f"{self.target}; remove the hook or choose the other target"
            )

    def value(self, step: int) -> float:
        """The rate of step number ``step``, from 0."""
        if self.mode == "standard":
            return self.rate
        if self.mode == "late":
            return late_rate(step, rate=self.rate, cutoff=self.cutoff)
        return early_rate(step, rate=self.rate, schedule=self.schedule, cutoff=self.cutoff)

    def apply(self, model: Any, value: float) -> None:
        """Set the rate of every layer concerned."""
        if self.target == "dropout":
            for layer in _dropouts(model):
                layer.p = value
            return
        blocks = _drop_paths(model)
        for layers, rate in zip(blocks, drop_path_rates(value, len(blocks))):
            for layer in layers:
                layer.rate = rate


def _dropouts(model: Any) -> list[nn.Dropout]:
    return [
        layer
        for name, layer in model.named_sublayers()
        if isinstance(layer, nn.Dropout) and not name.endswith("attn_drop")
    ]


def _drop_paths(model: Any) -> list[list[DropPath]]:
    """The drop paths of each block; empty if the model has no blocks with any."""
    blocks = [
        [layer for layer in block.sublayers() if isinstance(layer, DropPath)]
        for block in getattr(model, "blocks", ())
    ]
    return blocks if all(blocks) else []

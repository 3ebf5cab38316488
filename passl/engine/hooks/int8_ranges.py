"""The ranges of int8 while a model is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import paddle
from paddle import Tensor

from passl.distributed.talk import talking
from passl.engine.calibration import batches_of, calibrate
from passl.engine.hooks.base import Hook
from passl.quant.simulation import Simulation

if TYPE_CHECKING:
    from passl.config.quantizing import CalibrationSection
    from passl.distributed.world import World
    from passl.engine.trainer import Trainer

__all__ = ["Int8Ranges"]


class Int8Ranges(Hook):
    """Measures ranges before the first step, moves them after each, and keeps them in checkpoints.

    They are measured on the first batches of the training images with the weights that training
    begins with, as ``Quantization.calibration`` says.  Then each end moves by its ``momentum``
    towards that of the step's inputs, over all micro-batches and processes.  A step that is left
    out moves nothing.  The engine adds this hook; no config names it.

    Args:
        simulation: of ``int8``.
        section: ``Quantization.calibration``.
    """

    def __init__(self, simulation: Simulation, section: CalibrationSection) -> None:
        self._simulation, self._section = simulation, section

    def on_start(self, trainer: Trainer) -> None:
        """Measure, unless a checkpoint had ranges."""
        if self._simulation.ranges.are_set:
            return
        parts, section = trainer.parts, self._section
        model = parts.model
        # A student with a teacher has a second classifier, which runs in training only.
        forward = getattr(model, "forward_distilled", model) if parts.distillation else model
        model.eval()
        try:
            calibrate(
                forward, self._simulation, section,
                lambda count: batches_of(parts.loader, count, trainer.state.epoch), parts.world,
            )  # fmt: skip
        finally:
            model.train()
        parts.reporter.log(
            f"quantization: ranges by {section.method} of {section.batches} training batches; from "
            f"now on each step moves them by {1 - section.momentum:g} of the way"
        )

    def on_step_end(self, trainer: Trainer) -> None:
        """Move the ranges."""
        world = trainer.parts.world
        self._simulation.ranges.move(
            self._section.momentum, trainer.accepted, lambda ends: _highest_of_all(ends, world)
        )

    def state_dict(self) -> dict[str, Any]:
        """The ranges, exactly."""
        return {"ranges": self._simulation.ranges.to_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        if state.get("ranges"):
            self._simulation.ranges.set(state["ranges"])


def _highest_of_all(ends: Tensor, world: World) -> Tensor:
    if world.is_distributed:
        with talking("ranges of int8"):
            paddle.distributed.all_reduce(ends, op=paddle.distributed.ReduceOp.MAX)
    return ends

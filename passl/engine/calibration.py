"""The ranges of int8: measured on images, or read from the checkpoint of a training with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Callable, Optional

import numpy as np
import paddle

from passl.distributed.collectives import sum_over_ranks
from passl.engine.evaluator import to_model_input
from passl.engine.run_record import record_beside
from passl.errors import CheckpointError
from passl.quant.int8 import BINS, choose_range
from passl.quant.simulation import Simulation

if TYPE_CHECKING:
    from paddle import Tensor

    from passl.config.quantizing import CalibrationSection, QuantizationSection
    from passl.data.loader import Loader
    from passl.distributed.world import World

__all__ = ["HOOK_NAME", "TrainedRanges", "batches_of", "calibrate", "trained_ranges"]

#: Name of the hook under which a checkpoint holds the ranges.
HOOK_NAME = "Int8Ranges"
TrainedRanges = Mapping[str, tuple[float, float]]
Batches = Callable[[int], Iterable["Tensor"]]


def calibrate(
    forward: Callable[[Tensor], Any],
    simulation: Simulation,
    section: CalibrationSection,
    batches: Batches,
    world: World,
) -> None:
    """Set the simulation's ranges: the ends of every input, then what is best between them.

    Args:
        forward: runs the model, which is in evaluation mode.
        simulation: of ``int8``, on that model.
        section: how many batches, and which method.
        batches: gives so many batches of images, twice the same.
        world: this process among all, whose images count alike.

    Raises:
        CheckpointError: the model computes something that is not finite.
    """
    with paddle.no_grad(), simulation.observing() as noted:
        for images in batches(section.batches):
            forward(images)
    names = simulation.ranges.names
    ends = {name: _ends_over_ranks(noted.get(name), world) for name in names}
    ends = {name: pair for name, pair in ends.items() if not np.isnan(pair).all()}
    wild = [name for name, pair in ends.items() if not np.isfinite(pair).all()]
    if wild:
        raise CheckpointError(
            f"int8: the input of {wild[0]} is not finite ({len(wild)} layers), so it has no range; "
            "the weights are damaged, or the training diverged"
        )
    if section.method != "minmax":
        with paddle.no_grad(), simulation.observing(ends) as histograms:
            for images in batches(section.batches):
                forward(images)
        for name, (lowest, highest) in ends.items():
            own = np.sum(histograms.get(name, [np.zeros(BINS)]), axis=0)
            counts = sum_over_ranks(own, world)
            ends[name] = choose_range(counts, lowest, highest, section.method, section.percentile)
    simulation.ranges.set(ends)


def batches_of(loader: Loader, count: int, epoch: int = 0) -> Iterator[Tensor]:
    """Images of the first ``count`` batches of an epoch, as the model takes them."""
    for number, batch in enumerate(loader.epoch(epoch)):
        if number >= count:
            return
        if len(batch.labels):
            yield to_model_input(paddle.to_tensor(batch.images), loader)


def trained_ranges(section: QuantizationSection, weights: str) -> Optional[TrainedRanges]:
    """The ranges that were trained beside ``weights``; None where the section measures them.

    Raises:
        CheckpointError: ``mode`` is ``qat``, and the checkpoint holds none.
    """
    if section.format != "int8" or section.mode != "qat":
        return None
    state = record_beside(weights).get("state", {})
    ranges = state.get("hooks", {}).get(HOOK_NAME, {}).get("ranges")
    if not ranges:
        raise CheckpointError(
            f"{weights}: holds no ranges of int8, which a training with Quantization.mode: qat "
            "leaves in state.json; -o Quantization.mode=ptq measures them"
        )
    return {name: (float(lowest), float(highest)) for name, (lowest, highest) in ranges.items()}


def _ends_over_ranks(noted: Optional[list[np.ndarray]], world: World) -> tuple[float, float]:
    """The lowest and highest of all processes; NaN where the layer ran in none."""
    own = np.stack(noted) if noted else np.full((1, 2), np.nan)
    table = np.zeros((world.size, 2))
    table[world.rank] = own[:, 0].min(), own[:, 1].max()
    table = sum_over_ranks(table.reshape(-1), world).reshape(-1, 2)
    table = table[~np.isnan(table).all(axis=1)]  # a process without a batch has nothing to say
    if not len(table):
        return np.nan, np.nan
    return float(table[:, 0].min()), float(table[:, 1].max())

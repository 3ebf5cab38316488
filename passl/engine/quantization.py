"""``Quantization`` of a config: training that rounds, and an evaluation that says what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

import numpy as np
import paddle

from passl.distributed.collectives import sum_over_ranks
from passl.engine.class_report import ClassCounts
from passl.engine.evaluator import Evaluator, to_model_input
from passl.quant.int8 import BINS
from passl.quant.simulation import Simulation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paddle import Tensor

    from passl.config import Config
    from passl.config.quantizing import QuantizationSection
    from passl.data.loader import Loader
    from passl.distributed.world import World
    from passl.engine.reporting import Reporter

__all__ = ["QuantizedEvaluation", "evaluate_quantized", "round_in_training"]

#: Images on which layers are compared.
_COMPARED = 8


def round_in_training(config: Config, model: Any, reporter: Reporter) -> Optional[Simulation]:
    """Let the model round in training and evaluation, if the config asks for it."""
    section = config.Quantization
    if section is None or section.format == "FP32" or section.mode != "qat":
        return None
    simulation = Simulation(model, section.format, section.rounding, in_training=True)
    reporter.log(
        f"quantization: {len(simulation.layers)} layers compute in {section.format} "
        f"({section.rounding} rounding), in training and evaluation; weights are kept in float32"
    )
    return simulation


def evaluate_quantized(
    config: Config, model: Any, evaluator: Optional[Evaluator], world: World
) -> Optional[QuantizedEvaluation]:
    """Let the model compute in the format of the config, and the evaluator count its classes."""
    section = config.Quantization
    if section is None or section.format == "FP32" or evaluator is None:
        return None
    quantized = QuantizedEvaluation(
        section, model, evaluator.loader, config.Model["class_num"], world
    )
    quantized.prepare()
    evaluator.watch(quantized.counts)
    return quantized


class QuantizedEvaluation:
    """An evaluation in another number format.

    Args:
        section: ``Quantization``, of a format other than ``FP32``.
        model: with its weights.
        loader: evaluation data.
        class_num: classes of the model.
        world: this process among all.

    Attributes:
        counts: to be given to the evaluator as its last metric.
    """

    def __init__(
        self,
        section: QuantizationSection,
        model: Any,
        loader: Loader,
        class_num: int,
        world: World,
    ) -> None:
        self._section, self._model, self._loader, self._world = section, model, loader, world
        self.counts = ClassCounts(class_num)
        self._simulation = Simulation(model, section.format, section.rounding)

    def prepare(self) -> None:
        """Find the ranges of int8, and how far each layer is from float32."""
        self._model.eval()
        with paddle.no_grad():
            if self._section.format == "int8":
                self._calibrate()
            self._errors = self._compare()

    def report(self, reporter: Reporter) -> None:
        """Tell the log the size, the layer that differs most, and the figures of each class."""
        section = self._section
        before, after = self._simulation.size()
        calibration = section.calibration
        how = (
            f"ranges by {calibration.method} of {calibration.batches} batches"
            if section.format == "int8"
            else f"{section.rounding} rounding"
        )
        reporter.log(f"quantization: {section.format}, {how}")
        reporter.log(
            f"weights: {before:,} bytes in float32, {after:,} in {section.format} "
            f"({after / before:.1%})"
        )
        if self._errors:
            name = max(self._errors, key=lambda key: self._errors[key])
            reporter.log(
                f"largest error of a layer: {self._errors[name]:.3e} at {name} (norm of the "
                f"difference to float32 over the norm, {len(self._errors)} layers)"
            )
        names = getattr(self._loader.dataset, "classes", None)
        for line in self.counts.table(self._world, names):
            reporter.log(line)

    # -- before ------------------------------------------------------------------------------

    def _batches(self, count: int) -> Iterator[Tensor]:
        for number, batch in enumerate(self._loader.epoch(0)):
            if number >= count:
                return
            if len(batch.labels):
                yield to_model_input(paddle.to_tensor(batch.images), self._loader)

    def _calibrate(self) -> None:
        """First the ends of every input, then histograms between them, over all processes."""
        calibration, simulation = self._section.calibration, self._simulation
        with simulation.observing() as ends:
            for images in self._batches(calibration.batches):
                self._model(images)
        names = [name for name, layer in simulation.layers.items() if simulation.takes_range(layer)]
        for name in names:
            # A process without a batch of its own has nothing to say.
            own = np.stack(ends[name]) if name in ends else np.full((1, 2), np.nan)
            lowest, highest = self._over_ranks(float(own[:, 0].min()), float(own[:, 1].max()))
            simulation.ranges[name] = (lowest, highest)
        if calibration.method == "minmax":
            return
        with simulation.observing() as histograms:
            for images in self._batches(calibration.batches):
                self._model(images)
        counts = {
            name: sum_over_ranks(
                np.sum(histograms.get(name, [np.zeros(BINS)]), axis=0), self._world
            )
            for name in names
        }
        simulation.choose(counts, calibration.method, calibration.percentile)

    def _over_ranks(self, lowest: float, highest: float) -> tuple[float, float]:
        """The lowest and highest of all processes."""
        table = np.zeros((self._world.size, 2))
        table[self._world.rank] = lowest, highest
        table = sum_over_ranks(table.reshape(-1), self._world).reshape(-1, 2)
        return float(np.nanmin(table[:, 0])), float(np.nanmax(table[:, 1]))

    def _compare(self) -> dict[str, float]:
        """Relative distance of each layer's output from float32, on a few images."""
        simulation = self._simulation
        images = next(self._batches(1), None)
        if images is None:
            return {}
        images = images[:_COMPARED]
        seen: list[dict[str, Tensor]] = []
        with simulation.off():
            seen.append(self._outputs(images))
        seen.append(self._outputs(images))
        exact, rounded = seen
        return {
            name: float((rounded[name] - value).norm() / (value.norm() + 1e-30))
            for name, value in exact.items()
        }

    def _outputs(self, images: Tensor) -> dict[str, Tensor]:
        seen: dict[str, Tensor] = {}
        self._simulation.seen = seen
        try:
            self._model(images)
        finally:
            self._simulation.seen = None
        return {name: value.astype("float32") for name, value in seen.items()}

"""``Quantization`` of a config: training that rounds, and an evaluation that says what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

import paddle

from passl.data.class_names import classes_of
from passl.data.names import printable
from passl.engine.calibration import batches_of, calibrate, trained_ranges
from passl.engine.evaluator import Evaluator
from passl.engine.hooks.int8_ranges import Int8Ranges
from passl.engine.reports.class_report import ClassCounts
from passl.quant.simulation import Simulation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from paddle import Tensor

    from passl.config import Config
    from passl.config.quantizing import QuantizationSection
    from passl.data.loader import Loader
    from passl.distributed.world import World
    from passl.engine.calibration import TrainedRanges
    from passl.engine.reports.reporting import Reporter

__all__ = ["QuantizedEvaluation", "evaluate_quantized", "round_in_training"]

#: Images on which layers are compared.
_COMPARED = 8


def round_in_training(config: Config, model: Any, reporter: Reporter) -> list[Int8Ranges]:
    """Let the model round in training and evaluation, if the config asks for it.

    Returns:
        what the trainer is to call: the keeper of int8's ranges.
    """
    section = config.Quantization
    if section is None or section.format == "FP32" or section.mode != "qat":
        return []
    simulation = Simulation(model, section.format, section.rounding, in_training=True)
    how = f"{section.rounding} rounding"
    if section.format == "int8":
        how = "ranges that move with training"
    reporter.log(
        f"quantization: {len(simulation.layers)} layers compute in {section.format} "
        f"({how}), in training and evaluation; weights are kept in float32"
    )
    if section.format != "int8":
        return []
    return [Int8Ranges(simulation, section.calibration)]


def evaluate_quantized(
    config: Config,
    model: Any,
    evaluator: Optional[Evaluator],
    world: World,
    weights: str,
    classes: Optional[Sequence[str]] = None,
) -> Optional[QuantizedEvaluation]:
    """Let the model compute in the format of the config, and the evaluator count its classes.

    Args:
        weights: where the model's are from.
        classes: names of those that the model has learned; None: unknown.
    """
    section = config.Quantization
    if section is None or section.format == "FP32" or evaluator is None:
        return None
    trained = trained_ranges(section, weights)
    quantized = QuantizedEvaluation(
        section, model, evaluator.loader, config.Model["class_num"], world, trained, classes
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
        trained: ranges of int8 that were trained; None: they are measured.
        classes: names of those that the model has learned; None: those of the data.

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
        trained: Optional[TrainedRanges] = None,
        classes: Optional[Sequence[str]] = None,
    ) -> None:
        self._trained, self._classes = trained, classes
        self._section, self._model, self._loader, self._world = section, model, loader, world
        self.counts = ClassCounts(class_num)
        self._simulation = Simulation(model, section.format, section.rounding)

    def prepare(self) -> None:
        """Find the ranges of int8, and how far each layer is from float32."""
        self._model.eval()
        with paddle.no_grad():
            if self._trained is not None:
                self._simulation.ranges.set(self._trained)
            elif self._section.format == "int8":
                calibrate(
                    self._model, self._simulation, self._section.calibration, self._batches,
                    self._world,
                )  # fmt: skip
            self._errors = self._compare()

    def report(self, reporter: Reporter) -> None:
        """Tell the log the size, the layer that differs most, and the figures of each class."""
        section = self._section
        before, after = self._simulation.size()
        calibration = section.calibration
        how = f"{section.rounding} rounding"
        if section.format == "int8":
            how = f"ranges by {calibration.method} of {calibration.batches} batches"
        if self._trained is not None:
            how = "ranges of the training"
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
        names = self._classes or classes_of(self._loader.dataset)
        shown = [printable(name) for name in names] if names else None
        for line in self.counts.table(self._world, shown):
            reporter.log(line)

    # -- before ------------------------------------------------------------------------------

    def _batches(self, count: int) -> Iterator[Tensor]:
        return batches_of(self._loader, count)

    def _compare(self) -> dict[str, float]:
        """Relative distance of each layer's output from float32, on a few images."""
        simulation = self._simulation
        images = next(iter(self._batches(1)), None)
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

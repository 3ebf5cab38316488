"""The section of a config about number formats, see :mod:`passl.config.schema`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from passl.registry import Range

__all__ = ["CalibrationSection", "QuantizationSection"]


@dataclass(frozen=True)
class CalibrationSection:
    """How int8 finds the range of each activation.

    Attributes:
        batches: of the evaluation data to look at, without their labels; of the training data in
            ``mode: qat``.
        method: ``minmax`` takes what was seen, ``percentile`` leaves the ends out, ``mse`` takes
            the range of the least squared error.
        percentile: share of the values inside the range, in percent (``percentile`` only).
        momentum: share of itself that an end of a range keeps at each step of ``mode: qat``; the
            rest is the end of the step's inputs. 1 leaves the ranges as they were measured.
    """

    batches: Annotated[int, Range(min=1)] = 10
    method: Literal["minmax", "percentile", "mse"] = "percentile"
    percentile: Annotated[float, Range(min=50.0, max=100.0, min_open=True)] = 99.99
    momentum: Annotated[float, Range(min=0.0, max=1.0)] = 0.9


@dataclass(frozen=True)
class QuantizationSection:
    """Weights and activations rounded to another number format, in simulation.

    Attributes:
        format: ``FP16_32`` rounds inputs and weights of layers to half precision and adds up in
            float32, ``FP16_16`` rounds their outputs and sums as well, ``TF32`` is ``FP16_32``
            with eight bits of exponent, ``int8`` has a scale a channel or tensor; ``FP32`` is as if
            the section were not there.
        mode: ``ptq`` rounds in ``passl-eval`` only, ``qat`` in training too.
        rounding: ``ieee`` rounds halves to even and overflows to infinity, ``qpytorch`` rounds
            halves away from zero and ends at 131008, as myrtle-vision's library does.
        calibration: of ``int8``.
    """

    format: Literal["FP32", "FP16_32", "FP16_16", "TF32", "int8"] = "FP32"
    mode: Literal["ptq", "qat"] = "ptq"
    rounding: Literal["ieee", "qpytorch"] = "ieee"
    calibration: CalibrationSection = field(default_factory=CalibrationSection)

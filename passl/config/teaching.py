"""The sections of a config about learning from a teacher, see :mod:`passl.config.schema`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Optional

from passl.registry import Range

__all__ = ["DistillationSection", "TeacherSection", "TeacherTransform"]


@dataclass(frozen=True)
class TeacherTransform:
    """How a teacher sees the student's images.

    Attributes:
        mean: that it subtracts, of pixels in [0, 1], one value or one a channel; null: it sees the
            student's normalisation.
        std: that it divides by.
        size: side in pixels of its images; null: what its ``img_size`` says, else the student's.
    """

    mean: Optional[list[float]] = None
    std: Optional[list[Annotated[float, Range(min=0.0, min_open=True)]]] = None
    size: Annotated[Optional[int], Range(min=1)] = None


@dataclass(frozen=True)
class TeacherSection:
    """The model that a student learns from.

    Attributes:
        name: a model (``paddle:resnet50`` is one of Paddle's own), or the path of an exported one:
            ``.onnx``, or ``.json`` or ``.pdmodel`` beside ``.pdiparams``.
        pretrained: its weights, as ``Global.pretrained_model``; an exported model has its own.
        arguments: of the model; where it takes ``class_num`` that is the student's.
        transform: how it sees images.
    """

    name: str
    pretrained: Optional[str] = None
    arguments: dict[str, Any] = field(default_factory=dict)
    transform: TeacherTransform = field(default_factory=TeacherTransform)


@dataclass(frozen=True)
class DistillationSection:
    """Learning from a teacher beside the labels.

    Attributes:
        teacher: who teaches.
        type: ``soft`` learns its probabilities, ``hard`` its likeliest class; ``none`` is as if the
            section were not there.
        alpha: weight of the teacher's term in the form ``deit``, of the labels' term in ``myrtle``.
        temperature: that both logits are divided by (``soft`` only).
        form: whose loss: ``deit`` divides the divergence by samples and classes, ``myrtle`` by
            samples.
    """

    teacher: Optional[TeacherSection] = None
    type: Literal["none", "soft", "hard"] = "soft"
    alpha: Annotated[float, Range(min=0.0, max=1.0)] = 0.5
    temperature: Annotated[float, Range(min=0.0, min_open=True)] = 1.0
    form: Literal["deit", "myrtle"] = "deit"

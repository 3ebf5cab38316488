"""The forward pass and the losses of a step with a teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from passl.data.class_names import known_names
from passl.distributed.collectives import all_ranks_have
from passl.engine.teachers.teacher import build_teacher
from passl.errors import CheckpointError, ConfigError
from passl.losses.distillation import DistillationLoss

if TYPE_CHECKING:
    from paddle import Tensor

    from passl.config import Config
    from passl.config.teaching import DistillationSection
    from passl.data.loader import Loader
    from passl.distributed.world import World
    from passl.engine.reports.reporting import Reporter
    from passl.engine.teachers.teacher import Teacher
    from passl.losses.combined import CombinedLoss
    from passl.precision.amp import Precision

__all__ = ["Distillation", "build_distillation"]


class Distillation:
    """Student and teacher look at the same images; one loss learns from labels and teacher.

    A student with ``forward_distilled`` (a second token) learns from the labels with one classifier
    and from the teacher with the other; any other student learns from both with its one.

    Args:
        teacher: the frozen teacher.
        section: ``Distillation`` of the config, of type ``soft`` or ``hard``.

    Attributes:
        names: of the losses, in the order of the log.
    """

    names = DistillationLoss.names

    def __init__(self, teacher: Teacher, section: DistillationSection) -> None:
        assert section.type != "none"
        self.teacher, self._was_heard = teacher, False
        self._loss = DistillationLoss(
            section.type, section.form, section.alpha, section.temperature
        )

    def __call__(
        self, model: Any, images: Tensor, target: Tensor, loss: CombinedLoss, precision: Precision
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What the student predicts, float32 [B, C], and the losses by name.

        Args:
            model: the student, in training mode.
            images: float32 [B, C, H, W].
            target: class indices [B], or soft targets [B, C].
            loss: on the labels.
            precision: casts of both forward passes.
        """
        teacher_bc = self.teacher.logits(images, precision)
        with precision.autocast():
            if hasattr(model, "forward_distilled"):
                logits_bc, dist_bc = model.forward_distilled(images)
            else:
                logits_bc = dist_bc = model(images)
        logits_bc, dist_bc = logits_bc.astype("float32"), dist_bc.astype("float32")
        if not self._was_heard:  # a student that does not say its size had no image to try it on
            self.teacher.check_answers(teacher_bc, *logits_bc.shape)
            self._was_heard = True
        losses = self._loss(loss(logits_bc, target)["loss"], dist_bc, teacher_bc)
        if hasattr(model, "merge_heads"):
            logits_bc = model.merge_heads(logits_bc, dist_bc)
        return logits_bc, losses


def build_distillation(
    config: Config,
    model: Any,
    loader: Loader,
    precision: Precision,
    world: World,
    reporter: Reporter,
) -> Optional[Distillation]:
    """The teacher of ``Distillation`` and its loss; None where the config has none.

    Args:
        config: of the run.
        model: the student.
        loader: of the training images.
        precision: of the run.
        world: this process among all.
        reporter: hears who teaches.

    Raises:
        ConfigError: the teacher does not fit the student.
        CheckpointError: its weights cannot be used, or differ between the processes.
    """
    section = config.Distillation
    if section is None or section.type == "none":
        _refuse_untaught(config, model)
        return None
    try:
        assert config.DataLoader.Train is not None  # the config check demands it
        classes = known_names(loader.dataset, config.DataLoader.Train.dataset)
        teacher = build_teacher(config, loader.transforms, classes)
        side = config.Model.get("img_size")
        if isinstance(side, int):
            shape = (config.Model.get("in_chans", 3), side, side)
            teacher.check(shape, config.Model["class_num"], precision)
    except ConfigError as error:
        where = config.origin("Distillation.teacher")
        raise ConfigError(f"{where}: Distillation.teacher: {error}") from error
    except CheckpointError as error:
        raise CheckpointError(f"Distillation.teacher: {error}") from error
    known = teacher.record["teacher"]
    if not all_ranks_have(int(known["sha256"][:12], 16), world):
        raise CheckpointError(
            "Distillation.teacher: the processes do not read the same weights from "
            f"{known['path']}; all machines must see one file"
        )
    student = "distillation token learns" if hasattr(model, "forward_distilled") else "logits learn"
    reporter.log(
        f"teacher: {teacher.name}, weights of {known['path']}; the student's {student} from it: "
        f"{section.type}, form {section.form}, alpha {section.alpha:g}, temperature "
        f"{section.temperature:g}"
    )
    return Distillation(teacher, section)


def _refuse_untaught(config: Config, model: Any) -> None:
    """A token that only a teacher trains would keep its random weights."""
    if getattr(model, "needs_teacher", False):
        raise ConfigError(
            f"{config.origin('Model')}: Model: {config.Model['name']} has a distillation token "
            "that only a teacher trains; add a section Distillation, or train a model without it"
        )

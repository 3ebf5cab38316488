"""What lies beside a teacher's weights about its training: the pixels it saw, and its classes.

``passl-export`` leaves both in ``inference.yml``; of a run ``config.yaml`` says the first, and the
checkpoint's ``state.json`` the second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from passl.checkpoint.resolve import resolve_checkpoint
from passl.config import load_config
from passl.data.class_order import moved_class
from passl.data.transforms.normalize import NormalizeImage
from passl.engine.run_record import learned_classes, record_beside
from passl.engine.teachers.exported import EXPORTED, card_beside
from passl.engine.trained import config_of_run
from passl.errors import CheckpointError, ConfigError
from passl.export.preprocess import eval_steps, normalisation_of

if TYPE_CHECKING:
    from passl.config.teaching import TeacherSection

__all__ = ["TeacherFacts", "teacher_facts"]


@dataclass(frozen=True)
class TeacherFacts:
    """What is known of a teacher.

    Attributes:
        file: that says so of the pixels.
        normalize: of the images it was trained on; None: unknown.
        classes: their names by label; None: unknown.
        classes_file: that says so of the classes; None: the same one.
    """

    file: Path
    normalize: Optional[NormalizeImage] = None
    classes: Optional[list[str]] = None
    classes_file: Optional[Path] = None

    def refuse_other_order(self, students: Optional[Sequence[str]]) -> None:
        """Refuse a teacher that numbers the student's classes in another way.

        Args:
            students: class names by label; None: unknown.

        Raises:
            ConfigError: a class of both has another label.
        """
        moved = moved_class(self.classes or (), students or ())
        if moved is not None:
            name, theirs, ours = moved
            raise ConfigError(
                f"{self.classes_file or self.file} says that class {name!r} is number {theirs} of "
                f"the teacher, and it is number {ours} of the student: it would teach the wrong "
                "classes. Train a teacher on the student's classes in their order"
            )


def teacher_facts(section: TeacherSection) -> Optional[TeacherFacts]:
    """What is known of the teacher of a config; None: nothing."""
    if Path(section.name).suffix in EXPORTED:
        path = Path(section.name).expanduser()
        card = card_beside(path)
        if card is None:
            return None
        steps = [*(card.preprocess or ()), *card.inside]
        return TeacherFacts(path.parent, _normalisation(steps), card.labels)
    assert section.pretrained is not None  # the config check demands it
    try:
        checkpoint = resolve_checkpoint(section.pretrained)
    except CheckpointError:  # whoever reads the weights says what is wrong with them
        return None
    # A file of weights may lie below a config that has nothing to do with it.
    if checkpoint.state is None:
        classes = _classes_of(section.pretrained)
        return None if classes is None else TeacherFacts(checkpoint.weights, classes=classes)
    found = config_of_run(Path(section.pretrained))
    return TeacherFacts(
        found[0] if found is not None else checkpoint.state,
        _normalisation(_steps_of(found[0]) if found is not None else []),
        _classes_of(section.pretrained),
        checkpoint.state,
    )


def _steps_of(config: Path) -> list[dict[str, Any]]:
    """The transforms that the images of a run pass; none where its config cannot be read here."""
    try:
        return eval_steps(load_config(config)) or []
    except ConfigError:  # a run of another version, or of modules that are not here
        return []


def _classes_of(weights: str) -> Optional[list[str]]:
    """What the checkpoint says that its weights learned; None: nothing."""
    try:
        return learned_classes(record_beside(weights), None)
    except CheckpointError:  # whoever reads the weights says what is wrong with them
        return None


def _normalisation(steps: Sequence[Mapping[str, Any]]) -> Optional[NormalizeImage]:
    try:
        return normalisation_of(steps)
    except ConfigError:
        return None

"""What lies beside a teacher's weights about its training: the pixels it saw, and its classes.

``passl-export`` leaves both in ``inference.yml``; a run's ``config.yaml`` says the first.
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
from passl.engine.exported import EXPORTED, card_beside
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
        file: that says so.
        normalize: of the images it was trained on; None: unknown.
        classes: their names by label; None: unknown.
    """

    file: Path
    normalize: Optional[NormalizeImage] = None
    classes: Optional[list[str]] = None

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
                f"{self.file} says that class {name!r} is number {theirs} of the teacher, and it "
                f"is number {ours} of the student: it would teach the wrong classes. Train a "
                "teacher on the student's classes in their order"
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
    found = None if checkpoint.state is None else config_of_run(Path(section.pretrained))
    if found is None:
        return None
    try:
        steps = eval_steps(load_config(found[0])) or []
    except ConfigError:  # a run of another version, or of modules that are not here
        return None
    return TeacherFacts(found[0], _normalisation(steps))


def _normalisation(steps: Sequence[Mapping[str, Any]]) -> Optional[NormalizeImage]:
    try:
        return normalisation_of(steps)
    except ConfigError:
        return None

"""A teacher: a frozen model that sees the student's images as it was trained to see images.

It is a registered model, a model in Paddle's inference format, or an ONNX file.  It is no part of
the student, so neither the optimizer nor the average nor a checkpoint knows of it; a checkpoint
remembers the SHA-256 of its weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor

from passl.checkpoint.disk import digest_of
from passl.checkpoint.pretrained import load_pretrained
from passl.config import Config
from passl.data.transforms.normalize import NormalizeImage
from passl.engine.teachers.exported import EXPORTED, exported_runner
from passl.engine.teachers.teacher_facts import TeacherFacts, teacher_facts
from passl.errors import CheckpointError, ConfigError
from passl.models import create_model, model_spec
from passl.precision.amp import Precision

if TYPE_CHECKING:
    from passl.config.teaching import TeacherSection

__all__ = ["Teacher", "build_teacher", "check_teacher"]


class Teacher:
    """Gives the logits of a frozen model for the student's images.

    Args:
        name: what messages call it.
        run: maps float32 images [B, C, H, W] to logits [B, classes].
        sha256: of its weights.
        path: where they are from.
        factor, offset: per channel, from the student's normalised pixels to the teacher's; None
            leaves them as they are, bit for bit.
        size: side of the images it takes in pixels; None leaves their size.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Tensor], Tensor],
        *,
        sha256: str,
        path: str,
        factor: Optional[np.ndarray] = None,
        offset: Optional[np.ndarray] = None,
        size: Optional[int] = None,
    ) -> None:
        self.name, self._run, self._size = name, run, size
        self.record = {"teacher": {"name": name, "path": path, "sha256": sha256}}
        self._affine: Optional[tuple[Tensor, Tensor]] = None
        if factor is not None and offset is not None:
            self._affine = (_per_channel(factor), _per_channel(offset))

    def logits(self, images: Tensor, precision: Precision) -> Tensor:
        """float32 [B, classes] for the student's images, float32 [B, C, H, W]; no gradient.

        Args:
            images: as the student sees them.
            precision: casts of the forward pass, the student's.
        """
        with paddle.no_grad(), precision.autocast():
            return self._run(self.see(images)).astype("float32")

    def see(self, images: Tensor) -> Tensor:
        """The student's images with the teacher's normalisation and size.

        Both are linear, so what Mixup or random erasing did to an image is done for both.  Images
        grow by bicubic interpolation and shrink by averaging areas.
        """
        if self._affine is not None:
            factor, offset = self._affine
            images = images * factor + offset
        size = self._size
        if size is None or list(images.shape[2:]) == [size, size]:
            return images
        if min(images.shape[2:]) >= size:
            return F.adaptive_avg_pool2d(images, [size, size])
        return F.interpolate(images, [size, size], mode="bicubic", align_corners=False)

    def check(self, shape: Sequence[int], class_num: int, precision: Precision) -> None:
        """Try it on two black images of the student's: an export of a fixed batch fails.

        Args:
            shape: [C, H, W] of an image.
            class_num: classes of the student.
            precision: of the run.

        Raises:
            ConfigError: it cannot look at such an image, or knows other classes.
        """
        try:
            found = self.logits(paddle.zeros([2, *shape]), precision)
        except Exception as error:  # Paddle and ONNX Runtime raise what they like on a wrong shape
            raise ConfigError(
                f"the teacher {self.name} cannot look at images of {list(shape)}, float32: "
                f"{error}; if it was trained for another size, give that as "
                "teacher.transform.size; if it was exported for a fixed number of images, export "
                "it for any"
            ) from error
        self.check_answers(found, 2, class_num)

    def check_answers(self, found: Tensor, num_images: int, class_num: int) -> None:
        """Refuse what cannot be logits for the student's classes.

        Args:
            found: float32, its answers.
            num_images: that it looked at.
            class_num: classes of the student.

        Raises:
            ConfigError: it knows other classes, or answers with probabilities or with what is no
                number.
        """
        if list(found.shape) != [num_images, class_num]:
            raise ConfigError(
                f"the teacher {self.name} answers {list(found.shape)} for {num_images} images, and "
                f"the student has {class_num} classes: it must have learned the same classes"
            )
        if not bool(paddle.isfinite(found).all()):
            raise ConfigError(
                f"the teacher {self.name} answers with NaN or infinity: its weights, or their "
                "rounding, cannot be used"
            )
        sums = found.sum(axis=1)
        if class_num > 1 and float(found.min()) >= 0 and float((sums - 1.0).abs().max()) < 1e-4:
            raise ConfigError(
                f"the teacher {self.name} answers with probabilities (they sum to 1), and the loss "
                "needs logits, from which it makes its own; export the teacher without softmax"
            )


def build_teacher(
    config: Config, transforms: Sequence[Any], classes: Optional[Sequence[str]] = None
) -> Teacher:
    """The teacher of ``Distillation.teacher``.

    Args:
        config: of the run.
        transforms: of the training images, which say how the student's are normalised.
        classes: names of the student's, by label; None: unknown.

    Raises:
        ConfigError: it cannot be built, the student's normalisation is not known, or what lies
            beside the teacher says that it saw other pixels or numbers classes otherwise.
        CheckpointError: its weights cannot be read.
    """
    assert config.Distillation is not None
    section = config.Distillation.teacher
    assert section is not None  # the config check demands it
    factor, offset = _affine(section, transforms)
    facts = teacher_facts(section)
    if facts is not None:
        facts.refuse_other_order(classes)
        _refuse_other_pixels(section, transforms, facts)
    size = section.transform.size
    if Path(section.name).suffix in EXPORTED:
        run, files = exported_runner(section.name)
        sha256 = _digest_of_files(files)
        path = section.name
    else:
        arguments = _arguments(section, config.Model.get("class_num"))
        model = create_model(section.name, seed=config.Global.seed, **arguments)
        assert section.pretrained is not None  # the config check demands it
        try:
            load_pretrained(model, section.pretrained)
        except CheckpointError as error:
            if "class_num" not in arguments or "classes)" not in str(error):
                raise
            # Its last advice, a new head, would let noise teach.
            told = str(error).rpartition("\n")[0]
            raise CheckpointError(
                f"{told}\nA teacher must have learned the student's classes, here "
                f"{config.Model.get('class_num')}, and keeps the head it was trained with."
            ) from error
        model.eval()
        for parameter in model.parameters():
            parameter.stop_gradient = True
        run, sha256, path = model, _digest_of_weights(model), section.pretrained
        size = size or _own_size(section.name, arguments)
    return Teacher(
        section.name, run, sha256=sha256, path=path, factor=factor, offset=offset, size=size
    )


def check_teacher(now: Mapping[str, Any], record: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with another teacher than the checkpoint was trained with.

    Args:
        now: record of this run.
        record: the checkpoint's ``state.json``.
        folder: of the checkpoint.

    Raises:
        CheckpointError: both have a teacher, and their weights differ.
    """
    before, mine = record.get("teacher"), now.get("teacher")
    if before is None or mine is None or before["sha256"] == mine["sha256"]:
        return
    raise CheckpointError(
        f"{folder} was trained with the teacher {before['name']} of {before['path']} (SHA-256 of "
        f"its weights: {before['sha256'][:12]}...), and {mine['path']} holds another "
        f"({mine['sha256'][:12]}...); give the former teacher, or start a new run from these "
        f"weights with -o Global.output_dir=PATH Global.pretrained_model={folder}"
    )


def _arguments(section: TeacherSection, class_num: Optional[int]) -> dict[str, Any]:
    known = {param.name for param in model_spec(section.name).params}
    given = dict(section.arguments)
    if "class_num" in known and class_num is not None:
        given.setdefault("class_num", class_num)
    return given


def _own_size(name: str, arguments: Mapping[str, Any]) -> Optional[int]:
    """The side of the images that a model is built for, where its arguments say so."""
    param = model_spec(name).param("img_size")
    size = arguments.get("img_size", param.default if param is not None else None)
    return size if isinstance(size, int) else None


def _affine(
    section: TeacherSection, transforms: Sequence[Any]
) -> tuple[Optional[np.ndarray], Optional[np.ndarray]]:
    """Factor and offset per channel, float32, from the student's pixels to the teacher's."""
    wanted = section.transform
    if wanted.mean is None or wanted.std is None:
        return None, None
    normalize = [step for step in transforms if isinstance(step, NormalizeImage)]
    if not normalize:
        raise ConfigError(
            "Distillation.teacher.transform gives a mean and std, but the training images pass no "
            "NormalizeImage, so it is not known what their numbers mean; add one, or leave mean "
            "and std out"
        )
    theirs = normalize[-1]
    channels = max(len(wanted.mean), len(wanted.std), len(theirs.mean), len(theirs.std))
    mean, std = (_spread(values, channels) for values in (theirs.mean, theirs.std))
    new_mean, new_std = (_spread(values, channels) for values in (wanted.mean, wanted.std))
    unit = float(theirs.scale) * 255.0  # from pixels in [0, 1] to what the student subtracts from
    factor, offset = std / (unit * new_std), (mean / unit - new_mean) / new_std
    if np.allclose(factor, 1.0, rtol=1e-6, atol=0.0) and np.allclose(offset, 0.0, atol=1e-6):
        return None, None
    return factor.astype(np.float32), offset.astype(np.float32)


def _refuse_other_pixels(
    section: TeacherSection, transforms: Sequence[Any], facts: TeacherFacts
) -> None:
    """A teacher that is known to have seen other numbers must be given them.

    Nothing is known of a student whose images a transform of one's own normalises, or none.
    """
    known = facts.normalize
    students = any(isinstance(step, NormalizeImage) for step in transforms)
    if section.transform.mean is not None or known is None or not students:
        return
    unit = float(known.scale) * 255.0
    both = (np.asarray(values, np.float64).reshape(-1) for values in (known.mean, known.std))
    mean, std = (np.round(values / unit, 6).tolist() for values in both)
    wanted = replace(section, transform=replace(section.transform, mean=mean, std=std))
    if _affine(wanted, transforms)[0] is not None:
        raise ConfigError(
            f"by {facts.file} the teacher was trained on pixels with mean {mean} and std {std}, "
            "and the student's images have others: give those as transform.mean and transform.std "
            "(or the student's own, to let it see the student's numbers)"
        )


def _spread(values: Any, channels: int) -> np.ndarray:
    given = np.asarray(values, dtype=np.float64).reshape(-1)
    if len(given) not in (1, channels):
        raise ConfigError(
            f"Distillation.teacher.transform: {len(given)} values for {channels} channels; give "
            "one value or one a channel"
        )
    return np.broadcast_to(given, channels)


def _per_channel(values: np.ndarray) -> Tensor:
    return paddle.to_tensor(np.ascontiguousarray(values.reshape(1, -1, 1, 1)))


def _digest_of_weights(model: Any) -> str:
    """SHA-256 over names and values, whatever file they are from."""
    sha256 = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        sha256.update(name.encode())
        sha256.update(np.ascontiguousarray(value.numpy()).tobytes())
    return sha256.hexdigest()


def _digest_of_files(files: Sequence[Path]) -> str:
    digests = "".join(digest_of(file).sha256 for file in files)
    return hashlib.sha256(digests.encode()).hexdigest()

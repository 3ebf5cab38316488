"""An exported model against the live one, on real pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from passl.config import Config
from passl.data.images import decode
from passl.errors import DataError, PasslError
from passl.export.plan import ExportPlan
from passl.export.preprocess import Preprocessor
from passl.export.sessions import Session

__all__ = ["BATCHES", "INT8_BATCHES", "Comparison", "Samples", "compare", "gather_samples"]

#: Sizes of the batches that are compared; a graph of a fixed batch is compared on one of its own.
BATCHES = (1, 3)
#: Rounding turns a last bit into a step here and there, so more pictures tell more.
INT8_BATCHES = (1, 3, 28)


@dataclass(frozen=True)
class Samples:
    """Inputs to compare on, in batches.

    Attributes:
        graph: as the exported graph takes them.
        model: the same pictures as the live model takes them, float32 [b, c, h, w].
        origin: what they are, for people.
    """

    graph: list[np.ndarray]
    model: list[np.ndarray]
    origin: str


@dataclass(frozen=True)
class Comparison:
    """How far a session is from the live model.

    Attributes:
        difference: largest difference of an output.
        relative: the same, relative to the largest output or to 1.
        same_class: pictures of which both say the same first class.
        pictures: all pictures.
    """

    difference: float
    relative: float
    same_class: int
    pictures: int


def gather_samples(
    config: Config,
    plan: ExportPlan,
    preprocessor: Optional[Preprocessor],
    dataset: Optional[Any],
    photos: Sequence[str] = (),
) -> Samples:
    """Pictures for the comparison: ``photos`` if given, else of the data set, else noise.

    Args:
        preprocessor: the transforms of evaluation; None: there are none, which leaves noise.
        dataset: of ``DataLoader.Eval``, or None.
        photos: image files.

    Raises:
        DataError: a picture cannot be used.
    """
    several = INT8_BATCHES if plan.dtype == "int8" else BATCHES
    sizes = several if plan.batch_size is None else (plan.batch_size,)
    count = sum(sizes)
    if preprocessor is not None and (photos or dataset is not None):
        if photos:
            pixels, origin = [_read(name) for name in photos], f"{len(photos)} photos"
        else:
            pixels, origin = _of_dataset(dataset, count), f"DataLoader.Eval of {config.source_path}"
        inputs = [_checked(preprocessor(image), plan) for image in pixels]
        wholes = [preprocessor.whole(image) for image in inputs]
    else:
        inputs, wholes, origin = *_noise(plan, preprocessor, count), "noise"
        why = "its data is not here" if preprocessor is not None else "there is no DataLoader.Eval"
        origin = f"deterministic noise, no real pictures ({why}; --image FILE gives some)"
    batches = _batches(len(inputs), sizes)
    return Samples(
        [np.stack([inputs[i] for i in batch]) for batch in batches],
        [np.stack([wholes[i] for i in batch]).astype(np.float32) for batch in batches],
        origin,
    )


def compare(session: Session, samples: Samples, wanted: Sequence[np.ndarray]) -> Comparison:
    """Run ``session`` on the samples.

    Args:
        wanted: outputs of the live model, batch by batch.

    Raises:
        PasslError: an output of another shape.
    """
    difference, largest, same, pictures = 0.0, 1.0, 0, 0
    for batch, expected in zip(samples.graph, wanted):
        output = session.run(batch).astype(np.float64)
        if output.shape != expected.shape:
            raise PasslError(
                f"{session.backend} gives an output of shape {output.shape}, the live model "
                f"{expected.shape}"
            )
        # NaN compares as different whatever it is compared with.
        gaps = np.abs(output - expected)
        difference = max(difference, float(gaps.max()) if np.isfinite(gaps).all() else np.inf)
        largest = max(largest, float(np.abs(expected).max()))
        same += int((output.argmax(-1) == expected.argmax(-1)).sum())
        pictures += len(output)
    return Comparison(difference, difference / largest, same, pictures)


def _batches(available: int, sizes: Sequence[int]) -> list[list[int]]:
    """Positions for each batch, taken in turn and from the start again where they run out."""
    batches, at = [], 0
    for size in sizes:
        batches.append([(at + step) % available for step in range(size)])
        at += size
    return batches


def _read(name: str) -> np.ndarray:
    try:
        return decode(Path(name).read_bytes())
    except (OSError, DataError) as error:
        raise DataError(f"--image {name}: cannot be used: {error}") from error


def _of_dataset(dataset: Any, count: int) -> list[np.ndarray]:
    """Pictures spread evenly over the data set, as stored."""
    pictures = []
    for index in np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int):
        try:
            stored, _ = dataset.load(int(index))
            pictures.append(decode(stored) if isinstance(stored, bytes) else np.asarray(stored))
        except (OSError, DataError) as error:
            raise DataError(f"{dataset.path_of(int(index))}: cannot be used: {error}") from error
    return pictures


def _checked(image: np.ndarray, plan: ExportPlan) -> np.ndarray:
    wanted = plan.graph_shape[1:]
    if image.shape != wanted:
        raise DataError(
            f"the transforms of DataLoader.Eval make an input of shape {list(image.shape)}, and "
            f"the model takes {list(wanted)}; add ResizeImage or CenterCropImage to them, or give "
            "pictures of that size"
        )
    return image


def _noise(
    plan: ExportPlan, preprocessor: Optional[Preprocessor], count: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(0)
    shape = plan.graph_shape[1:]
    if plan.preprocess and preprocessor is not None:
        inputs = [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(count)]
        return inputs, [preprocessor.whole(image) for image in inputs]
    images = [rng.standard_normal(shape, dtype=np.float32) for _ in range(count)]
    return images, images

"""Top-k classes of pictures, from a model that is live or exported.

    predictor = passl.load_model("output/ViT_base_patch16_224")    # or an exported folder
    for prediction in predictor.predict(["cat.jpg", "dog.jpg"], topk=3):
        print(prediction.source, prediction.top[0].name, prediction.top[0].probability)
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Optional, Union

import numpy as np

from passl.errors import CheckpointError, ConfigError, DataError, PasslError
from passl.export.pictures import Picture, PictureLike, as_picture
from passl.export.preprocess import Preprocessor
from passl.export.sessions import Session

__all__ = ["Failure", "Guess", "ModelFacts", "Prediction", "Predictor"]


@dataclass(frozen=True)
class Guess:
    """One class.

    Attributes:
        label: its number.
        name: its name; the number as text where names are unknown.
        probability: 0..1; those of all classes add up to 1.
    """

    label: int
    name: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What a picture shows.

    Attributes:
        source: its path, ``video#frame``, or ``image N`` for the N-th (from 0) of a list in memory.
        top: the likeliest classes, the likeliest first; of equals the lower label first.
        thumbnail: uint8 [h, w, 3] where it was asked for.
    """

    source: str
    top: tuple[Guess, ...]
    thumbnail: Optional[np.ndarray] = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Failure:
    """A picture that cannot be used.

    Attributes:
        source: see :class:`Prediction`.
        reason: a sentence, which names the source.
    """

    source: str
    reason: str


@dataclass(frozen=True)
class ModelFacts:
    """What a predictor must know of its model.

    Attributes:
        name: of the model.
        shape: of one input, without the batch.
        batch_size: images of an input; None: any number.
        meaning: ``logits``, ``probabilities`` or ``features``.
        labels: class names, or None.
        described_by: the file that says so, for messages.
        notes: what is odd about the weights, a sentence each.
    """

    name: str
    shape: tuple[int, ...]
    batch_size: Optional[int]
    meaning: str
    labels: Optional[list[str]]
    described_by: str
    notes: tuple[str, ...] = ()


class Predictor:
    """Classifies pictures.

    Args:
        session: runs the model.
        preprocessor: from a picture to an input.
        facts: of the model.
        batch_size: pictures at a time, where the model takes any number.
        num_workers: threads that read and transform pictures; 0 does it in the caller's.

    Raises:
        CheckpointError: the model gives no classes.
        ConfigError: a negative number of threads.
    """

    def __init__(
        self,
        session: Session,
        preprocessor: Preprocessor,
        facts: ModelFacts,
        *,
        batch_size: int = 32,
        num_workers: int = 2,
    ) -> None:
        if facts.meaning == "features":
            raise CheckpointError(
                f"{facts.described_by}: the model gives features and no classes: nothing can be "
                "predicted from it"
            )
        if num_workers < 0:
            raise ConfigError(f"the number of workers must be 0 or more; got {num_workers}")
        self.session, self.facts = session, facts
        self._preprocessor, self._num_workers = preprocessor, num_workers
        self._batch_size = facts.batch_size or max(1, batch_size)

    @property
    def labels(self) -> Optional[list[str]]:
        """Class names by label, or None where they are unknown."""
        return self.facts.labels

    def predict(
        self, images: Union[PictureLike, Sequence[PictureLike]], topk: int = 5
    ) -> list[Prediction]:
        """Classify pictures.

        Args:
            images: one or more of: path, image of Pillow, uint8 array [H, W] or [H, W, 3] (RGB); an
                array [N, H, W, 3] is N of them.
            topk: classes of each; fewer where the model has fewer.

        Returns:
            One prediction a picture, in their order.

        Raises:
            DataError: a picture cannot be used.
        """
        several = isinstance(images, (list, tuple)) or (
            isinstance(images, np.ndarray) and images.ndim == 4
        )
        given: Sequence[Any] = images if several else [images]  # type: ignore[assignment]
        predictions = []
        for result in self.stream((as_picture(g, n) for n, g in enumerate(given)), topk):
            if isinstance(result, Failure):
                raise DataError(result.reason)
            predictions.append(result)
        return predictions

    def stream(
        self, pictures: Iterable[Picture], topk: int = 5, *, thumbnail_px: Optional[int] = None
    ) -> Iterator[Union[Prediction, Failure]]:
        """Classify pictures one batch after the other; what cannot be used is told in its place.

        Args:
            pictures: taken as they are needed.
            topk: see :meth:`predict`.
            thumbnail_px: keep a copy of each picture, its long side so many pixels.
        """
        if topk < 1:
            raise PasslError(f"topk must be 1 or more; got {topk}")
        prepared = self._prepared(iter(pictures), thumbnail_px)
        while group := list(itertools.islice(prepared, self._batch_size)):
            yield from self._classified(group, topk)

    def _classified(
        self, group: Sequence[_Prepared], topk: int
    ) -> Iterator[Union[Prediction, Failure]]:
        inputs = [item.input for item in group if item.input is not None]
        probabilities = iter(self._probabilities(np.stack(inputs)) if inputs else ())
        for item in group:
            if item.reason is not None:
                yield Failure(item.source, item.reason)
            else:
                yield Prediction(item.source, self._top(next(probabilities), topk), item.thumbnail)

    def _probabilities(self, batch: np.ndarray) -> np.ndarray:
        """float64 [b, classes]."""
        count, fixed = len(batch), self.facts.batch_size
        if fixed is not None and count < fixed:
            batch = np.concatenate([batch, np.repeat(batch[:1], fixed - count, axis=0)])
        output = self._outputs(batch)[:count].astype(np.float64)
        if not np.isfinite(output).all():
            raise PasslError(
                f"{self.facts.described_by}: the model computed NaN or infinity; its weights, or "
                "their rounding to float16, cannot be used"
            )
        if self.facts.meaning == "probabilities":
            return output
        powers = np.exp(output - output.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True))

    def _outputs(self, batch: np.ndarray) -> np.ndarray:
        """What the model says, a number a class.

        Raises:
            PasslError: it has other classes than names, or no classes.
        """
        output, names = self.session.run(batch), self.facts.labels
        if output.ndim != 2 or len(output) != len(batch):
            raise PasslError(
                f"{self.facts.described_by}: the model gives {list(output.shape)} for {len(batch)} "
                "pictures, and a classifier gives a number for each class of each"
            )
        if names is not None and output.shape[1] != len(names):
            raise PasslError(
                f"{self.facts.described_by}: the model has {output.shape[1]} classes, and there "
                f"are {len(names)} names: they are not of this model"
            )
        return output

    def _top(self, probabilities: np.ndarray, topk: int) -> tuple[Guess, ...]:
        order = np.argsort(-probabilities, kind="stable")[:topk]
        return tuple(
            Guess(int(label), self._name(int(label)), float(probabilities[label]))
            for label in order
        )

    def _name(self, label: int) -> str:
        names = self.facts.labels
        return names[label] if names is not None else str(label)

    # -- preparing -----------------------------------------------------------------------------

    def _prepared(
        self, pictures: Iterator[Picture], thumbnail_px: Optional[int]
    ) -> Iterator[_Prepared]:
        """Inputs in order, a few batches ahead in threads."""
        if self._num_workers == 0:
            yield from (self._prepare(picture, thumbnail_px) for picture in pictures)
            return
        pool = ThreadPoolExecutor(self._num_workers, thread_name_prefix="passl-infer")
        waiting: deque[Future[_Prepared]] = deque()
        try:
            for picture in pictures:
                waiting.append(pool.submit(self._prepare, picture, thumbnail_px))
                if len(waiting) >= 2 * self._batch_size:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _prepare(self, picture: Picture, thumbnail_px: Optional[int]) -> _Prepared:
        try:
            pixels = picture.pixels()
            image = self._preprocessor(pixels)
            if image.shape != self.facts.shape:
                raise DataError(
                    f"{picture.source}: becomes an input of shape {list(image.shape)}, and the "
                    f"model takes {list(self.facts.shape)}; {self.facts.described_by} has no "
                    "transform that resizes pictures to that size"
                )
        except Exception as error:  # whatever a transform raises concerns this picture only
            known = isinstance(error, DataError) and str(error).startswith(picture.source)
            why = str(error) if known else f"{picture.source}: {error}"
            return _Prepared(picture.source, None, why)
        thumbnail = _thumbnail(pixels, thumbnail_px) if thumbnail_px is not None else None
        return _Prepared(picture.source, image, None, thumbnail)


@dataclass(frozen=True)
class _Prepared:
    source: str
    input: Optional[np.ndarray]
    reason: Optional[str]
    thumbnail: Optional[np.ndarray] = None


def _thumbnail(pixels: np.ndarray, side: int) -> np.ndarray:
    from PIL import Image

    picture: Any = Image.fromarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy())
    scale = side / max(picture.size)
    size = tuple(max(1, round(edge * scale)) for edge in picture.size)
    # A picture of a few pixels is shown as those pixels.
    return np.asarray(picture.resize(size, 0 if scale > 2 else 1))


def default_workers() -> int:
    """Threads that prepare pictures: a few, fewer on a small machine."""
    return min(4, os.cpu_count() or 1)

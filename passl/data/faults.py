"""What happens to a sample that cannot be used: an error, or another sample in its place.

The sample that stands in is a function of (seed, epoch, index) alone, so it is the same with any
number of workers or ranks, and after a restart.  It is drawn from the whole data set, never the
neighbour: lists are sorted by class, and what follows a broken file is often its near copy.

Only a fault of the sample itself is skipped.  A machine without memory, without file handles or
without its network disk says nothing about an image; that always stops the run.

Nothing here knows of threads, processes or files: :class:`SampleFetcher` can be sent to wherever
samples are made, and what it finds comes back as plain :class:`BadSample` records.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import NoReturn, Optional

import numpy as np

from passl.data.dataset import Dataset, Label, reason_of
from passl.data.rng import sample_rng, substitute_rng
from passl.errors import DataError

__all__ = [
    "MAX_SUBSTITUTES",
    "BadSample",
    "FetchedSample",
    "SampleFetcher",
    "is_out_of_memory",
    "root_of",
    "substitutes",
]

#: Samples tried in the place of a bad one.
MAX_SUBSTITUTES = 10

_OF_THE_MACHINE = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.EAGAIN,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.ECONNRESET,
        errno.ECONNREFUSED,
        errno.ENOTCONN,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENODEV,
    }
)
_OPENCV_NO_MEMORY = -4  # cv::Error::StsNoMem


@dataclass(frozen=True)
class BadSample:
    """A sample that cannot be used: its position in the data set, its path, and why."""

    index: int
    path: str
    reason: str


@dataclass(frozen=True)
class FetchedSample:
    """A sample with its transforms applied.

    Attributes:
        image: as the transforms left it.
        label: of the image.
        index: of the sample that it is, which is another than was asked for after a fault.
        bad: the samples that could not be used on the way, the one asked for first.
    """

    image: np.ndarray
    label: Label
    index: int
    bad: tuple[BadSample, ...] = ()


class SampleFetcher:
    """Makes the samples of a data set.

    Args:
        dataset: where they come from.
        seed: of the run.
        skip: take a substitute for a sample that cannot be used, instead of raising.
    """

    def __init__(self, dataset: Dataset, seed: int, *, skip: bool = False) -> None:
        self.dataset, self.seed, self.skip = dataset, seed, skip

    def fetch(
        self,
        epoch: int,
        index: int,
        repeat: int = 0,
        rng: Optional[np.random.Generator] = None,
    ) -> FetchedSample:
        """Sample ``index`` of ``epoch``, or what stands in for it.

        Args:
            epoch: number of the epoch.
            index: position in the data set.
            repeat: how often the epoch had the sample before.
            rng: ``sample_rng`` of these, if the caller has it.

        Raises:
            DataError: the sample cannot be used and must not be skipped, or none of
                :data:`MAX_SUBSTITUTES` substitutes can be used either.
        """
        try:
            if rng is None:
                rng = sample_rng(self.seed, epoch, index, repeat)
            image, label = self.dataset.sample(index, rng)
            return FetchedSample(image, label, index)
        except Exception as error:
            if not self._may_skip(error):
                raise
            bad, last_error = [self._record(index, error)], error
        rng = substitute_rng(self.seed, epoch, index, repeat)
        try:
            for other in _draw(len(self.dataset), index, rng):
                # Augmented by the same generator: not as the other looks at its own turn.
                try:
                    image, label = self.dataset.sample(other, rng)
                    return FetchedSample(image, label, other, tuple(bad))
                except Exception as error:
                    if not self._may_skip(error):
                        raise
                    bad.append(self._record(other, error))
                    last_error = error
            self._give_up(bad, last_error)
        finally:
            # It knows this frame, and the frames where the image was: in a circle, they would
            # stay until a full garbage collection, which a large process seldom makes.
            del last_error

    def _may_skip(self, error: Exception) -> bool:
        if not self.skip or is_out_of_memory(error):
            return False
        return not any(
            isinstance(link, OSError) and link.errno in _OF_THE_MACHINE for link in _chain(error)
        )

    def _record(self, index: int, error: Exception) -> BadSample:
        return BadSample(index, self.dataset.path_of(index), reason_of(error.__cause__ or error))

    def _give_up(self, bad: list[BadSample], error: Exception) -> NoReturn:
        first, others = bad[0], bad[1:]
        what = f"sample {first.index} ({first.path}) cannot be used: {first.reason}; "
        if not others:
            raise DataError(
                what + "and the data set has no other sample to take in its place"
            ) from error
        raise DataError(
            f"{what}nor can any of the {len(others)} drawn in its place, the last being sample "
            f"{others[-1].index} ({others[-1].path}): {others[-1].reason}. That is no longer "
            "chance: a transform of transform_ops fails, or most of the data is broken; "
            "`passl-check --data` looks at all of it"
        ) from error


def substitutes(num_samples: int, seed: int, epoch: int, index: int) -> list[int]:
    """The samples tried, one after another, in the place of sample ``index`` in ``epoch``."""
    return _draw(num_samples, index, substitute_rng(seed, epoch, index))


def is_out_of_memory(error: BaseException) -> bool:
    """The error, or what caused it, is a lack of memory: Python's, numpy's or OpenCV's."""
    return any(
        isinstance(link, MemoryError)
        or (isinstance(link, OSError) and link.errno == errno.ENOMEM)
        or (type(link).__module__ == "cv2" and getattr(link, "code", None) == _OPENCV_NO_MEMORY)
        for link in _chain(error)
    )


def root_of(error: BaseException) -> BaseException:
    """What caused what caused the error."""
    return _chain(error)[-1]


def _draw(num_samples: int, index: int, rng: np.random.Generator) -> list[int]:
    """Distinct samples, neither ``index`` nor (where there are more) the ones beside it."""
    barred = {index - 1, index, index + 1} if num_samples > 3 else {index}
    free = num_samples - sum(0 <= number < num_samples for number in barred)
    drawn: list[int] = []
    while len(drawn) < min(free, MAX_SUBSTITUTES):
        other = int(rng.integers(num_samples))
        if other not in barred:
            barred.add(other)
            drawn.append(other)
    return drawn


def _chain(error: BaseException) -> list[BaseException]:
    """The error and its causes."""
    links: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and len(links) < 10:
        links.append(link)
        link = link.__cause__
    return links

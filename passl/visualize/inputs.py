"""Pictures as people have them, the part of them that a model sees, and maps laid over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from passl.data.dataset import Dataset
from passl.data.images import decode, opencv
from passl.errors import ConfigError, DataError

__all__ = ["Picture", "Seen", "blend", "multiply", "prepare", "read_pictures", "scale", "spread"]

_LEVELS = 255
# The ramps are rounded to levels, and resizing bends their ends.
_STRAIGHT_LEVELS = 3.0


@dataclass(frozen=True)
class Picture:
    """A picture before any transform.

    Attributes:
        name: what it is called, and its files.
        source: where it is from.
        pixels: uint8 [H, W, 3 or 1].
        label: its class, where that is known.
    """

    name: str
    source: str
    pixels: np.ndarray
    label: Optional[int] = None


@dataclass(frozen=True)
class Seen:
    """What the model sees of a picture.

    Attributes:
        input_chw: float32, what the model takes.
        image: uint8 [H, W, 3] to draw maps on: the picture, or where its transforms do more than
            resize and crop, the picture after them.
        box: left, top, right and bottom of the part of ``image`` that is seen, in pixels.
    """

    input_chw: np.ndarray
    image: np.ndarray
    box: tuple[int, int, int, int]


def read_pictures(
    files: Sequence[str],
    indices: Sequence[int],
    dataset: Optional[Dataset],
    channels: int,
) -> list[Picture]:
    """The pictures of files and of samples of a data set.

    Args:
        files: image files.
        indices: samples of ``dataset``.
        dataset: where samples are from; needed with ``indices`` only.
        channels: of the model's input; 1 makes coloured files grey.

    Raises:
        DataError: a file that is no picture.
        ConfigError: no such sample.
    """
    pictures = []
    for file in files:
        try:
            pixels = decode(Path(file).read_bytes())
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror})") from error
        except DataError as error:
            raise DataError(f"{file}: {error}") from error
        if channels == 1:
            pixels = opencv().cvtColor(pixels, opencv().COLOR_RGB2GRAY)[:, :, None]
        pictures.append(Picture(Path(file).stem, file, pixels))
    for index in indices:
        assert dataset is not None
        if not 0 <= index < len(dataset):
            raise ConfigError(
                f"--sample {index}: the data set has samples 0 to {len(dataset) - 1}"
            )
        pictures.append(_of_dataset(dataset, index))
    return _with_different_names(pictures)


def prepare(picture: Picture, transforms: Sequence[Any]) -> Seen:
    """Transform a picture for the model, and find out which part of it the model sees.

    The part is found by sending two ramps, from left to right and from top to bottom, through the
    transforms that give uint8 pixels: where they are at the end says where each pixel came from.

    Args:
        picture: to transform.
        transforms: of the evaluation, without batch transforms.
    """
    image: Any = picture.pixels
    ramps: Any = _ramps(*image.shape[:2])
    last_pixels = image
    for transform in transforms:
        image = transform(image, np.random.default_rng(0))
        if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3:
            ramps = None if ramps is None else transform(ramps, np.random.default_rng(0))
            last_pixels = image
    input_chw = np.ascontiguousarray(image, dtype=np.float32)
    box = _box(ramps, picture.pixels.shape[0], picture.pixels.shape[1])
    if box is not None:
        return Seen(input_chw, _coloured(picture.pixels), box)
    height, width = last_pixels.shape[:2]
    return Seen(input_chw, _coloured(last_pixels), (0, 0, width, height))


def spread(
    grid_map: np.ndarray,
    seen: Seen,
    coverage: tuple[float, float] = (1.0, 1.0),
    percentile: float = 100.0,
) -> np.ndarray:
    """A map of patches over its largest value, at the size of the image: float32 [H, W], 0 to 1.

    In between it is bilinear; outside of the part that is seen it is NaN.

    Args:
        grid_map: [rows, columns], not negative.
        seen: the image.
        coverage: parts of height and width of what is seen that the patches fill.
        percentile: take this one in place of the largest value, and 1 for all above it.
    """
    left, top, right, bottom = seen.box
    height = max(1, round((bottom - top) * coverage[0]))
    width = max(1, round((right - left) * coverage[1]))
    scaled = scale(grid_map, percentile)
    cv2 = opencv()
    laid = cv2.resize(scaled, (width, height), interpolation=cv2.INTER_LINEAR)
    out = np.full(seen.image.shape[:2], np.nan, np.float32)
    out[top : top + height, left : left + width] = laid
    return out


def scale(grid_map: np.ndarray, percentile: float = 100.0) -> np.ndarray:
    """A map over its largest value or a percentile, float32 of the same shape, at most 1."""
    most = float(np.percentile(grid_map, percentile)) or float(grid_map.max()) or 1.0
    return np.minimum(grid_map / most, 1.0).astype(np.float32)


def multiply(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3]: each pixel times the map, as ViT's paper shows attention.

    What the model does not see (NaN) is faded.
    """
    seen = ~np.isnan(heat)
    out = _faded(image)
    out[seen] = (image[seen] * heat[seen][:, None]).astype(np.uint8)
    return out


def blend(image: np.ndarray, heat: np.ndarray, strength: float = 0.65) -> np.ndarray:
    """uint8 [H, W, 3]: the image in grey under the colours of the map; unseen parts are faded."""
    import matplotlib

    from passl.visualize.figure import HEAT

    seen = ~np.isnan(heat)
    colours = matplotlib.colormaps[HEAT](heat[seen])[:, :3] * _LEVELS
    grey = image[seen].mean(axis=1, keepdims=True)
    out = _faded(image)
    out[seen] = np.rint(strength * colours + (1 - strength) * grey).astype(np.uint8)
    return out


def _of_dataset(dataset: Dataset, index: int) -> Picture:
    stored, label = dataset.load(index)
    pixels = decode(stored) if isinstance(stored, bytes) else stored
    known = int(label) if np.ndim(label) == 0 else None
    return Picture(f"sample_{index}", dataset.path_of(index), pixels, known)


def _with_different_names(pictures: Sequence[Picture]) -> list[Picture]:
    """The second picture of a name becomes ``name_2``."""
    out: list[Picture] = []
    for picture in pictures:
        name, number, taken = picture.name, 1, {other.name for other in out}
        while name in taken:
            number += 1
            name = f"{picture.name}_{number}"
        out.append(Picture(name, picture.source, picture.pixels, picture.label))
    return out


def _ramps(height: int, width: int) -> np.ndarray:
    """uint8 [H, W, 3]: the first channel grows to the right, the second one downwards."""
    ramps = np.zeros([height, width, 3], np.float64)
    ramps[:, :, 0] = np.linspace(0, _LEVELS, width)
    ramps[:, :, 1] = np.linspace(0, _LEVELS, height)[:, None]
    return np.rint(ramps).astype(np.uint8)


def _box(
    ramps: Optional[np.ndarray], height: int, width: int
) -> Optional[tuple[int, int, int, int]]:
    """The part of the picture whose ramps these are; None where it is no upright rectangle."""
    if ramps is None or ramps.shape[-1] != 3:
        return None
    across = _ends(ramps[:, :, 0].astype(np.float64), width)
    down = _ends(ramps[:, :, 1].astype(np.float64).T, height)
    if across is None or down is None:
        return None
    return across[0], down[0], across[1], down[1]


def _ends(ramp: np.ndarray, size: int) -> Optional[tuple[int, int]]:
    """First and last edge, in pixels of the picture, of a ramp [.., n] once 0 to 255 over size."""
    count = ramp.shape[1]
    if count < 2 or size < 2:
        return None
    positions = np.arange(count)
    slope, start = np.polyfit(positions, ramp.mean(axis=0), 1)
    if slope <= 0 or np.abs(ramp - (start + slope * positions)).max() > _STRAIGHT_LEVELS:
        return None
    scale = (size - 1) / _LEVELS
    first, last = (scale * (start + slope * edge) + 0.5 for edge in (-0.5, count - 0.5))
    low, high = round(first), round(last)
    if low < -1 or high > size + 1:
        return None
    return max(0, low), min(size, high)


def _coloured(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[:, :, :3]


def _faded(image: np.ndarray) -> np.ndarray:
    return np.rint(0.25 * image + 0.75 * _LEVELS).astype(np.uint8)

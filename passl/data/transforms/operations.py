"""The operations that AutoAugment and RandAugment choose from, and how hard a level makes them.

An operation is two functions.  ``argument(level, rng)`` turns a level (10 is full strength, more is
allowed where a policy allows it) into what ``apply(picture, argument, surroundings)`` takes: an
angle, a factor, a threshold.  Only the former draws random numbers, so for a fixed argument the
pixels are fixed: they are Pillow's.

Names, ranges and rounding are timm's.  Some operations exist in several forms: an ``Increasing``
one changes the image more the higher the level, while the plain form of AutoAugment has its
identity in the middle (``Color``) or at the top (``Posterize``, ``Solarize``).

Source: E. Cubuk et al., "AutoAugment", arXiv:1805.09501, and "RandAugment", arXiv:1909.13719;
timm.data.auto_augment (ranges); the EfficientNet code of TensorFlow's TPU models (``Cutout``,
``TranslateX`` and ``TranslateY`` in pixels, the unlimited ``SolarizeAdd``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

__all__ = ["FULL_LEVEL", "OPERATIONS", "RESAMPLING", "Operation", "Surroundings", "solarize_add"]

#: The level at which an operation has its full strength.
FULL_LEVEL = 10.0
#: Names of the filters that turning and shearing can use.
RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
# Of the EfficientNet code: pixels that a full level shifts by, and half the side of its cutout.
_SHIFT_PIXELS, _CUTOUT_PIXELS = 100.0, 40.0


class Surroundings(NamedTuple):
    """What is around the image where it is moved: a colour, and the filter at its new pixels."""

    fill: tuple[int, int, int] = (128, 128, 128)
    resample: int = Image.Resampling.BICUBIC


Rng = np.random.Generator
Apply = Callable[[Image.Image, Any, Surroundings], Image.Image]


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        argument: ``argument(level, rng)`` is what ``apply`` takes.
        apply: ``apply(picture, argument, surroundings)`` is the new picture.
    """

    argument: Callable[[float, Rng], Any]
    apply: Apply


# -- from a level to an argument -----------------------------------------------------------------


def _no_argument(_level: float, _rng: Rng) -> None:
    return None


def _either_way(full: float) -> Callable[[float, Rng], float]:
    """Up to ``full``, of either sign."""

    def argument(level: float, rng: Rng) -> float:
        size = level / FULL_LEVEL * full
        return -size if rng.random() > 0.5 else size

    return argument


def _factor(level: float, _rng: Rng) -> float:
    """0.1 to 1.9; 1 changes nothing."""
    return level / FULL_LEVEL * 1.8 + 0.1


def _factor_increasing(level: float, rng: Rng) -> float:
    """1 at level 0, then away from it to either side: to 0.1 or 1.9."""
    return max(0.1, 1.0 + _either_way(0.9)(level, rng))


def _bits(level: float, _rng: Rng) -> int:
    """0 to 4 bits are kept: black at level 0."""
    return int(level / FULL_LEVEL * 4)


def _bits_increasing(level: float, rng: Rng) -> int:
    """4 down to 0 bits are kept."""
    return max(4 - _bits(level, rng), 0)


def _bits_original(level: float, rng: Rng) -> int:
    """4 to 8 bits are kept, as the paper on AutoAugment says."""
    return _bits(level, rng) + 4


def _threshold(level: float, _rng: Rng) -> int:
    """0 to 256; all is inverted at level 0."""
    return min(256, int(level / FULL_LEVEL * 256))


def _threshold_increasing(level: float, rng: Rng) -> int:
    """256 down to 0."""
    return 256 - _threshold(level, rng)


def _addition(level: float, _rng: Rng) -> int:
    return min(128, int(level / FULL_LEVEL * 110))


def _addition_unlimited(level: float, _rng: Rng) -> int:
    return int(level / FULL_LEVEL * 110)


def _between(low: float, high: float) -> Callable[[float, Rng], float]:
    """``low`` at level 0, ``high`` at the full level and above."""

    def argument(level: float, _rng: Rng) -> float:
        return max(low, min(high, low + (high - low) * (level / FULL_LEVEL)))

    return argument


def _random_radius(level: float, rng: Rng) -> float:
    """Uniform from 0.1 to 2 pixels at the full level; at less than 0.5 between it and 0.1."""
    greatest = 2.0 * _between(0.0, 1.0)(level, rng)
    return 0.1 + (greatest - 0.1) * float(rng.random())


def _hole(level: float, rng: Rng) -> tuple[int, float, float]:
    """Half the side in pixels, and where the centre is, as shares of height and width."""
    return int(level / FULL_LEVEL * _CUTOUT_PIXELS), float(rng.random()), float(rng.random())


# -- pixels --------------------------------------------------------------------------------------


def _affine(picture: Image.Image, around: Surroundings, *matrix: float) -> Image.Image:
    return picture.transform(
        picture.size,
        Image.Transform.AFFINE,
        matrix,
        resample=Image.Resampling(around.resample),
        fillcolor=around.fill,
    )


def _rotate(picture: Image.Image, degrees: float, around: Surroundings) -> Image.Image:
    return picture.rotate(
        degrees, resample=Image.Resampling(around.resample), fillcolor=around.fill
    )


def _posterize(picture: Image.Image, bits: int, _around: Surroundings) -> Image.Image:
    if bits >= 8:
        return picture
    # By a table: Pillow 13 refuses to keep no bit, which policies ask for (timm then fails).
    mask = 256 - 2 ** (8 - bits)
    return picture.point([value & mask for value in range(256)] * len(picture.getbands()))


def solarize_add(picture: Image.Image, addition: int, threshold: int = 128) -> Image.Image:
    """Add to the values below ``threshold``, up to 255."""
    table = [min(255, value + addition) if value < threshold else value for value in range(256)]
    return picture.point(table * len(picture.getbands()))


def _enhance(kind: type[Any]) -> Apply:
    return lambda picture, factor, _: kind(picture).enhance(factor)


def _desaturate(picture: Image.Image, share: float, _around: Surroundings) -> Image.Image:
    return ImageEnhance.Color(picture).enhance(min(1.0, max(0.0, 1.0 - share)))


def _blur(picture: Image.Image, radius: float, _around: Surroundings) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(radius))


def _cutout(
    picture: Image.Image, hole: tuple[int, float, float], around: Surroundings
) -> Image.Image:
    half, y_share, x_share = hole
    width, height = picture.size
    y, x = int(y_share * height), int(x_share * width)
    box = (max(x - half, 0), max(y - half, 0), min(x + half, width), min(y + half, height))
    cut = picture.copy()
    if box[2] > box[0] and box[3] > box[1]:
        cut.paste(around.fill, box)
    return cut


_COLOR, _CONTRAST = _enhance(ImageEnhance.Color), _enhance(ImageEnhance.Contrast)
_BRIGHTNESS, _SHARPNESS = _enhance(ImageEnhance.Brightness), _enhance(ImageEnhance.Sharpness)
_SOLARIZE: Apply = lambda picture, threshold, _: ImageOps.solarize(picture, threshold)  # noqa: E731
_ADD: Apply = lambda picture, addition, _: solarize_add(picture, addition)  # noqa: E731

#: Every operation by its name.
OPERATIONS: dict[str, Operation] = {
    "AutoContrast": Operation(_no_argument, lambda picture, *_: ImageOps.autocontrast(picture)),
    "Equalize": Operation(_no_argument, lambda picture, *_: ImageOps.equalize(picture)),
    "Invert": Operation(_no_argument, lambda picture, *_: ImageOps.invert(picture)),
    "Rotate": Operation(_either_way(30.0), _rotate),
    "Posterize": Operation(_bits, _posterize),
    "PosterizeIncreasing": Operation(_bits_increasing, _posterize),
    "PosterizeOriginal": Operation(_bits_original, _posterize),
    "Solarize": Operation(_threshold, _SOLARIZE),
    "SolarizeIncreasing": Operation(_threshold_increasing, _SOLARIZE),
    "SolarizeAdd": Operation(_addition, _ADD),
    "SolarizeAddUnlimited": Operation(_addition_unlimited, _ADD),
    "Color": Operation(_factor, _COLOR),
    "ColorIncreasing": Operation(_factor_increasing, _COLOR),
    "Contrast": Operation(_factor, _CONTRAST),
    "ContrastIncreasing": Operation(_factor_increasing, _CONTRAST),
    "Brightness": Operation(_factor, _BRIGHTNESS),
    "BrightnessIncreasing": Operation(_factor_increasing, _BRIGHTNESS),
    "Sharpness": Operation(_factor, _SHARPNESS),
    "SharpnessIncreasing": Operation(_factor_increasing, _SHARPNESS),
    "ShearX": Operation(
        _either_way(0.3), lambda picture, by, around: _affine(picture, around, 1, by, 0, 0, 1, 0)
    ),
    "ShearY": Operation(
        _either_way(0.3), lambda picture, by, around: _affine(picture, around, 1, 0, 0, by, 1, 0)
    ),
    "TranslateX": Operation(
        _either_way(_SHIFT_PIXELS),
        lambda picture, by, around: _affine(picture, around, 1, 0, by, 0, 1, 0),
    ),
    "TranslateY": Operation(
        _either_way(_SHIFT_PIXELS),
        lambda picture, by, around: _affine(picture, around, 1, 0, 0, 0, 1, by),
    ),
    "TranslateXRel": Operation(
        _either_way(0.45),
        lambda picture, by, around: _affine(picture, around, 1, 0, by * picture.width, 0, 1, 0),
    ),
    "TranslateYRel": Operation(
        _either_way(0.45),
        lambda picture, by, around: _affine(picture, around, 1, 0, 0, 0, 1, by * picture.height),
    ),
    "Desaturate": Operation(_between(0.5, 1.0), _desaturate),
    "GaussianBlur": Operation(_between(0.1, 2.0), _blur),
    "GaussianBlurRand": Operation(_random_radius, _blur),
    "Cutout": Operation(_hole, _cutout),
}

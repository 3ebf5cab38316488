"""Random changes of colour and sharpness, with Pillow's pixels."""

from __future__ import annotations

from typing import Annotated, Union

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from passl.data.transforms.pictures import to_array, to_picture
from passl.errors import ConfigError
from passl.registry import TRANSFORMS, Range

__all__ = ["ColorJitter", "GaussianBlur", "RandomGrayscale", "ThreeAugment", "shift_hue"]

_Bounds = tuple[float, float]


@TRANSFORMS.register()
class ColorJitter:
    """Change brightness, contrast, saturation and hue by random factors, in random order.

    A number ``x`` stands for a factor uniform in [max(0, 1 - x), 1 + x], a pair for its bounds; of
    ``hue``, which is added, in [-x, x], where 1 is once around the colour circle.

    Args:
        brightness: change of the brightness, or [least, greatest] factor.
        contrast: change of the contrast, or [least, greatest] factor.
        saturation: change of the saturation, or [least, greatest] factor.
        hue: change of the hue, 0..0.5, or [least, greatest] inside [-0.5, 0.5].
        p: probability that the image is changed, 0..1.

    Source: torchvision.transforms.ColorJitter (for Pillow's images).
    """

    def __init__(
        self,
        *,
        brightness: Union[Annotated[float, Range(min=0)], tuple[float, float]] = 0.0,
        contrast: Union[Annotated[float, Range(min=0)], tuple[float, float]] = 0.0,
        saturation: Union[Annotated[float, Range(min=0)], tuple[float, float]] = 0.0,
        hue: Union[Annotated[float, Range(0, 0.5)], tuple[float, float]] = 0.0,
        p: Annotated[float, Range(0, 1)] = 1.0,
    ) -> None:
        factors = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        self.bounds = {name: _bounds(name, value, 1.0) for name, value in factors.items()}
        self.bounds["hue"] = _bounds("hue", hue, 0.0)
        self.p = p

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3] -> the same."""
        if rng.random() >= self.p:
            return image
        picture = to_picture(image, "ColorJitter")
        for number in rng.permutation(4):
            name, (low, high) = list(self.bounds.items())[number]
            neutral = 0.0 if name == "hue" else 1.0
            if (low, high) != (neutral, neutral):
                picture = _CHANGES[name](picture, float(rng.uniform(low, high)))
        return to_array(picture)


@TRANSFORMS.register()
class RandomGrayscale:
    """Make the image grey, in three channels.

    Args:
        p: probability, 0..1.

    Source: torchvision.transforms.RandomGrayscale.
    """

    def __init__(self, *, p: Annotated[float, Range(0, 1)] = 0.1) -> None:
        self.p = p

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3] -> the same."""
        if rng.random() >= self.p:
            return image
        return to_array(_grey(to_picture(image, "RandomGrayscale")))


@TRANSFORMS.register()
class GaussianBlur:
    """Blur with a radius drawn uniformly.

    Args:
        sigma: least and greatest radius (standard deviation) in pixels.
        p: probability, 0..1.

    Source: T. Chen et al., "SimCLR", arXiv:2002.05709; H. Touvron et al., "DeiT III",
    arXiv:2204.07118 (Pillow's filter, 0.1 to 2 pixels).
    """

    def __init__(
        self,
        *,
        sigma: tuple[Annotated[float, Range(min=0)], Annotated[float, Range(min=0)]] = (0.1, 2.0),
        p: Annotated[float, Range(0, 1)] = 1.0,
    ) -> None:
        if sigma[0] > sigma[1]:
            raise ConfigError(f"GaussianBlur: sigma is {list(sigma)}; the lower bound comes first")
        self.sigma, self.p = sigma, p

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3] -> the same."""
        if rng.random() >= self.p:
            return image
        return to_array(_blur(to_picture(image, "GaussianBlur"), self.sigma, rng))


@TRANSFORMS.register()
class ThreeAugment:
    """DeiT III's 3-Augment: grey, solarised or blurred, one third each; then a colour jitter.

    Solarising inverts the values from 128 on, the blur is ``GaussianBlur`` of 0.1 to 2 pixels, the
    jitter ``ColorJitter`` of brightness, contrast and saturation.

    Args:
        color_jitter: strength of the jitter; 0 for none.

    Source: H. Touvron et al., "DeiT III: Revenge of the ViT", arXiv:2204.07118.
    """

    def __init__(self, *, color_jitter: Annotated[float, Range(min=0)] = 0.3) -> None:
        self._jitter = ColorJitter(
            brightness=color_jitter, contrast=color_jitter, saturation=color_jitter
        )

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3] -> the same."""
        picture = to_picture(image, "ThreeAugment")
        choice = int(rng.integers(3))
        if choice == 0:
            picture = _grey(picture)
        elif choice == 1:
            picture = ImageOps.solarize(picture, 128)
        else:
            picture = _blur(picture, (0.1, 2.0), rng)
        return self._jitter(to_array(picture), rng)


def shift_hue(picture: Image.Image, turn: float) -> Image.Image:
    """Turn the colour circle by ``turn`` of a whole turn, in steps of 1/256.

    Source: torchvision's ``adjust_hue`` for Pillow's images (rounding towards zero).
    """
    hue, saturation, value = picture.convert("HSV").split()
    turned = (np.asarray(hue).astype(np.int32) + int(turn * 255)) % 256
    bands = (Image.fromarray(turned.astype(np.uint8)), saturation, value)
    return Image.merge("HSV", bands).convert("RGB")


_CHANGES = {
    "brightness": lambda picture, factor: ImageEnhance.Brightness(picture).enhance(factor),
    "contrast": lambda picture, factor: ImageEnhance.Contrast(picture).enhance(factor),
    "saturation": lambda picture, factor: ImageEnhance.Color(picture).enhance(factor),
    "hue": shift_hue,
}


def _bounds(name: str, value: Union[float, _Bounds], neutral: float) -> _Bounds:
    lowest, highest = (-0.5, 0.5) if name == "hue" else (0.0, float("inf"))
    if isinstance(value, (int, float)):
        low, high = max(neutral - value, lowest), neutral + value
    else:
        low, high = value
    if not lowest <= low <= high <= highest:
        raise ConfigError(
            f"ColorJitter: {name} is {value}; its bounds must be in order"
            + (" and inside [-0.5, 0.5]" if name == "hue" else " and not negative")
        )
    return low, high


def _grey(picture: Image.Image) -> Image.Image:
    return picture.convert("L").convert("RGB")


def _blur(picture: Image.Image, sigma: _Bounds, rng: np.random.Generator) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(*sigma))))

"""AutoAugment, RandAugment and AugMix: operations chosen at random for each image."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Optional, Union

import numpy as np
from PIL import Image

from passl.data.transforms.operations import OPERATIONS, RESAMPLING, Surroundings
from passl.data.transforms.pictures import to_array, to_picture
from passl.data.transforms.policies import Policy, read_policy
from passl.errors import ConfigError
from passl.registry import TRANSFORMS, Range

__all__ = ["RandAugment", "TimmAutoAugment"]

_MEAN = (0.485, 0.456, 0.406)  # of ImageNet's training images, RGB


@TRANSFORMS.register()
class TimmAutoAugment:
    """What timm's ``--aa`` does, from the same strings.

    ``rand-m9-n2-p0.5-mstd0.5-mmax10-inc1-tNAME``: RandAugment, with the level ``m`` (10), ``n`` (2)
    operations an image, each applied with probability ``p`` (0.5), normal noise ``mstd`` (0; above
    100: uniform) on the level, which then is cut off at 0 and ``mmax`` (10); ``inc1`` takes
    operations that grow with the level, ``t`` another set: weights, 3a, 3aw (weighted ones are
    drawn without repeats).
    ``original``, ``originalr``, ``v0``, ``v0r``: AutoAugment; one of 25 pairs of operations.
    ``3a``: DeiT III's choice of solarising, grey and blur.
    ``augmix-m3-w3-d2-a1``: AugMix of ``w`` chains of ``d`` operations (not given: one to three).
    The last two kinds take ``mstd`` as well; timm's ``b1`` of AugMix is not available.

    Args:
        config_str: the policy.
        interpolation: filter of rotations, shears and shifts; ``random`` is bilinear or bicubic.
        mean: colour, 0..1 a channel, of what comes in from outside the image, or one value; none
            given means the mean of ImageNet.

    Source: timm.data.auto_augment; PASSL's ``TimmAutoAugment`` (names of the arguments).
    """

    def __init__(
        self,
        *,
        config_str: str = "rand-m9-mstd0.5-inc1",
        interpolation: Literal["nearest", "bilinear", "bicubic", "random"] = "bicubic",
        mean: Optional[
            Union[Annotated[float, Range(0, 1)], list[Annotated[float, Range(0, 1)]]]
        ] = None,
    ) -> None:
        self.policy = read_policy(config_str)
        colour = np.atleast_1d(np.asarray(_MEAN if mean is None else mean, dtype=np.float64))
        if len(colour) not in (1, 3):
            raise ConfigError(f"TimmAutoAugment: mean needs one or three values, not {mean}")
        red, green, blue = (round(255 * float(value)) for value in np.broadcast_to(colour, 3))
        names = ("bilinear", "bicubic") if interpolation == "random" else (interpolation,)
        self._around = [Surroundings((red, green, blue), RESAMPLING[name]) for name in names]

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3] -> the same, of the same size."""
        picture = to_picture(image, "TimmAutoAugment")
        policy = self.policy
        if policy.kind == "augmix":
            return to_array(self._augmix(picture, policy, rng))
        if policy.kind == "auto":
            steps = policy.sub_policies[int(rng.integers(len(policy.sub_policies)))]
        else:
            chosen = rng.choice(
                len(policy.choices), policy.layers, replace=policy.weights is None, p=policy.weights
            )
            steps = tuple((policy.choices[i], policy.prob, policy.level) for i in chosen)
        for name, prob, level in steps:
            if prob >= 1.0 or rng.random() < prob:
                picture = self._apply(picture, name, level, rng)
        return to_array(picture)

    def level(self, level: float, rng: np.random.Generator) -> float:
        """The level with the policy's noise, inside its bounds."""
        noise = self.policy.noise
        if noise == math.inf:
            level = float(rng.uniform(0.0, level))
        elif noise > 0:
            level = float(rng.normal(level, noise))
        return max(0.0, min(level, self.policy.top))

    def _apply(
        self, picture: Image.Image, name: str, level: float, rng: np.random.Generator
    ) -> Image.Image:
        operation = OPERATIONS[name]
        argument = operation.argument(self.level(level, rng), rng)
        around = self._around[int(rng.integers(2)) if len(self._around) > 1 else 0]
        return operation.apply(picture, argument, around)

    def _augmix(
        self, picture: Image.Image, policy: Policy, rng: np.random.Generator
    ) -> Image.Image:
        shares = rng.dirichlet([policy.alpha] * policy.width).astype(np.float32)
        blend = float(rng.beta(policy.alpha, policy.alpha))
        mixed = np.zeros((picture.height, picture.width, 3), dtype=np.float32)
        for share in shares:
            depth = policy.layers or int(rng.integers(1, 4))
            changed = picture
            for number in rng.integers(len(policy.choices), size=depth):
                changed = self._apply(changed, policy.choices[number], policy.level, rng)
            mixed += share * np.asarray(changed, dtype=np.float32)
        chains = Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))
        return Image.blend(picture, chains, blend)


# In the order of the EfficientNet code, which is that of google-research/big_vision too.
_GOOGLES = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Cutout",
    "SolarizeAddUnlimited",
)


@TRANSFORMS.register()
class RandAugment:
    """RandAugment as Google's ViT recipes use it: ``num_layers`` of 16 operations, always applied.

    Other than ``TimmAutoAugment`` with ``rand-...`` it has a cutout (80 pixels wide at level 10)
    and shifts in pixels (100 at level 10), knows levels above 10, and applies every operation it
    draws.  Moved images are sampled at the nearest pixel on grey.

    ``Contrast`` turns about the mean of the image, as Pillow's; Google's code turns about the
    number of pixels divided by 256 (196 at 224 x 224).

    Args:
        num_layers: operations an image gets; the same may come twice.
        magnitude: level of all operations, 0..30; 10 is the full strength of AutoAugment.

    Source: E. Cubuk et al., "RandAugment", arXiv:1909.13719; ``randaug`` of big_vision.
    """

    def __init__(
        self,
        *,
        num_layers: Annotated[int, Range(min=0)] = 2,
        magnitude: Annotated[float, Range(0, 30)] = 10.0,
    ) -> None:
        self.num_layers, self.magnitude = num_layers, magnitude
        self._around = Surroundings(resample=RESAMPLING["nearest"])

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3] -> the same, of the same size."""
        picture = to_picture(image, "RandAugment")
        for number in rng.integers(len(_GOOGLES), size=self.num_layers):
            operation = OPERATIONS[_GOOGLES[number]]
            argument = operation.argument(self.magnitude, rng)
            picture = operation.apply(picture, argument, self._around)
        return to_array(picture)

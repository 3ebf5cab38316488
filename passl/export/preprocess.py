"""From a picture to what a model takes, by the transforms that evaluation uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np

from passl.config import Config
from passl.data.device import split_normalize
from passl.data.transforms.normalize import NormalizeImage
from passl.errors import ConfigError, DataError
from passl.models import check_arguments
from passl.registry import TRANSFORMS

__all__ = ["Preprocessor", "eval_steps", "normalisation_of", "plain"]


def eval_steps(config: Config) -> Optional[list[dict[str, Any]]]:
    """The transforms of ``DataLoader.Eval`` as components; None if there is no such section."""
    section = config.DataLoader.Eval
    if section is None:
        return None
    return [plain(step) for step in section.dataset.get("transform_ops") or ()]


def normalisation_of(steps: Sequence[Mapping[str, Any]]) -> Optional[NormalizeImage]:
    """The last ``NormalizeImage`` among transforms as components; None: there is none.

    Raises:
        ConfigError: it has an unknown argument.
    """
    found = [step for step in steps if step.get("name") == NormalizeImage.__name__]
    return _build(found[-1]) if found else None


class Preprocessor:
    """uint8 [H, W, C] of any size -> one input of the model.

    Args:
        steps: transforms as ``{"name": X, **arguments}``, in order.
        channels: that the model takes; a colour picture becomes grey for a model of one channel,
            a grey one is repeated.
        inside: leave the final ``NormalizeImage`` and ``ToCHWImage`` to the model.

    Attributes:
        outside: the steps done here.
        within: the steps left to the model.
        normalize: the transform that ``within`` stands for; None if it is empty.

    Raises:
        ConfigError: an unknown transform or argument, or a chain that does not end with the two.
    """

    def __init__(
        self, steps: Sequence[Mapping[str, Any]], channels: int, *, inside: bool = False
    ) -> None:
        self._chain = [_build(step) for step in steps]
        self._channels = channels
        kept = len(self._chain)
        self.normalize: Optional[NormalizeImage] = None
        if inside:
            outside, device = split_normalize(self._chain)
            if device is None:
                raise ConfigError(
                    "Export.preprocess puts the normalisation inside, but the transforms of "
                    "DataLoader.Eval do not end with NormalizeImage (order hwc, three channels or "
                    "one, float32) and ToCHWImage; leave it out, or end them so"
                )
            kept = len(outside)
            self.normalize = next(op for op in self._chain[kept:] if type(op) is NormalizeImage)
        self._kept = kept
        self.outside = [plain(step) for step in steps[:kept]]
        self.within = [plain(step) for step in steps[kept:]]

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """What the exported model takes: uint8 [h, w, C] if normalised inside, else [C, h, w]."""
        return self._apply(as_channels(pixels, self._channels), 0, self._kept)

    def whole(self, outside: np.ndarray) -> np.ndarray:
        """What the live model takes, [C, h, w], from what :meth:`__call__` gave."""
        return self._apply(outside, self._kept, len(self._chain))

    def _apply(self, image: np.ndarray, start: int, end: int) -> np.ndarray:
        rng = np.random.default_rng(0)  # evaluation draws nothing; a fixed seed if it does
        for transform in self._chain[start:end]:
            image = transform(image, rng)
        return np.ascontiguousarray(image)


def as_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """uint8 [H, W, 1 or 3] with the channels a model of ``channels`` begins with.

    Grey is ITU-R 601's luma, as Pillow computes it.
    """
    if channels == 1 and pixels.shape[2] == 3:
        from PIL import Image

        return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))[:, :, None]
    if channels >= 3 and pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] not in (1, 3):
        raise DataError(
            f"an array of shape {pixels.shape} is no picture; give [H, W] or [H, W, 3]"
        )
    return pixels


def plain(value: Any) -> Any:
    """``value`` with lists for tuples and plain numbers for NumPy's: as YAML can say it."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value.item() if isinstance(value, np.generic) else value


def _build(step: Mapping[str, Any]) -> Any:
    name = step.get("name")
    spec = TRANSFORMS.spec(str(name))
    if spec is None:
        raise ConfigError(
            f"no transform is called {name!r}; if it is your own, import its module first "
            "(Global.imports in a config)"
        )
    arguments = {key: value for key, value in step.items() if key != "name"}
    return TRANSFORMS.build({"name": name, **check_arguments(spec, arguments)})

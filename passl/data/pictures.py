"""Samples of a batch as a person sees them: pictures without normalising, targets with names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

import numpy as np

from passl.data.images import decode
from passl.data.names import printable
from passl.data.transforms.normalize import NormalizeImage

if TYPE_CHECKING:
    from passl.data.loader import Loader

__all__ = ["Part", "parts_of_target", "stored_picture", "visible"]


class Part(NamedTuple):
    """A class of a target and what the target says of it, 0..1."""

    name: str
    value: float


def visible(images: np.ndarray, loader: Loader) -> np.ndarray:
    """The images of a batch as pictures: uint8 [B, H, W, 3].

    What ``NormalizeImage`` did is undone, and what then is not between black and white (erased
    places, for example) cut off.  Floats of a chain without it are stretched to their own range.

    Args:
        images: uint8 [B, H, W, C] or float32 [B, C, H, W], as the loader gave them.
        loader: it.
    """
    if images.dtype == np.uint8:
        return _three_channels(images)
    normalize = _normalize_of(loader.transforms)
    pixels = images.transpose(0, 2, 3, 1).astype(np.float32)
    if normalize is None:
        low, high = float(pixels.min()), float(pixels.max())
        pixels = (pixels - low) / ((high - low) or 1.0)
    else:
        pixels = pixels[..., :3] if normalize.channel_num == 4 else pixels
        mean, std = normalize.per_channel(pixels.shape[-1])
        pixels = (pixels * std + mean) / (float(normalize.scale) * 255.0)
    return _three_channels(np.rint(np.clip(pixels, 0.0, 1.0) * 255).astype(np.uint8))


def parts_of_target(target: np.ndarray, names: Optional[Sequence[str]] = None) -> list[Part]:
    """The classes of one target, the strongest first; what smoothing gives to all is no part.

    Of two classes both are told: nothing says how much of the lesser one is smoothing.

    Args:
        target: a class number, or one number a class.
        names: of the classes; their numbers if not given.
    """

    def name(number: int) -> str:
        if names and number < len(names):
            return f"{number} {printable(names[number])}"
        return f"class {number}"

    if target.ndim == 0:
        return [Part(name(int(target)), 1.0)]
    least = float(target.min()) if len(target) > 2 else 0.0
    order = np.argsort(-target, kind="stable")
    return [Part(name(int(i)), float(target[i])) for i in order if target[i] > least + 1e-6]


def stored_picture(dataset: Any, index: int) -> np.ndarray:
    """Sample ``index`` as it is stored, without transforms: uint8 [H, W, 3]."""
    stored, _ = dataset.load(index)
    pixels = decode(stored) if isinstance(stored, bytes) else stored
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[:, :, :3]


def _normalize_of(transforms: Sequence[Any]) -> Optional[NormalizeImage]:
    found: list[Any] = [op for op in transforms if isinstance(op, NormalizeImage)]
    return found[0] if found else None


def _three_channels(images: np.ndarray) -> np.ndarray:
    return np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images[..., :3]

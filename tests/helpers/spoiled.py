"""Components for tests of numbers that go wrong: samples and layers that are not finite."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from passl.data.datasets.digits import DigitsDataset
from passl.data.rng import epoch_order
from passl.engine.hooks.base import Hook
from passl.registry import DATASETS, HOOKS, Component

if TYPE_CHECKING:
    from passl.engine.trainer import Trainer


@DATASETS.register()
class SpoiledDigits(DigitsDataset):
    """Digits, some of which become infinite after their transforms.

    Args:
        split: which part.
        in_chans: 1 or 3.
        transform_ops: transforms applied to each image, in this order.
        spoiled: positions of the samples without a finite pixel.
    """

    def __init__(
        self,
        *,
        split: Literal["train", "val"] = "train",
        in_chans: Literal[1, 3] = 3,
        transform_ops: Annotated[Sequence[Any], Component("transforms")] = (),
        spoiled: Sequence[int] = (),
    ) -> None:
        super().__init__(split=split, in_chans=in_chans, transform_ops=transform_ops)
        self.spoiled = frozenset(spoiled)

    def sample(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, Any]:
        image, label = super().sample(index, rng)
        if index in self.spoiled:  # as floats: the bytes that are normalized later have no infinity
            return np.full(image.shape, np.inf, np.float32), label
        return image, label


@HOOKS.register()
class Overflow(Hook):
    """Make a layer overflow from a step on: finite weights, too large for float32 together.

    Args:
        layer: name of an MLP.
        step: after which step.
    """

    def __init__(self, *, layer: str, step: int) -> None:
        self.layer, self.step = layer, step

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.state.step == self.step:
            named = dict(trainer.parts.model.named_parameters())
            for part in ("fc1", "fc2"):
                weight = named[f"{self.layer}.{part}.weight"]
                weight.set_value(weight.numpy() * np.float32(1e24))


@HOOKS.register()
class KillOnce(Hook):
    """SIGKILL this process after a step, once over all starts.

    Args:
        step: after which step.
        done: file that says it was done.
    """

    def __init__(self, *, step: int, done: str) -> None:
        self.step, self.done = step, done

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.state.step == self.step and not os.path.exists(self.done):
            open(self.done, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)


def sample_of_step(step: int, seed: int = 2021) -> int:
    """A training sample that the small run sees in this step of its first epoch."""
    return int(epoch_order(1438, seed, 1)[(step - 1) * 256 + 7])


def spoiled_data(*samples: int) -> tuple[str, ...]:
    """Overrides that put :class:`SpoiledDigits` in the place of the small run's training data."""
    return (
        "Global.imports=[spoiled]",
        "DataLoader.Train.dataset.name=SpoiledDigits",
        "DataLoader.Train.dataset.split=train",
        "DataLoader.Train.dataset.in_chans=1",
        "DataLoader.Train.dataset.transform_ops="
        "[{NormalizeImage: {mean: [0.5], std: [0.5], order: '', channel_num: 1}}, "
        "{ToCHWImage: null}]",
        f"DataLoader.Train.dataset.spoiled={list(samples)}",
        "DataLoader.Train.loader.normalize_on_device=false",
    )

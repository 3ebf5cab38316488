"""What every process of a run holds at its end, in a file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from passl.engine.hooks.base import Hook
from passl.registry import HOOKS

if TYPE_CHECKING:
    from passl.engine.trainer import Trainer


@HOOKS.register()
class DumpRank(Hook):
    """Writes weights as they are on the device, and masters, to ``rank_N.npz``.

    Args:
        folder: where to.
    """

    def __init__(self, *, folder: str) -> None:
        self.folder = Path(folder)

    def on_finish(self, trainer: Trainer) -> None:
        parts = trainer.parts
        found = {n: p.astype("float32").numpy() for n, p in parts.model.named_parameters()}
        if parts.half is not None:
            found.update({f"master/{n}": p.numpy() for n, p in parts.half.masters.items()})
        found["skipped"] = np.asarray(trainer.state.skipped_steps)
        found["scale"] = np.asarray(parts.precision.scale)
        np.savez(self.folder / f"rank_{parts.world.rank}.npz", **found)

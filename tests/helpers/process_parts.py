"""Data sets and transforms for worker processes, which import them by name."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np

from passl.data.dataset import Dataset


class Acting(Dataset):
    """Random float images [3, 8, 8]; what happens at sample 13 is ``act``."""

    def __init__(self, act: str = "", count: int = 40, side: int = 8) -> None:
        super().__init__([noise])
        self.act, self.count, self.side = act, count, side

    def __len__(self) -> int:
        return self.count

    def path_of(self, index: int) -> str:
        return f"/data/{index}.jpg"

    def load(self, index: int) -> tuple[np.ndarray, Any]:
        if index == 13:
            self._do()
        return np.full((3, self.side, self.side), index, np.float32), index % 5

    def _do(self) -> None:
        if self.act == "raise":
            raise ValueError("rotten")
        if self.act == "exit":
            sys.exit("I leave")
        if self.act == "memory":
            np.zeros(1 << 60, np.uint8)
        if self.act.startswith("kill"):
            os.kill(os.getpid(), int(self.act[4:]))
            time.sleep(3600)
        if self.act == "leave":
            os._exit(7)
        if self.act == "sleep":
            time.sleep(3600)


class Several(Acting):
    """Sets of labels."""

    multi_label, class_num = True, 6

    def load(self, index: int) -> tuple[np.ndarray, Any]:
        return super().load(index)[0], np.array([index % 6, 2], np.int32)


def noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Adds noise."""
    return image + rng.random(image.shape, np.float32)


class HoldsTheLock:
    """A transform that says so, and tells in which process it ran."""

    holds_lock = True

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Image -> image with the number of the process."""
        return np.full_like(image, os.getpid())


class SlowToArrive:
    """Takes an hour to be read in a worker process."""

    def __getstate__(self) -> dict[str, Any]:
        return {"is": "slow"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        time.sleep(3600)


def work_for_ever() -> None:
    """Write the numbers of the worker processes, then load and load."""
    from passl.data.loader import Loader
    from passl.data.samplers import DistributedBatchSampler

    sampler = DistributedBatchSampler(num_samples=8000, batch_size=8, seed=0)
    dataset = Acting(count=8000, side=64, act=sys.argv[1] if len(sys.argv) > 1 else "")
    loader = Loader(dataset, sampler, num_workers=3, workers="processes", timeout_s=0)
    for epoch in range(10**6):
        for _ in loader.epoch(epoch):
            if loader._processes is not None:
                pids = [loader._processes.pid(n) for n in range(3)]
                sys.stdout.write(" ".join(map(str, pids)) + "\n")
                sys.stdout.flush()

"""Batch arithmetic: how the images of one optimizer step are shared out.

    global_batch_size = processes x batch_size
    batch_size        = accum_steps x micro_batch_size

``global_batch_size`` (all processes) or ``DataLoader.Train.sampler.batch_size`` (one process) is
given, or both if they agree.  ``accum_steps`` cuts the images of one process into equal passes;
``micro_batch_size`` is the most a device can take, from which ``accum_steps`` follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from passl.config.config import Config
from passl.config.cross import Mode
from passl.errors import ConfigError

__all__ = ["BatchPlan", "plan_batches"]

_PER_PROCESS = "DataLoader.Train.sampler.batch_size"
_GLOBAL = "Global.global_batch_size"
_DEFAULT_EVAL_BATCH = 64


@dataclass(frozen=True)
class BatchPlan:
    """The batch of one optimizer step.

    Attributes:
        global_batch_size: images of all processes.
        batch_size: images of one process.
        accum_steps: forward and backward passes of one process.
        micro_batch_size: images of one pass.
        world_size: processes.
        eval_batch_size: images of one evaluation batch of all processes.
    """

    global_batch_size: int
    batch_size: int
    accum_steps: int
    micro_batch_size: int
    world_size: int
    eval_batch_size: int

    def describe(self) -> str:
        """``global batch 4096 = 8 processes x 512 images = 8 x 2 micro-batches of 256``."""
        processes = f"{self.world_size} process{'es' * (self.world_size != 1)}"
        text = f"global batch {self.global_batch_size} = {processes} x {self.batch_size} images"
        if self.accum_steps == 1:
            return text
        passes = f"{self.accum_steps} micro-batches of {self.micro_batch_size}"
        return f"{text} = {self.world_size} x {passes}"


def plan_batches(config: Config, world_size: int, *, mode: Mode = "train") -> BatchPlan:
    """Derive what is not given and check what is.

    Args:
        config: a checked config.
        world_size: processes of the run, at least 1.
        mode: with ``"eval"`` only ``DataLoader.Eval`` counts: a model may be evaluated on any
            number of processes, whatever it was trained on.

    Raises:
        ConfigError: a number that does not divide, or two that contradict each other; the message
            lists choices that would do.
    """
    evaluation = config.DataLoader.Eval
    eval_batch = evaluation.sampler.batch_size if evaluation is not None else None
    if mode == "eval":
        batch = eval_batch or _DEFAULT_EVAL_BATCH
        return BatchPlan(batch * world_size, batch, 1, batch, world_size, batch * world_size)
    batch = _images_per_process(config, world_size)
    accum = _accumulation(config, batch)
    micro = batch // accum
    return BatchPlan(
        batch * world_size, batch, accum, micro, world_size, (eval_batch or micro) * world_size
    )


def _images_per_process(config: Config, world_size: int) -> int:
    total = config.Global.global_batch_size
    train = config.DataLoader.Train
    batch = train.sampler.batch_size if train is not None else None
    if total is None and batch is None:
        raise ConfigError(
            f"{config.source_path}: {_GLOBAL}: missing; give it (images of all processes) "
            f"or {_PER_PROCESS} (images of one process)"
        )
    if total is None:
        return batch or 0
    if batch is not None and total != batch * world_size:
        raise _problem(
            config,
            _GLOBAL,
            f"{total} contradicts {_PER_PROCESS}={batch} ({config.origin(_PER_PROCESS)}) on "
            f"{world_size} process{'es' * (world_size != 1)} ({batch * world_size} images); "
            "keep one of them",
        )
    if total % world_size:
        raise _problem(
            config,
            _GLOBAL,
            f"{total} images do not divide over {world_size} processes; nearest that do: "
            f"{_near_multiples(total, world_size)}; or start one of {_divisors(total)} processes",
        )
    return total // world_size


def _accumulation(config: Config, batch: int) -> int:
    """Passes of one process: given, or the fewest that respect ``micro_batch_size``."""
    accum, limit = config.Global.accum_steps, config.Global.micro_batch_size
    if accum is not None and batch % accum:
        raise _problem(
            config,
            "Global.accum_steps",
            f"{accum} does not divide the {batch} images of one process; "
            f"choices: {_divisors(batch)}",
        )
    if limit is None:
        return accum or 1
    fewest = next(
        count for count in range(1, batch + 1) if batch % count == 0 and batch // count <= limit
    )
    if accum is None:
        return fewest
    if batch // accum > limit:
        raise _problem(
            config,
            "Global.accum_steps",
            f"{accum} makes micro-batches of {batch // accum}, above "
            f"Global.micro_batch_size={limit} ({config.origin('Global.micro_batch_size')}); "
            f"write {fewest}, or leave accum_steps out",
        )
    return accum


def _problem(config: Config, path: str, message: str) -> ConfigError:
    return ConfigError(f"{config.origin(path)}: {path}: {message}")


def _near_multiples(number: int, step: int) -> str:
    below = number // step * step
    return f"{below} and {below + step}" if below else str(step)


def _divisors(number: int, *, most: int = 12) -> str:
    """The divisors of ``number``, at most ``most`` of them, smallest first."""
    found: list[str] = []
    candidate: Optional[int] = 1
    while candidate is not None and len(found) < most:
        found.append(str(candidate))
        candidate = next((n for n in range(candidate + 1, number + 1) if number % n == 0), None)
    return ", ".join(found)

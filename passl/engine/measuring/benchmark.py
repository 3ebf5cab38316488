"""How fast a config runs here: model, loader and step, alone and together.

Nothing is trained that anybody keeps: the parts are those of a real run, called one by one.  On an
accelerator, clocks are read after the device has done what was queued.
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Callable, Optional

import paddle

import passl
from passl.config import Config
from passl.data.loader import Batch
from passl.engine.build import Run
from passl.engine.hooks.int8_ranges import Int8Ranges
from passl.engine.measuring.benchmark_report import Report, Timing
from passl.engine.trainer import Trainer
from passl.models.summary import cost
from passl.optim.parallel import on_cpu
from passl.runtime import available_cores

__all__ = ["matmul_flops", "measure"]

#: Side of the matrices whose product is the yardstick.
_SIDE = 1536


def measure(run: Run, what: Sequence[str], steps: int, warm_up: int = 2) -> Report:
    """Measure parts of a run that was built to train and has not begun.

    Args:
        run: closed by the caller; its weights are not what they were afterwards.
        what: some of ``model``, ``loader``, ``step``, ``together``.
        steps: passes of each part that count.
        warm_up: passes before them that do not.
    """
    trainer = run.trainer
    assert trainer is not None  # built to train
    parts = trainer.parts
    for hook in parts.hooks:
        if isinstance(hook, Int8Ranges):  # without ranges nothing can be rounded
            hook.on_start(trainer)
    parts.model.train()
    report = Report(_about(run, trainer), num_processes=parts.world.size)
    report.peak_flops = matmul_flops(parts.precision.dtype if parts.precision.level != "O0" else "")
    batch = next(parts.loader.epoch(0))
    parts.loader.close()
    macs = _macs(run.config)
    if "model" in what:
        report.timings.update(_model(trainer, batch, macs, steps, warm_up))
    flops = None if macs is None else 6.0 * macs * batch.global_size
    if "step" in what:
        seconds = _seconds(lambda: trainer.train_step(batch), steps, warm_up)
        report.timings["step"] = _timing(seconds, batch.global_size, flops)
    if "loader" in what:
        report.timings["loader"] = _loader(trainer, steps, warm_up)
    if "together" in what:
        report.timings["together"] = _together(trainer, flops, steps, warm_up)
    report.memory = _memory()
    return report


def matmul_flops(dtype: str = "", side: int = _SIDE, rounds: int = 5) -> float:
    """Operations a second of the fastest product of two square matrices.

    Args:
        dtype: ``float16`` or ``bfloat16`` where the run computes in it; else float32.
    """
    left, right = (paddle.rand([side, side]).astype(dtype or "float32") for _ in range(2))
    seconds = _seconds(lambda: paddle.matmul(left, right), rounds, 1)
    return 2.0 * side**3 / min(seconds)


def _model(
    trainer: Trainer, batch: Batch, macs: Optional[int], steps: int, warm_up: int
) -> dict[str, Timing]:
    """Forward alone, and forward with loss (and a teacher) and backward, of one micro-batch."""
    parts = trainer.parts
    images, target = next(trainer.micro_batches(batch))
    count = int(target.shape[0])

    def forward() -> None:
        with paddle.no_grad(), parts.precision.autocast():
            parts.model(images)

    def forward_backward() -> None:
        parts.precision.backward(parts.forward(images, target)[1]["loss"])
        parts.optimizer.clear_grad()

    all_images = count * parts.world.size
    found = {}
    for work, share in ((forward, 2.0), (forward_backward, 6.0)):  # operations of a multiply-add
        flops = None if macs is None else share * macs * all_images
        found[work.__name__] = _timing(_seconds(work, steps, warm_up), all_images, flops)
    return found


def _loader(trainer: Trainer, steps: int, warm_up: int) -> Timing:
    """Batches as fast as they come; those that were prepared ahead do not count."""
    ahead = trainer.parts.loader.prefetch_batches + 1
    batches = _batches(trainer)
    for _ in range(warm_up + ahead):
        next(batches)
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        size = next(batches).global_size
        seconds.append(time.perf_counter() - start)
    trainer.parts.loader.close()
    return Timing(statistics.fmean(seconds), min(seconds), max(seconds), size)


def _together(trainer: Trainer, flops: Optional[float], steps: int, warm_up: int) -> Timing:
    """Steps on batches from the loader, as in training."""
    batches, seconds, waited = _batches(trainer), [], 0.0
    size = 0
    for number in range(warm_up + steps):
        start = time.perf_counter()
        batch = next(batches)
        trainer.train_step(batch)
        _wait_for_device()
        if number >= warm_up:
            seconds.append(time.perf_counter() - start)
            waited += batch.wait_s
            size = batch.global_size
    trainer.parts.loader.close()
    mean = statistics.fmean(seconds)
    return Timing(mean, min(seconds), max(seconds), size, flops, waited / steps)


def _batches(trainer: Trainer) -> Iterator[Batch]:
    """Full batches without end: a last one that is smaller would count as faster."""
    epoch, full = 0, trainer.plan.global_batch_size
    while True:
        for batch in trainer.parts.loader.epoch(epoch):
            if batch.global_size == full or trainer.parts.loader.num_batches == 1:
                yield batch
        epoch += 1


def _seconds(work: Callable[[], object], times: int, warm_up: int) -> list[float]:
    for _ in range(warm_up):
        work()
    seconds = []
    for _ in range(times):
        _wait_for_device()
        start = time.perf_counter()
        work()
        _wait_for_device()
        seconds.append(time.perf_counter() - start)
    return seconds


def _timing(seconds: Sequence[float], images: int, flops: Optional[float]) -> Timing:
    return Timing(statistics.median(seconds), min(seconds), max(seconds), images, flops)


def _wait_for_device() -> None:
    if not on_cpu():
        paddle.device.synchronize()


def _memory() -> dict[str, int]:
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    memory = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if not on_cpu() and paddle.device.is_compiled_with_cuda():
        memory["device"] = int(paddle.device.cuda.max_memory_allocated())
    return memory


def _macs(config: Config) -> Optional[int]:
    arguments = {key: value for key, value in config.Model.items() if key != "name"}
    found = cost(config.Model["name"], arguments)
    return None if found is None else found.macs


def _about(run: Run, trainer: Trainer) -> dict[str, object]:
    parts, plan = trainer.parts, trainer.plan
    teacher = {} if parts.distillation is None else {"teacher": parts.distillation.teacher.name}
    return {
        "model": run.config.Model["name"],
        **teacher,
        "config": str(run.config.source_path),
        "passl": passl.__version__,
        "paddle": paddle.__version__,
        "device": str(paddle.device.get_device()),
        "precision": parts.precision.describe(),
        "threads": os.environ.get("OMP_NUM_THREADS", "-"),
        "cores": available_cores(),
        "num_workers": parts.loader.num_workers,
        "images of a step": plan.global_batch_size,
        "images of a pass": plan.micro_batch_size,
    }

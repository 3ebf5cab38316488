"""Milliseconds of an optimizer step with the 86.6 million parameters of ViT-B: ours and stock.

    python benchmarks/optimizer_step.py            # 1 and 2 threads, about a minute
    python benchmarks/optimizer_step.py --threads 1 --rounds 9

The variants of one table take turns in one process, so that whatever else the machine does falls on
all of them; the figures are medians over the rounds, with the fastest round in brackets.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from measured import measured

from passl import runtime

Step = Callable[[], object]


def main(argv: Sequence[str] | None = None) -> int:
    """Print one table a thread count, each from a process of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.inside:
        report(options.threads[0], measure(options.threads[0], options.rounds))
        return 0
    print(f"{measured()}; load {os.getloadavg()[0]:.1f} at the start.", flush=True)
    for threads in options.threads:
        command = [sys.executable, __file__, "--inside", "--threads", str(threads)]
        subprocess.run([*command, "--rounds", str(options.rounds)], check=True)
    return 0


def vit_base_shapes(dim: int = 768, depth: int = 12, classes: int = 1000) -> list[list[int]]:
    """Shapes of the parameters of ViT-B/16 at 224, in Paddle's layout."""
    block = [[dim], [dim], [dim, 3 * dim], [3 * dim], [dim, dim], [dim]]
    block += [[dim], [dim], [dim, 4 * dim], [4 * dim], [4 * dim, dim], [dim]]
    ends = [[1, 1, dim], [1, 197, dim], [dim, 3, 16, 16], [dim], [dim], [dim]]
    return [*ends, *block * depth, [dim, classes], [classes]]


def measure(threads: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round of each variant."""
    runtime.prepare(num_threads=threads, device="cpu")
    runtime.import_paddle()
    variants = build_variants()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for step in variants.values():
        step()  # the first step makes the accumulators
    for _ in range(rounds):
        for name, step in variants.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def build_variants() -> dict[str, Step]:
    """What takes turns: stock and ours, with and without clipping, and clipping alone."""
    import paddle

    from passl.optim.adamw import AdamW
    from passl.optim.clip import ClipGradByGlobalNorm
    from passl.optim.groups import build_param_groups
    from passl.optim.momentum import Momentum
    from passl.precision.ema import WeightAverage

    paddle.seed(0)
    parameters = [paddle.create_parameter(shape, "float32") for shape in vit_base_shapes()]
    for parameter in parameters:
        parameter.grad = paddle.randn(parameter.shape)
    named = [(f"p{i}", parameter) for i, parameter in enumerate(parameters)]
    groups = build_param_groups(named, weight_decay=0.3)

    stock_clip = paddle.nn.ClipGradByGlobalNorm(1e9)  # never reached: its cost is the same
    clip, reached = ClipGradByGlobalNorm(1e9), ClipGradByGlobalNorm(1.0)
    options = {"parameters": parameters, "weight_decay": 0.3}
    stock = paddle.optimizer.AdamW(1e-4, **options)
    stock_clipped = paddle.optimizer.AdamW(1e-4, grad_clip=stock_clip, **options)
    stock_momentum = paddle.optimizer.Momentum(1e-4, **options)
    adamw, momentum = AdamW(groups=groups), Momentum(groups=groups)

    model = paddle.nn.Layer()
    for name, parameter in named:
        model.add_parameter(name, parameter)
    average = WeightAverage(model, adamw.named_weights)
    accepted = paddle.to_tensor(True)

    def masked() -> None:
        adamw.step(1e-4, accepted)
        adamw.settle([True])

    def clip_when_reached() -> None:
        reached(named)
        for parameter in parameters[:4]:  # keep the norm above the limit at next to no cost
            parameter.grad.scale_(1e6)

    def clip_and_step() -> None:
        clip(named)
        adamw.step(1e-4)

    return {
        "AdamW, stock": stock.step,
        "AdamW, ours": lambda: adamw.step(1e-4),
        "AdamW, ours, masked as on an accelerator": masked,
        "average of the weights (EMA)": average.update,
        "AdamW with clipping, stock": stock_clipped.step,
        "AdamW with clipping, ours": clip_and_step,
        "clipping alone, stock": lambda: stock_clip([(p, p.grad) for p in parameters]),
        "clipping alone, ours": lambda: clip(named),
        "clipping alone, ours, norm above the limit": clip_when_reached,
        "Momentum, stock": stock_momentum.step,
        "Momentum, ours": lambda: momentum.step(1e-4),
    }


def report(threads: int, seconds: dict[str, list[float]]) -> None:
    """Print the table of one thread count."""
    print(f"ViT-B/16, ms a step, {threads} thread{'s' if threads > 1 else ''}: median (fastest)")
    for name, rounds in seconds.items():
        print(f"  {name:44s} {statistics.median(rounds) * 1e3:7.1f} ({min(rounds) * 1e3:.1f})")


if __name__ == "__main__":
    raise SystemExit(main())

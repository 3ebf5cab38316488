"""Peak memory of an optimizer step with the 86.6 million parameters of ViT-B, beside its minimum.

    python benchmarks/optimizer_memory.py          # a process for each optimizer, about a minute

The minimum is what must be in memory during the step: weights, gradients and the optimizer's
state, four bytes a number.  The peak is that of the process (``ru_maxrss``) less what it was once
Paddle was loaded, after two steps with clipping, which multiplies the gradients.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from measured import measured
from optimizer_step import vit_base_shapes

from passl import runtime

#: name -> arguments beside the groups; ``stock`` is Paddle's AdamW with Paddle's clipping
CASES: dict[str, dict[str, Any]] = {
    "stock": {},
    "AdamW": {},
    "Momentum": {},
    "SGD": {},
    "Lion": {},
    "Adan": {},
    "LARS": {},
    "Lamb": {},
    "Adafactor": {},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line an optimizer."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(CASES), metavar="NAME")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.inside:
        minimum, peak = measure(options.names[0])
        print(
            f"| {options.names[0]} | {minimum / 2**20:,.0f} | {peak / 2**20:,.0f} "
            f"| {peak / minimum:.3f} |"
        )
        return 0
    print(f"{measured()}.\n\n| optimizer | minimum, MiB | peak, MiB | ratio |")
    print("|---|---:|---:|---:|", flush=True)
    for name in options.names:
        subprocess.run([sys.executable, "-W", "ignore", __file__, "--inside", name], check=True)
    return 0


def measure(name: str) -> tuple[int, int]:
    """(minimum, peak) in bytes, both without Paddle itself."""
    runtime.prepare(num_threads=1, device="cpu")
    paddle = runtime.import_paddle()
    paddle.ones([8]).sum().item()
    before = _peak()
    # Made one by one and never copied: an initialiser must not be what the peak shows.
    parameters = [paddle.full(shape, 0.5, dtype="float32") for shape in vit_base_shapes()]
    for parameter in parameters:
        parameter.stop_gradient = False
        parameter.grad = paddle.full(parameter.shape, 1e-3, dtype="float32")
    step, state = _stock(parameters) if name == "stock" else _ours(name, parameters)
    for _ in range(2):
        step()
    numbers = sum(int(parameter.size) for parameter in parameters)
    return 4 * (2 * numbers + state(numbers)), _peak() - before


def _ours(name: str, parameters: list[Any]) -> tuple[Callable[[], None], Callable[[int], int]]:
    from passl.optim.clip import ClipGradByGlobalNorm
    from passl.optim.groups import build_param_groups
    from passl.registry import OPTIMIZERS

    named = [(f"p{i}", parameter) for i, parameter in enumerate(parameters)]
    groups = build_param_groups(named, weight_decay=0.05)
    optimizer = OPTIMIZERS.build({"name": name, **CASES[name]}, groups=groups)
    clip = ClipGradByGlobalNorm(1.0)
    kept = sum(int(value.size) for key, value in optimizer.state_dict().items() if "/" in key)

    def step() -> None:
        clip(named)
        optimizer.step(1e-4)

    return step, lambda _numbers: kept


def _stock(parameters: list[Any]) -> tuple[Callable[[], None], Callable[[int], int]]:
    import paddle

    trained = []
    for parameter in parameters:  # Paddle's optimizers take its own class of parameters only
        wrapped = paddle.base.framework.EagerParamBase.from_tensor(parameter)
        wrapped.grad = parameter.grad
        trained.append(wrapped)
    parameters[:] = trained
    optimizer = paddle.optimizer.AdamW(
        1e-4, parameters=trained, weight_decay=0.05, grad_clip=paddle.nn.ClipGradByGlobalNorm(1.0)
    )
    return optimizer.step, lambda numbers: 2 * numbers


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    raise SystemExit(main())

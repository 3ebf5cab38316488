"""Seconds per training step: Paddle as it comes, against what PASSL makes of it.

    python benchmarks/train_step.py                      # prints a table; about ten minutes
    python benchmarks/train_step.py --models ti --rounds 3
    python benchmarks/train_step.py --with-torch         # timm's model, where torch and timm are
    python benchmarks/train_step.py --each-setting       # what each of the settings is worth
    python benchmarks/train_step.py --save benchmarks/README.md

A step is forward, cross entropy, backward and an AdamW update, in float32, on random images that
are already in memory.  Each contestant is a process of its own which stays alive; they take turns,
a few steps each, so that a busy minute of the machine hits all of them.  Medians over the turns.

- `stock`: the model of `stock_vit.py`, `paddle.optimizer.AdamW`, Paddle's defaults (one thread);
- `settings`: the same code after `passl.runtime.prepare()`; with `--each-setting` also with some of
  the settings only (`settings:threads,stride`);
- `passl`: PASSL's model and optimizer as `passl-train` builds them, with its settings;
- `torch`: timm's model and `torch.optim.AdamW`, with as many threads as PASSL takes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

from marks import put_table
from measured import measured

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parent)]

# What would make a contestant something other than its name says.
_OURS_TO_SET = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "MKL_DEBUG_CPU_TYPE", "PASSL_TUNE")
_PARTS = ("threads", "threads,stride", "threads,malloc", "threads,mkl")


@dataclass(frozen=True)
class Case:
    """One model and batch.

    Attributes:
        title: for the table.
        arguments: of both models.
        batch_size: images of one step.
        steps: how many make a turn of one or two seconds.
        num_threads: as its config asks; None chooses by the machine.
    """

    title: str
    arguments: dict[str, Any]
    batch_size: int
    steps: int
    num_threads: Optional[int] = None


def _vit(embed_dim: int, num_heads: int) -> dict[str, Any]:
    return {
        "img_size": 224, "patch_size": 16, "in_chans": 3, "class_num": 1000,
        "embed_dim": embed_dim, "depth": 12, "num_heads": num_heads, "mlp_ratio": 4.0,
    }


CASES = {
    "ti": Case("ViT-Ti/16, batch 8", _vit(192, 3), 8, 2),
    "s": Case("ViT-S/16, batch 4", _vit(384, 6), 4, 2),
    "b": Case("ViT-B/16, batch 2", _vit(768, 12), 2, 1),
    "quickstart": Case(
        "quick start (8 px, dim 48, depth 2), batch 64",
        {
            "img_size": 8, "patch_size": 2, "in_chans": 1, "class_num": 10,
            "embed_dim": 48, "depth": 2, "num_heads": 4, "mlp_ratio": 2.0,
        },
        64,
        50,
        num_threads=1,
    ),
}


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description="Seconds per training step, as a table.")
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contestant")
    parser.add_argument("--with-torch", action="store_true", help="measure timm's model as well")
    parser.add_argument("--each-setting", action="store_true", help="also one setting at a time")
    parser.add_argument("--save", metavar="FILE", help="put the table between the marks of FILE")
    parser.add_argument("--worker", nargs=2, metavar=("KIND", "MODEL"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.worker:
        return _work(*options.worker)
    kinds = ["stock", "settings", "passl", *(["torch"] if options.with_torch else [])]
    if options.each_setting:
        kinds[1:1] = [f"settings:{names}" for names in _PARTS]
    table = _table(options.models, kinds, options.rounds)
    print(table)
    if options.save:
        put_table(Path(options.save), "train_step", table)
    return 0


# -- the driver ------------------------------------------------------------------------------


def _table(models: Sequence[str], kinds: Sequence[str], rounds: int) -> str:
    rows = []
    descriptions: dict[str, str] = {}
    for model in models:
        case = CASES[model]
        print(f"{case.title}: {rounds} rounds of {', '.join(kinds)}", file=sys.stderr)
        times = _duel(model, kinds, rounds, descriptions)
        stock = statistics.median(times["stock"])
        for kind in kinds:
            median = statistics.median(times[kind])
            spread = f"{min(times[kind]):.3f} to {max(times[kind]):.3f}"
            rows.append(
                f"| {case.title} | {kind} | {median:.3f} | {spread} "
                f"| {case.batch_size / median:.1f} | {stock / median:.2f} |"
            )
    return "\n".join([
        f"{measured('passl', 'numpy', *(['torch', 'timm'] if 'torch' in kinds else []))}; "
        f"medians of {rounds} interleaved rounds; load before: {os.getloadavg()[0]:.1f}.",
        "",
        *(f"- {kind}: {text}" for kind, text in descriptions.items()),
        "",
        "| model | contestant | s/step | min to max | images/s | times stock |",
        "|---|---|---:|---:|---:|---:|",
        *rows,
    ])


def _duel(
    model: str, kinds: Sequence[str], rounds: int, descriptions: dict[str, str]
) -> dict[str, list[float]]:
    """Seconds per step of each contestant, one number a round."""
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    with contextlib.ExitStack() as stack:
        workers = {kind: stack.enter_context(_worker(kind, model)) for kind in kinds}
        for kind, ask in workers.items():
            said = ask(0)["describe"]
            if CASES[model].num_threads is not None and kind != "stock":
                said, kind = f"{said} ({CASES[model].title})", f"{kind}, {model}"
            descriptions[kind] = said
        for _ in range(rounds):
            for kind, ask in workers.items():
                times[kind].append(ask(CASES[model].steps)["seconds"])
    return times


@contextlib.contextmanager
def _worker(kind: str, model: str) -> Iterator[Callable[[int], dict[str, Any]]]:
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in _OURS_TO_SET and not key.startswith(("FLAGS_", "MALLOC_"))
    }
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", __file__, "--worker", kind, model],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def ask(steps: int) -> dict[str, Any]:
        stdin.write(f"{steps}\n")
        stdin.flush()
        answer = stdout.readline()
        if not answer:
            raise SystemExit(f"the worker {kind} {model} ended with status {process.wait()}")
        reply: dict[str, Any] = json.loads(answer)
        return reply

    try:
        yield ask
    finally:
        stdin.close()
        process.wait(timeout=60)


# -- a worker --------------------------------------------------------------------------------


def _work(kind: str, model: str) -> int:
    """Answer each number of steps on stdin with the seconds that one of them took."""
    kind, _, names = kind.partition(":")
    if names:
        os.environ["PASSL_TUNE"] = names
    step, describe = _CONTESTANTS[kind](CASES[model])
    for _ in range(2):  # first allocations, first choice of kernels
        step()
    for line in sys.stdin:
        steps = int(line)
        start = time.perf_counter()
        for _ in range(steps):
            step()
        seconds = (time.perf_counter() - start) / max(1, steps)
        print(json.dumps({"seconds": seconds, "describe": describe}), flush=True)
    return 0


_Contestant = tuple[Callable[[], float], str]


def _paddle_data(case: Case) -> tuple[Any, Any]:
    import paddle

    images, labels = _numpy_data(case)
    return paddle.to_tensor(images), paddle.to_tensor(labels)


def _numpy_data(case: Case) -> tuple[Any, Any]:
    import numpy as np

    rng = np.random.default_rng(0)
    size, channels = case.arguments["img_size"], case.arguments["in_chans"]
    images = rng.standard_normal((case.batch_size, channels, size, size)).astype(np.float32)
    return images, rng.integers(0, case.arguments["class_num"], case.batch_size)


def _stock(case: Case) -> _Contestant:
    return _stock_code(case), "Paddle's defaults"


def _settings(case: Case) -> _Contestant:
    from passl import runtime

    settings = runtime.prepare(case.num_threads)
    return _stock_code(case), f"the same code; {settings.describe()}"


def _stock_code(case: Case) -> Callable[[], float]:
    from passl import runtime

    paddle = runtime.import_paddle()
    from stock_vit import StockViT

    paddle.seed(0)
    model = StockViT(**case.arguments)
    optimizer = paddle.optimizer.AdamW(1e-4, parameters=model.parameters(), weight_decay=0.05)
    images, labels = _paddle_data(case)

    def step() -> float:
        loss = paddle.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        return float(loss)

    return step


def _passl(case: Case) -> _Contestant:
    from passl import runtime

    settings = runtime.prepare(case.num_threads)
    runtime.import_paddle()
    from passl.losses.cross_entropy import CELoss
    from passl.models import create_model
    from passl.optim.adamw import AdamW
    from passl.optim.groups import build_param_groups

    model = create_model(
        "VisionTransformer", qkv_bias=True, epsilon=1e-6, init_scheme="timm", **case.arguments
    )
    groups = build_param_groups(model.named_parameters(), weight_decay=0.05)
    optimizer, criterion = AdamW(groups=groups), CELoss()
    images, labels = _paddle_data(case)

    def step() -> float:
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step(1e-4)
        optimizer.clear_grad()
        return float(loss)

    return step, f"PASSL's model and optimizer; {settings.describe()}"


def _torch(case: Case) -> _Contestant:
    from passl.runtime import available_cores

    try:
        import torch
        from timm.models.vision_transformer import VisionTransformer
    except ImportError as error:
        raise SystemExit(f"--with-torch needs torch and timm: {error}") from error
    torch.set_num_threads(case.num_threads or available_cores())
    torch.manual_seed(0)
    arguments = dict(case.arguments)
    arguments["num_classes"] = arguments.pop("class_num")
    model = VisionTransformer(**arguments)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05)
    images, labels = (torch.from_numpy(array) for array in _numpy_data(case))

    def step() -> float:
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss)

    return step, f"timm, {torch.get_num_threads()} threads"


_CONTESTANTS: dict[str, Callable[[Case], _Contestant]] = {
    "stock": _stock,
    "settings": _settings,
    "passl": _passl,
    "torch": _torch,
}

if __name__ == "__main__":
    sys.exit(main())

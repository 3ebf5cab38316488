"""Several processes on one CPU: sums of ViT-B's gradients, steps of two processes, recomputation.

    python benchmarks/data_parallel.py              # about five minutes
    python benchmarks/data_parallel.py --rounds 9 --parts gradients steps memory

gradients: two processes over Gloo sum the 86.6 million gradients of ViT-B/16; the ways of doing so
take turns in one pair of processes.  steps: training steps of ViT-Ti/16 on the same global batch,
by two processes with half of it each and by one of them alone, in turns; one thread a process.
memory: the peak of a process that trains ViT-S/16, with and without recomputed blocks.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from measured import measured

from passl import runtime

GLOBAL_BATCH = 8
MEMORY_BATCH = 16


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables of the chosen parts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parts = ("gradients", "steps", "memory")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--inside", choices=(*parts, "recompute"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.inside in ("gradients", "steps"):
        return _inside_pair(options.inside, options.rounds)
    if options.inside:
        print(json.dumps(_train_alone(options.inside == "recompute", options.rounds)))
        return 0
    print(f"{measured()}; load before: {os.getloadavg()[0]:.1f}.")
    for part in options.parts:
        _report_memory(options.rounds) if part == "memory" else _pair(part, options.rounds)
    return 0


def _pair(part: str, rounds: int) -> None:
    """Two processes that find each other as under the launcher; the first one prints."""
    endpoints = [f"127.0.0.1:{_free_port()}" for _ in range(2)]
    processes = []
    for rank in range(2):
        environment = {
            **os.environ,
            "PADDLE_TRAINER_ID": str(rank),
            "PADDLE_TRAINERS_NUM": "2",
            "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints),
            "PADDLE_CURRENT_ENDPOINT": endpoints[rank],
            "PADDLE_MASTER": endpoints[0],
            "PADDLE_DISTRI_BACKEND": "gloo",
        }
        command = [sys.executable, "-W", "ignore", __file__, "--inside", part]
        out = None if rank == 0 else subprocess.DEVNULL
        processes.append(
            subprocess.Popen(
                [*command, "--rounds", str(rounds)], env=environment, stdout=out,
                stderr=subprocess.DEVNULL,
            )
        )  # fmt: skip
    ended = [process.wait() for process in processes]
    if any(ended):
        raise SystemExit(f"a process of the part {part} failed")


def _inside_pair(part: str, rounds: int) -> int:
    runtime.prepare(num_threads=1, device="cpu")
    paddle = runtime.import_paddle()
    from passl.distributed.collectives import init_world
    from passl.distributed.world import read_world

    world = read_world()
    init_world(world)
    variants = _gradient_variants(world) if part == "gradients" else _step_variants(world)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):  # the first round only warms up
        for name, run in variants.items():
            paddle.distributed.barrier()
            start = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - start)
    if world.is_main:
        first = statistics.median(next(iter(seconds.values())))
        print(f"\n| {part} | ms, median | fastest | part of the first |\n|---|---:|---:|---:|")
        for name, values in seconds.items():
            middle = statistics.median(values)
            ratio = f"{middle / first:.2f}"
            print(f"| {name} | {middle * 1e3:.0f} | {min(values) * 1e3:.0f} | {ratio} |")
    return 0


def _gradient_variants(world: Any) -> dict[str, Callable[[], object]]:
    import paddle
    from optimizer_step import vit_base_shapes

    from passl.distributed.reducer import GradientReducer

    parameters = [
        (str(number), paddle.create_parameter(shape, "float32"))
        for number, shape in enumerate(vit_base_shapes())
    ]
    for _, parameter in parameters:
        parameter.grad = paddle.full(parameter.shape, 1e-3)
    fused = GradientReducer(parameters, world)
    large = GradientReducer(parameters, world, buffer_numel=10**9)
    flats = [
        paddle.concat([parameter.grad.flatten() for parameter in bucket.parameters])
        for bucket in fused.buckets
    ]

    def each() -> None:
        for _, parameter in parameters:
            paddle.distributed.all_reduce(parameter.grad)

    def travel() -> None:
        for flat in flats:
            paddle.distributed.all_reduce(flat)

    return {
        f"one all-reduce a parameter ({len(parameters)})": each,
        f"fused, {len(fused.buckets)} buffers of up to 32 MiB, copies included": fused.finish,
        "fused, one buffer": large.finish,
        "the buffers alone, without the copies": travel,
    }


def _step_variants(world: Any) -> dict[str, Callable[[], object]]:
    from passl.distributed.world import World

    alone = _Training("ViT_tiny_patch16_224", World(), GLOBAL_BATCH)
    shared = _Training("ViT_tiny_patch16_224", world, GLOBAL_BATCH // world.size)

    def one() -> None:
        if world.is_main:
            alone.step()

    return {
        f"one process, {GLOBAL_BATCH} images": one,
        f"two processes, {GLOBAL_BATCH // 2} images each": shared.step,
    }


class _Training:
    """A model with what a step needs, on random images."""

    def __init__(self, name: str, world: Any, batch: int, recompute: bool = False) -> None:
        import paddle

        from passl.distributed.reducer import GradientReducer
        from passl.losses.cross_entropy import CELoss
        from passl.models import create_model
        from passl.optim.adamw import AdamW
        from passl.optim.groups import build_param_groups

        self.model: Any = create_model(name, class_num=1000)
        self.model.recompute_every = int(recompute)
        self.model.train()
        parameters = list(self.model.named_parameters())
        self.optimizer = AdamW(groups=build_param_groups(parameters, weight_decay=0.3))
        self.reducer = GradientReducer(parameters, world)
        self.loss = CELoss()
        self.images = paddle.randn([batch, 3, 224, 224])
        self.target = paddle.zeros([batch], dtype="int64")

    def step(self) -> None:
        """Forward, backward, sum, update."""
        loss = self.loss(self.model(self.images), self.target)
        self.reducer.arm()
        loss.backward()
        self.reducer.finish()
        self.optimizer.step(1e-3)
        self.optimizer.clear_grad()


def _train_alone(recompute: bool, rounds: int) -> dict[str, float]:
    """Peak memory in MiB, over what it was before the first step, and seconds a step."""
    runtime.prepare(num_threads=1, device="cpu")
    runtime.import_paddle()
    from passl.distributed.world import World

    training = _Training("ViT_small_patch16_224", World(), MEMORY_BATCH, recompute)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        training.step()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"mib": (peak - before) / 1024, "s": statistics.median(seconds)}


def _report_memory(rounds: int) -> None:
    found = {}
    for name in ("memory", "recompute"):
        command = [sys.executable, "-W", "ignore", __file__, "--inside", name]
        command += ["--rounds", str(max(rounds // 2, 2))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
    plain, again = found["memory"], found["recompute"]
    print(f"\n| ViT-S/16, {MEMORY_BATCH} images | plain | recomputed | ratio |")
    print("|---|---:|---:|---:|")
    for key, what in (("mib", "MiB of a step"), ("s", "seconds a step")):
        ratio = again[key] / plain[key]
        print(f"| {what} | {plain[key]:.1f} | {again[key]:.1f} | {ratio:.2f} |")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    raise SystemExit(main())

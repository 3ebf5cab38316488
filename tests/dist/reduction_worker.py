"""A worker of test_reduction.py: what gradients, optimizers and sums are on this rank.

reduction_worker.py FOLDER     writes FOLDER/<rank>.npz
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from passl.runtime import import_paddle, prepare

prepare()
import_paddle()

import numpy as np  # noqa: E402
import paddle  # noqa: E402
from paddle import nn  # noqa: E402

from passl.distributed.collectives import (  # noqa: E402
    check_equal,
    init_world,
    sum_integers,
)
from passl.distributed.reducer import GradientReducer  # noqa: E402
from passl.distributed.world import read_world  # noqa: E402
from passl.engine.sharding import ShardedOptimizer  # noqa: E402
from passl.errors import PasslError  # noqa: E402
from passl.layers.init import init_seed  # noqa: E402
from passl.layers.linear import Linear  # noqa: E402
from passl.layers.recompute import run_blocks  # noqa: E402
from passl.optim.adafactor import Adafactor  # noqa: E402
from passl.optim.adamw import AdamW  # noqa: E402
from passl.optim.groups import ParamGroup  # noqa: E402
from passl.optim.momentum import Momentum  # noqa: E402

WORLD = read_world()
STEPS, PASSES = 4, 3
OPTIMIZERS = (AdamW, Momentum, Adafactor)


class Net(nn.Layer):
    """Blocks that share a layer, a layer that only even ranks use, and one that nobody uses."""

    def __init__(self) -> None:
        super().__init__()
        with init_seed(0):
            self.never = Linear(6, 6)
            self.sometimes = Linear(6, 6)
            self.first = Linear(6, 6)
            self.shared = Linear(6, 6)
            self.last = Linear(6, 3)
        draw = np.random.RandomState(5)
        for parameter in self.parameters():
            parameter.set_value(draw.normal(size=parameter.shape).astype("float32"))
        self.recompute_every = 0

    def forward(self, x: Any) -> Any:
        if WORLD.rank % 2 == 0:
            x = self.sometimes(x)
        x = self.first(x)
        blocks = [lambda y: self.shared(y).tanh(), lambda y: self.shared(y).tanh()]
        return self.last(run_blocks(blocks, x, recompute_every=self.recompute_every))


def gradients(overlap: bool, recompute: bool) -> dict[str, np.ndarray]:
    """Summed gradients of a few steps; in the third one the last rank has no samples."""
    net = Net()
    net.recompute_every = int(recompute)
    reducer = GradientReducer(list(net.named_parameters()), WORLD, overlap, buffer_numel=40)
    assert len(reducer.buckets) > 4
    found: dict[str, np.ndarray] = {}
    sent_early = []
    reducer._send, send = lambda upto: (sent_early.append(upto), send(upto)), reducer._send
    for step in range(STEPS):
        draw = np.random.RandomState(100 * step + WORLD.rank)
        passes = 0 if step == 2 and WORLD.rank == WORLD.size - 1 else PASSES
        for number in range(passes):
            x = paddle.to_tensor(draw.normal(size=[4, 6]).astype("float32"))
            if number == passes - 1:
                reducer.arm()
            net(x).square().mean().backward()
        local = {n: p.grad.numpy().copy() for n, p in net.named_parameters() if p.grad is not None}
        found.update({f"local/{step}/{n}": g for n, g in local.items()} if not overlap else {})
        early = max(sent_early, default=0)
        # The first step only learns; a bucket of what this rank never used stays to the end.
        used = 6 if WORLD.rank % 2 == 0 else 4
        assert early == (0 if not overlap or step == 0 or not passes else used), (early, step)
        reducer.finish()
        sent_early.clear()
        for name, parameter in net.named_parameters():
            if parameter.grad is not None:
                found[f"{step}/{name}"] = parameter.grad.numpy()
            parameter.clear_gradient(False)
    return found


def late() -> str:
    """What this rank says of a parameter that a later step uses more often than the first one."""
    net = Net()
    reducer = GradientReducer(list(net.named_parameters()), WORLD, True, buffer_numel=40)
    for every in (0, 1):  # recomputed, a shared layer gets its gradient in two pieces
        net.recompute_every = every
        reducer.arm()
        net(paddle.ones([2, 6])).mean().backward()
        try:
            reducer.finish()
        except PasslError as error:
            return str(error)
    return ""


def trained(
    kind: Any, sharded: bool
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Weights and optimizer state after a few steps, with a stop and a start in between."""
    net = Net()
    names = list(net.named_parameters())
    groups = [ParamGroup("a", names[:4], 0.1, 1.0), ParamGroup("b", names[4:], 0.0, 0.5)]
    reducer = GradientReducer(names, WORLD)

    def make() -> Any:
        if sharded:
            return ShardedOptimizer(groups, lambda some: kind(groups=some), WORLD)
        return kind(groups=groups)

    def state_of(optimizer: Any) -> dict[str, np.ndarray]:
        if sharded:
            optimizer.gather_state()
        return {k: np.asarray(v.numpy() if hasattr(v, "numpy") else v)
                for k, v in optimizer.state_dict().items()}  # fmt: skip

    optimizer = make()
    for step in range(STEPS):
        draw = np.random.RandomState(step + 10 * WORLD.rank)
        net(paddle.to_tensor(draw.normal(size=[4, 6]).astype("float32"))).mean().backward()
        reducer.finish()
        optimizer.step(0.01)
        optimizer.clear_grad()
        if step == 1:
            whole = state_of(optimizer)
            if sharded:  # every rank reads the file that the main one wrote
                shared: list[Any] = [whole]
                paddle.distributed.broadcast_object_list(shared, src=0)
                whole = shared[0]
            optimizer = make()
            optimizer.load_state_dict(whole)
    return {n: p.numpy() for n, p in net.named_parameters()}, state_of(optimizer)


def difference() -> str:
    """What is said when one tensor of several differs on one rank."""
    tensors = {name: paddle.full([3], 1.0) for name in ("a", "b", "c")}
    check_equal(tensors, WORLD, "?")
    tensors["b"][1] += 1e-7 * (WORLD.rank == 1)
    try:
        check_equal(tensors, WORLD, "Look there.")
    except PasslError as error:
        return str(error)
    return ""


def main() -> None:
    init_world(WORLD)
    found: dict[str, np.ndarray] = {}
    for overlap in (False, True):
        for recompute in (False, True):
            for name, value in gradients(overlap, recompute).items():
                found[f"grad/{overlap}/{recompute}/{name}"] = value
    for kind in OPTIMIZERS:
        for sharded in (False, True):
            weights, state = trained(kind, sharded)
            where = f"{kind.__name__}/{sharded}"
            found.update({f"weights/{where}/{n}": v for n, v in weights.items()})
            found.update({f"state/{where}/{n}": v for n, v in state.items()})
    found["late"] = np.array(late())
    found["difference"] = np.array(difference())
    found["big"] = sum_integers(np.array([2**60 + WORLD.rank]), WORLD)
    np.savez(Path(sys.argv[1]) / f"{WORLD.rank}.npz", **found)


if __name__ == "__main__":
    main()

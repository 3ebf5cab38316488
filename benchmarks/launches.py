"""Operators that one training step of ViT-Ti launches: ours against PASSL's way of writing it.

    python benchmarks/launches.py

The number of launches decides the speed of a small batch on a GPU.  It is counted with Paddle's
profiler, on the CPU but with the code that a GPU runs: without our CPU kernels, and with the update
and the clipping that are chosen there.  "PASSL's way" is a plain re-expression: a joint
query-key-value tensor that is indexed three times, scores scaled after the product, a norm and a
product a parameter for clipping, and one AdamW call a parameter.  Half precision, and the fused
attention and linear layers that there are for it, are not part of the comparison.  One operator on
many tensors counts once; on a GPU the multi-tensor AdamW makes a launch for each 60 tensors or
320 chunks of 65536 numbers (3 for ViT-Ti, 6 for ViT-B), where a call a parameter makes 152.  Our
update is one that the device may turn down, for gradients that are not finite; PASSL's never is.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parent)]

SIZES: dict[str, Any] = {
    "img_size": 224, "patch_size": 16, "in_chans": 3, "class_num": 1000,
    "embed_dim": 192, "depth": 12, "num_heads": 3, "mlp_ratio": 4.0,
}


def main() -> int:
    """Count and print; returns the exit status."""
    from passl import runtime

    runtime.prepare()
    runtime.import_paddle()
    print("| operators a step | forward and backward | clipping | update |")
    print("|---|---:|---:|---:|")
    for name, parts in (("PASSL's way", passl_parts(SIZES)), ("ours", our_parts(SIZES))):
        print(f"| {name} | " + " | ".join(str(count) for count in launches(*parts)) + " |")
    return 0


Parts = tuple[Callable[[], Any], Callable[[], Any], Callable[[], Any]]


def launches(*parts: Callable[[], Any]) -> list[int]:
    """Kernels launched by each of the functions, which run once before without being counted."""
    for part in parts:
        part()
    return [_launches(part) for part in parts]


def _launches(run: Callable[[], Any]) -> int:
    from paddle import profiler

    with tempfile.TemporaryDirectory() as folder:
        recorder = profiler.Profiler(
            targets=[profiler.ProfilerTarget.CPU],
            on_trace_ready=profiler.export_chrome_tracing(folder),
        )
        recorder.start()
        run()
        recorder.stop()
        nodes = [
            node
            for thread in recorder.profiler_result.get_data().values()
            for node in _below(thread)
        ]
    # " compute" is what Paddle 2.6 calls it
    return sum(node.name.endswith((" kernel launch", " compute")) for node in nodes)


def _below(node: Any) -> list[Any]:
    return [node, *(found for child in node.children_node for found in _below(child))]


def _batch(sizes: dict[str, Any]) -> tuple[Any, Any]:
    import paddle

    rng = np.random.default_rng(0)
    side = sizes["img_size"]
    images = rng.standard_normal((2, sizes["in_chans"], side, side)).astype(np.float32)
    return paddle.to_tensor(images), paddle.to_tensor(rng.integers(0, sizes["class_num"], 2))


def our_parts(sizes: dict[str, Any]) -> Parts:
    """Forward and backward, clipping, update, as ``passl-train`` on a GPU."""
    import paddle

    from passl.layers.cpu_kernels import cpu_kernels
    from passl.losses.cross_entropy import CELoss
    from passl.models import create_model
    from passl.optim.adamw import AdamW
    from passl.optim.clip import ClipGradByGlobalNorm
    from passl.optim.groups import build_param_groups

    model = create_model("VisionTransformer", qkv_bias=True, **sizes)
    on_a_gpu = mock.patch.multiple(
        "passl.optim.kernel_choice", on_cpu=lambda: False, on_gpu=lambda: True
    )
    with on_a_gpu:
        optimizer = AdamW(groups=build_param_groups(model.named_parameters(), weight_decay=0.05))
    criterion, clip = CELoss(), ClipGradByGlobalNorm(1.0)
    images, labels = _batch(sizes)

    def passes() -> None:
        optimizer.clear_grad()
        with cpu_kernels(False):
            criterion(model(images), labels).backward()

    def clipping() -> None:
        with mock.patch("passl.optim.clip.on_cpu", return_value=False):
            clip(optimizer.named_parameters)

    accepted = paddle.to_tensor(True)  # only the device knows: nothing is read back
    return passes, clipping, lambda: optimizer.step(1e-4, accepted)


def passl_parts(sizes: dict[str, Any]) -> Parts:
    """The same, written as PASSL's layers, clipping and optimizer are."""
    import paddle
    from stock_vit import StockViT

    model = StockViT(**sizes)
    parameters = model.parameters()
    optimizer = paddle.optimizer.AdamW(1e-4, parameters=parameters, weight_decay=0.05)
    images, labels = _batch(sizes)

    def passes() -> None:
        optimizer.clear_grad(False)
        paddle.nn.functional.cross_entropy(model(images), labels).backward()

    def clipping() -> None:
        with paddle.no_grad():
            squares = [(parameter.grad * parameter.grad).sum() for parameter in parameters]
            norm = paddle.stack(squares).sum().sqrt()
            factor = paddle.clip(1.0 / (norm + 1e-6), max=1.0)
            for parameter in parameters:
                parameter.grad.multiply_(factor)

    return passes, clipping, optimizer.step


if __name__ == "__main__":
    sys.exit(main())

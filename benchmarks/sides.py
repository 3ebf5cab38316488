"""The contestants of ``against_torch.py``: ``python sides.py torch|passl|stock MODEL THREADS``.

``MODEL`` is ``ti``, ``s`` or ``b``; or ``parameters``, the 86.6 million of ViT-B without a model,
for the optimizer and the clipping.  Each task runs once an order: ``train``, ``infer``, ``peak``
(MiB so far); ``adamw``, ``clip``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import numpy as np

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parent)]

from duel import peak_mib, serve  # noqa: E402

#: Width, heads and batch of the models; all have 12 blocks and see 224 pixels in patches of 16.
MODELS = {"ti": (192, 3, 8), "s": (384, 6, 4), "b": (768, 12, 2)}
Tasks = dict[str, Callable[[], Optional[float]]]


def batch(model: str) -> tuple[np.ndarray, np.ndarray]:
    """Random images and labels."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((MODELS[model][2], 3, 224, 224)).astype(np.float32)
    return images, rng.integers(0, 1000, MODELS[model][2])


def vit_base_shapes() -> list[list[int]]:
    """Shapes of ViT-B's parameters."""
    from optimizer_step import vit_base_shapes as shapes

    return shapes()


def torch_model(model: str) -> Tasks:
    """timm's model and torch's fused AdamW."""
    import torch
    from timm.models.vision_transformer import VisionTransformer

    width, heads, _ = MODELS[model]
    net = VisionTransformer(embed_dim=width, num_heads=heads, depth=12)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, weight_decay=0.05, fused=True)
    images, labels = (torch.from_numpy(array) for array in batch(model))

    def train() -> None:
        net.train()
        loss = torch.nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        float(loss)

    def infer() -> None:
        net.eval()
        with torch.inference_mode():
            net(images).numpy()

    return {"train": train, "infer": infer}


def torch_parameters() -> Tasks:
    """torch's fused AdamW, and its clipping with a norm above the limit."""
    import torch

    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in vit_base_shapes()]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer = torch.optim.AdamW(parameters, 1e-4, weight_decay=0.05, fused=True)

    def clip() -> None:
        with torch.no_grad():
            parameters[0].grad.fill_(1e6)  # the norm is above the limit each time
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)

    return {"adamw": lambda: optimizer.step(), "clip": clip}


def paddle_model(kind: str, model: str) -> Tasks:
    """Our model and optimizer, or the tutorial's with Paddle's."""
    import paddle

    width, heads, _ = MODELS[model]
    sizes: dict[str, Any] = {
        "img_size": 224, "patch_size": 16, "in_chans": 3, "class_num": 1000,
        "embed_dim": width, "depth": 12, "num_heads": heads, "mlp_ratio": 4.0,
    }
    if kind == "stock":
        from stock_vit import StockViT

        net, update, clear = _stock(StockViT(**sizes))
        criterion: Any = paddle.nn.functional.cross_entropy
    else:
        from passl.losses.cross_entropy import CELoss
        from passl.models import create_model

        options: dict[str, Any] = {"qkv_bias": True, "epsilon": 1e-6, "init_scheme": "timm"}
        net, update, clear = _ours(create_model("VisionTransformer", **options, **sizes))
        criterion = CELoss()
    images, labels = (paddle.to_tensor(array) for array in batch(model))

    def train() -> None:
        net.train()
        loss = criterion(net(images), labels)
        loss.backward()
        update()
        clear()
        float(loss)

    def infer() -> None:
        net.eval()
        with paddle.no_grad():
            net(images).numpy()

    return {"train": train, "infer": infer}


def _stock(net: Any) -> tuple[Any, Callable[[], Any], Callable[[], Any]]:
    import paddle

    optimizer = paddle.optimizer.AdamW(1e-4, parameters=net.parameters(), weight_decay=0.05)
    return net, optimizer.step, optimizer.clear_grad


def _ours(net: Any) -> tuple[Any, Callable[[], Any], Callable[[], Any]]:
    from passl.optim.adamw import AdamW
    from passl.optim.groups import build_param_groups

    optimizer = AdamW(groups=build_param_groups(net.named_parameters(), weight_decay=0.05))
    return net, lambda: optimizer.step(1e-4), optimizer.clear_grad


def paddle_parameters(kind: str) -> Tasks:
    """AdamW and clipping with a norm above the limit, ours or Paddle's."""
    import paddle

    from passl.optim.adamw import AdamW
    from passl.optim.clip import ClipGradByGlobalNorm
    from passl.optim.groups import build_param_groups

    net = paddle.nn.ParameterList([
        paddle.create_parameter(shape, "float32") for shape in vit_base_shapes()
    ])
    parameters = list(net)
    for parameter in parameters:
        parameter.grad = paddle.randn(parameter.shape)
    update: Callable[[], Any]
    if kind == "stock":
        optimizer = paddle.optimizer.AdamW(1e-4, parameters=parameters, weight_decay=0.05)
        stock_clip = paddle.nn.ClipGradByGlobalNorm(1.0)
        update = optimizer.step

        def clip_all() -> None:
            stock_clip([(parameter, parameter.grad) for parameter in parameters])
    else:
        ours = AdamW(groups=build_param_groups(net.named_parameters(), weight_decay=0.05))
        our_clip = ClipGradByGlobalNorm(1.0)
        named = ours.named_parameters

        def update() -> None:
            ours.step(1e-4)

        def clip_all() -> None:
            our_clip(named)

    def clip() -> None:
        with paddle.no_grad():
            parameters[0].grad.fill_(1e6)
            clip_all()

    return {"adamw": update, "clip": clip}


def main(kind: str, what: str, threads: int) -> None:
    """Be a contestant."""
    if kind == "torch":
        import torch

        torch.set_num_threads(threads)
        tasks = torch_parameters() if what == "parameters" else torch_model(what)
    else:
        from passl import runtime

        if kind == "passl":
            runtime.prepare(threads)
        runtime.import_paddle()
        tasks = paddle_parameters(kind) if what == "parameters" else paddle_model(kind, what)
    serve({**tasks, "peak": peak_mib})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

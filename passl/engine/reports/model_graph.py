"""Which layers a model has and in which order it calls them, seen while it runs once."""

from __future__ import annotations

from typing import Any

import paddle
from paddle import Tensor

from passl.logs.writers.base import Graph, Node

__all__ = ["trace_graph"]

#: Layers that do nothing in evaluation.
_IDLE = ("Identity", "Dropout", "DropPath")


def trace_graph(model: Any, images: Tensor, precision: Any) -> Graph:
    """Run ``model`` once, in evaluation mode, which draws no random number and changes nothing.

    What is computed between layers (a sum, a product of queries and keys) is no layer: each one
    follows on the one called before it.

    Args:
        model: maps images to logits.
        images: float32 [1, C, H, W].
        precision: casts of the forward pass.
    """
    paths = {id(layer): name for name, layer in model.named_sublayers() if not layer.sublayers()}
    nodes: list[Node] = []
    seen: set[str] = set()

    def note(layer: Any, _: Any, output: Any) -> None:
        path = paths[id(layer)].replace(".", "/")
        if path in seen:
            return
        seen.add(path)
        count = sum(int(each.size) for each in layer.parameters())
        source = nodes[-1].path if nodes else ""
        nodes.append(Node(path, type(layer).__name__, count, _shape(output), source))

    layers = [
        layer
        for layer in model.sublayers()
        if id(layer) in paths and type(layer).__name__ not in _IDLE
    ]
    hooks = [layer.register_forward_post_hook(note) for layer in layers]
    was_training = model.training
    model.eval()
    try:
        with paddle.no_grad(), precision.autocast():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
        if was_training:
            model.train()
    return Graph(type(model).__name__, nodes, (-1, *map(int, images.shape[1:])))


def _shape(output: Any) -> tuple[int, ...]:
    first = output[0] if isinstance(output, (tuple, list)) else output
    sizes = [int(size) for size in getattr(first, "shape", ())]
    return (-1, *sizes[1:]) if sizes else ()

"""The network as it is exported: optionally with normalisation before it and softmax behind it."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from passl.data.transforms.normalize import NormalizeImage
from passl.layers.rms_norm import RMSNorm

__all__ = ["ExportGraph", "settle_layers", "store_in_half"]


class ExportGraph(nn.Layer):
    """Images -> logits, probabilities or features.

    Args:
        model: the network, in evaluation mode.
        normalize: of images uint8 [b, h, w, c]; None: they come as float32 [b, c, h, w].
        channels: c.
        softmax: give probabilities.
    """

    def __init__(
        self, model: nn.Layer, normalize: Optional[NormalizeImage], channels: int, softmax: bool
    ) -> None:
        super().__init__()
        self.model, self.softmax = model, softmax
        self.normalizes = normalize is not None
        if normalize is not None:
            self.scale = float(normalize.scale)
            mean, std = normalize.per_channel(channels)
            self.register_buffer("mean", paddle.to_tensor(mean.reshape(1, -1, 1, 1).copy()))
            self.register_buffer("std", paddle.to_tensor(std.reshape(1, -1, 1, 1).copy()))

    def forward(self, image: paddle.Tensor) -> paddle.Tensor:
        """Classify a batch."""
        if self.normalizes:
            # Cast first: Paddle 2.6 transposes no uint8 in a static graph.
            image = image.astype("float32").transpose([0, 3, 1, 2])
            image = (image * self.scale - self.mean) / self.std
        output = self.model(image)
        return F.softmax(output, axis=-1) if self.softmax else output


def settle_layers(layer: nn.Layer) -> None:
    """Change layers into equal ones that survive the export; the model can no longer be trained.

    What a layer computes of its weights alone, and offers as ``fold()``, is computed once: in the
    graph it would cost time at every input, and in half precision its epsilon of 1e-8 vanishes.
    """
    for part in layer.sublayers(include_self=True):
        fold = getattr(part, "fold", None)
        if callable(fold):
            fold()
        if isinstance(part, RMSNorm) and isinstance(part.epsilon, float):
            # As a tensor: paddle2onnx 1.3.1 takes the addition of a number below 1e-5 for none.
            epsilon = paddle.to_tensor([part.epsilon], dtype="float32")
            del part.epsilon
            part.register_buffer("epsilon", epsilon)


def store_in_half(layer: nn.Layer) -> None:
    """Keep every float32 weight as float16, and widen it where it is used.

    A CPU has no arithmetic in float16 in Paddle, so the graph holds the rounded weights and a cast
    each.  The layer cannot be trained afterwards.
    """
    for part in layer.sublayers(include_self=True):
        halves = {}
        for name, weight in list(part._parameters.items()):
            if weight is None or weight.dtype != paddle.float32:
                continue
            half = _in_half(weight)
            del part._parameters[name]
            part.register_buffer(f"{name}_float16", half)
            halves[name] = f"{name}_float16"
        if halves:
            part.register_forward_pre_hook(_Widen(halves))


def _in_half(weight: paddle.Tensor) -> paddle.Tensor:
    """The nearest float16, by NumPy: Paddle's own cast on a CPU is not exact."""
    with np.errstate(over="ignore"):  # the comparison with the live model refuses infinity
        return paddle.to_tensor(weight.numpy().astype(np.float16))


class _Widen:
    """Before a layer runs: its weights in float32, from the stored halves."""

    def __init__(self, halves: dict[str, str]) -> None:
        self._halves = halves

    def __call__(self, layer: nn.Layer, inputs: Any) -> None:  # noqa: ARG002
        for name, half in self._halves.items():
            object.__setattr__(layer, name, getattr(layer, half).astype("float32"))

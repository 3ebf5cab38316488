"""Level O2: the model's weights in fp16 or bf16, and the float32 masters that training updates.

A parameter that only products, convolutions and sums read is held in half precision: on the device
it takes two bytes in place of four, and no operation has to cast it.  Those of normalisations stay
float32, as do those of a layer that says so (``keep_fp32 = True``): a number that a layer uses in
float32 arithmetic must not be rounded before.

The optimizer, the average of the weights and every checkpoint see the masters alone.  The half
weights follow from them by rounding to the nearest, so that they are never saved and never read.

Source: Micikevicius et al., Mixed Precision Training, 2018, section 3.1; what is cast as in
``paddle.amp.decorate``, which besides this casts what is not a Paddle normalisation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Union

import numpy as np
import paddle
from paddle import Tensor, nn

__all__ = ["HalfWeights", "cast_weights", "castable_parameters"]

#: Paddle's layers whose parameters stay float32.
_NORMS = (
    nn.LayerNorm, nn.GroupNorm, nn.BatchNorm, nn.BatchNorm1D, nn.BatchNorm2D, nn.BatchNorm3D,
    nn.SyncBatchNorm, nn.InstanceNorm1D, nn.InstanceNorm2D, nn.InstanceNorm3D, nn.SpectralNorm,
)  # fmt: skip


class HalfWeights:
    """Puts a model's weights into half precision and keeps them in float32 beside it.

    Make it once all weights are in place: they become the masters bit for bit.

    Args:
        model: its parameters stay the same objects; their dtype changes.
        dtype: ``float16`` or ``bfloat16``.
        saved: the tensors of the model that a checkpoint holds.  Of a frozen one among them the
            float32 numbers are kept in the host's memory; of one that is not saved, nowhere.

    Attributes:
        masters: structured name -> float32 tensor of each trainable parameter that is cast.
    """

    def __init__(self, model: Any, dtype: str, saved: Mapping[str, Tensor]) -> None:
        self.dtype = dtype
        self.masters: dict[str, Tensor] = {}
        self._exact: dict[int, Union[Tensor, np.ndarray]] = {}
        kept = {id(tensor) for tensor in saved.values()}
        for name, parameter in castable_parameters(model):
            if not parameter.stop_gradient:
                with paddle.no_grad():
                    self.masters[name] = parameter.detach().clone()
                self._exact[id(parameter)] = self.masters[name]
            elif id(parameter) in kept:
                self._exact[id(parameter)] = parameter.numpy()
            _cast(parameter, dtype)

    def exact(self, weights: Mapping[str, Tensor]) -> dict[str, Union[Tensor, np.ndarray]]:
        """``weights`` of the model in float32 where they are held in half: what is saved."""
        return {name: self._exact.get(id(tensor), tensor) for name, tensor in weights.items()}


def cast_weights(model: Any, dtype: str) -> None:
    """Put the weights of a model that is only run into half precision, as in training at O2."""
    for _, parameter in castable_parameters(model):
        _cast(parameter, dtype)


def castable_parameters(model: Any) -> Iterator[tuple[str, Tensor]]:
    """``(structured name, parameter)`` of the float32 parameters that O2 holds in half precision.

    A parameter that two layers share stays float32 if one of them keeps it.
    """
    kept = {
        id(parameter)
        for layer in model.sublayers(include_self=True)
        if _keeps_fp32(layer)
        for parameter in layer.parameters(include_sublayers=False)
    }
    for name, parameter in list(model.named_parameters()):
        if parameter.dtype == paddle.float32 and id(parameter) not in kept:
            yield name, parameter


def _keeps_fp32(layer: Any) -> bool:
    declared = getattr(layer, "keep_fp32", None)
    if declared is not None:
        return bool(declared)
    return isinstance(layer, _NORMS) or "norm" in type(layer).__name__.lower()


def _cast(parameter: Tensor, dtype: str) -> None:
    """Change the dtype of a parameter; it stays the same object, as in ``Layer.to(dtype=...)``."""
    with paddle.no_grad():
        half = parameter.detach().astype(dtype)
    parameter.get_tensor()._share_data_with(half.get_tensor())

"""Rounding inside a model, layer by layer, without changing the model or its weights.

======== ===================== ============== =================== =====================
format   inputs of Linear,     weights        outputs of these,   other
         convolution, norm                    and of sums
======== ===================== ============== =================== =====================
FP16_32  fp16                  fp16           float32
FP16_16  fp16                  fp16           fp16                tokens with positions
TF32     tf32                  tf32           float32
int8     uint8 (no norm)       int8 (no norm) float32
======== ===================== ============== =================== =====================

Biases, attention scores, their softmax and their products with the values stay float32.  The weight
of a normalisation is rounded in evaluation only.  Sums are those of the residual connections of
:class:`~passl.layers.block.Block`.  Of a convolution that standardises its weights the standardised
ones are rounded, which are what an accelerator multiplies with.

Gradients pass as if nothing were rounded, but those of inputs beyond the range of int8 are 0.

Source: myrtle-vision's ``test_quantize.py`` for the placement; there the rounding of activations
gets lost when a model is converted, here it stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Optional

import numpy as np
import paddle
from paddle import Tensor, nn

from passl.layers.add import Add
from passl.layers.linear import Linear
from passl.layers.rms_norm import RMSNorm
from passl.layers.std_conv import StdConv2D
from passl.quant.int8 import BINS, quantize_activation, quantize_weight
from passl.quant.ranges import Ranges
from passl.quant.rounding import FP16, TF32, Rounder, Rounding, straight_through

__all__ = ["Simulation", "channel_axis"]

_CONVOLUTIONS = (nn.Conv2D, StdConv2D)
_MATRICES = (Linear, nn.Linear, *_CONVOLUTIONS)
_NORMS = (nn.LayerNorm, RMSNorm, nn.GroupNorm, nn.BatchNorm2D)
_BYTES = {"FP16_32": 2, "FP16_16": 2, "TF32": 4, "int8": 1}


class Simulation:
    """A model whose layers round, while it is on.

    Args:
        model: any model; its layers are watched, and its weights left as they are.
        format: ``FP16_32``, ``FP16_16``, ``TF32`` or ``int8``.
        rounding: of the floating-point formats.
        in_training: round in training mode as well, with gradients straight through, and remember
            the ends of int8's inputs in ``ranges``.

    Attributes:
        layers: the layers that round, by name.
        ranges: of int8: lowest and highest input of each layer.
        is_on: false leaves the model as it was.
        seen: where a dictionary, outputs of the layers by name are put there.
    """

    def __init__(
        self, model: Any, format: str, rounding: Rounding = "ieee", *, in_training: bool = False
    ) -> None:
        self.layers: dict[str, Any] = {}
        self.is_on = True
        self.seen: Optional[dict[str, Tensor]] = None
        self._model, self._format = model, format
        self._in_training = in_training
        self._between: dict[str, tuple[float, float]] = {}
        self._observed: Optional[dict[str, list[np.ndarray]]] = None
        self._followed: Optional[Mapping[str, np.ndarray]] = None
        self._off_by: dict[str, float] = {}
        self._is_int8 = format == "int8"
        number_format = TF32 if format == "TF32" else FP16
        self._round: Rounder = partial(number_format.round, rounding=rounding)
        self._handles: list[Any] = []
        for name, layer in model.named_sublayers():
            self._watch(name, layer)
        self.ranges = Ranges(n for n, layer in self.layers.items() if not isinstance(layer, _NORMS))

    def remove(self) -> None:
        """Leave the model for good."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @contextmanager
    def off(self) -> Iterator[None]:
        """Inside the block the model computes as it was."""
        self.is_on = False
        try:
            yield
        finally:
            self.is_on = True

    def size(self) -> tuple[int, int]:
        """Bytes of the model's weights in float32, and in the format (int8 with its scales)."""
        rounded = {id(layer.weight): layer for layer in self.layers.values() if _weighs(layer)}
        before = after = 0
        for parameter in self._model.parameters():
            count = int(parameter.size)
            before += 4 * count
            layer = rounded.get(id(parameter))
            if layer is None or (self._is_int8 and isinstance(layer, _NORMS)):
                after += 4 * count
                continue
            after += _BYTES[self._format] * count
            if self._is_int8:
                after += 4 * int(parameter.shape[channel_axis(layer)])
        return before, after

    # -- calibration -------------------------------------------------------------------------

    @contextmanager
    def observing(
        self, between: Optional[Mapping[str, tuple[float, float]]] = None
    ) -> Iterator[dict[str, list[np.ndarray]]]:
        """Inside the block the model computes as it was, and the inputs of its layers are noted.

        Args:
            between: ends between which histograms are made; None notes the ends themselves.

        Yields:
            name -> ``[min, max]``, or :data:`~passl.quant.int8.BINS` counts, of every batch.
        """
        self._observed, self._between = {}, dict(between or {})
        try:
            yield self._observed
        finally:
            self._observed = None

    # -- another program that computes the same ----------------------------------------------

    @contextmanager
    def following(self, steps: Mapping[str, np.ndarray]) -> Iterator[dict[str, float]]:
        """Inside the block inputs are rounded to the steps that another program has chosen.

        So a value between two steps, where a last bit decides, changes nothing that follows.

        Args:
            steps: uint8 by layer, in the number of values that its input has.

        Yields:
            name -> how many steps the farthest value is from the one it was rounded to: 0.5, if
            the other program rounds the same numbers on the same grid; infinity for NaN.
        """
        self._followed, self._off_by = steps, {}
        try:
            yield self._off_by
        finally:
            self._followed = None

    def _follow(self, name: str, x: Tensor) -> Tensor:
        assert self._followed is not None
        scale, zero = (value.item() for value in self.ranges.grid(name))
        exact = np.clip(x.astype("float32").numpy().astype(np.float64) / scale + zero, 0, 255)
        chosen = self._followed[name].reshape(exact.shape).astype(np.float64)
        off = float(np.abs(exact - chosen).max(initial=0.0))
        off = off if np.isfinite(off) else np.inf
        self._off_by[name] = max(off, self._off_by.get(name, 0.0))
        rounded = (chosen - zero).astype(np.float32) * np.float32(scale)
        return paddle.to_tensor(rounded, place=x.place).astype(x.dtype)

    # -- hooks -------------------------------------------------------------------------------

    def _watch(self, name: str, layer: Any) -> None:
        is_sum = isinstance(layer, Add) or name == "pos_drop"
        if isinstance(layer, (*_MATRICES, *_NORMS)):
            self.layers[name] = layer
            self._handles.append(layer.register_forward_pre_hook(partial(self._before, name)))
        elif not is_sum:
            return
        self._handles.append(layer.register_forward_post_hook(partial(self._after, name)))

    def _applies(self, layer: Any) -> bool:
        return self.is_on and self._observed is None and (self._in_training or not layer.training)

    def _before(self, name: str, layer: Any, inputs: tuple[Any, ...]) -> Optional[tuple[Any, ...]]:
        if self._observed is not None:
            self._observe(name, layer, inputs[0])
            return None
        if not self._applies(layer) or (self._is_int8 and isinstance(layer, _NORMS)):
            return None
        if _weighs(layer) and not (isinstance(layer, _NORMS) and layer.training):
            # An attribute of the object hides the parameter until the layer has run.
            layer.__dict__["weight"] = straight_through(self._weight_rounder(layer), _used(layer))
            if isinstance(layer, StdConv2D):
                layer.folded, layer.__dict__["was_folded"] = True, layer.folded
        if not self._is_int8:
            return (straight_through(self._round, inputs[0]), *inputs[1:])
        if self._in_training and layer.training:
            self.ranges.see(name, inputs[0])
        if self._followed is not None:
            return (self._follow(name, inputs[0]), *inputs[1:])
        return (quantize_activation(inputs[0], *self.ranges.grid(name)), *inputs[1:])

    def _after(
        self, name: str, layer: Any, inputs: tuple[Any, ...], output: Tensor  # noqa: ARG002
    ) -> Tensor:
        layer.__dict__.pop("weight", None)
        if "was_folded" in layer.__dict__:
            layer.folded = layer.__dict__.pop("was_folded")
        if self._format == "FP16_16" and self._applies(layer):
            output = straight_through(self._round, output)
        if self.seen is not None and name in self.layers:
            self.seen[name] = output.detach()
        return output

    def _weight_rounder(self, layer: Any) -> Rounder:
        if self._is_int8:
            return partial(quantize_weight, channel_axis=channel_axis(layer))
        return self._round

    def _observe(self, name: str, layer: Any, x: Tensor) -> None:
        assert self._observed is not None
        if isinstance(layer, _NORMS):
            return
        values = x.detach().astype("float32").numpy()
        if name in self._between:
            lowest, highest = self._between[name]
            counts = np.histogram(values, BINS, (lowest, max(highest, lowest + 1e-30)))[0]
            found = counts.astype(np.float64)
        else:
            found = np.array([values.min(), values.max()], np.float64)  # NaN, if one is there
        self._observed.setdefault(name, []).append(found)


def _weighs(layer: Any) -> bool:
    return layer._parameters.get("weight") is not None


def _used(layer: Any) -> Tensor:
    """The weight that the layer multiplies with."""
    if isinstance(layer, StdConv2D) and not layer.folded:
        return layer.standardised()
    return layer._parameters["weight"]


def channel_axis(layer: Any) -> int:
    """Of the outputs: the first of a convolution's weight, the last of a matrix."""
    return 0 if isinstance(layer, _CONVOLUTIONS) else 1

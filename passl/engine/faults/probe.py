"""Watching every layer of a model during one forward and backward pass."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Optional

import numpy as np
import paddle
from paddle import Tensor

__all__ = ["LayerProbe", "block_of"]


class LayerProbe:
    """Notes, inside ``with``, what each layer gives and what gradient comes back to it.

    A layer inside another is noted before it, so the first bad one is the innermost.

    Args:
        model: the network.

    Attributes:
        first_bad_forward: name of the first layer whose output is not finite, and what is known.
        bad_inputs: positions in the batch of samples whose pixels are not finite.
    """

    def __init__(self, model: Any) -> None:
        self._layers = {name: layer for name, layer in model.named_sublayers() if name}
        self._handles: list[Any] = []
        self._squares: dict[str, float] = {}
        self._gradients: dict[str, bool] = {}  # layer -> finite, in the order of the backward pass
        self._samples = 0
        self.first_bad_forward: Optional[dict[str, str]] = None
        self.bad_inputs: set[int] = set()

    def __enter__(self) -> LayerProbe:
        for name, layer in self._layers.items():
            self._handles.append(layer.register_forward_post_hook(self._watch(name)))
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def look_at_input(self, images: Tensor) -> None:
        """Note which samples of a micro-batch are not finite."""
        finite = np.isfinite(images.astype("float32").numpy()).reshape(images.shape[0], -1).all(1)
        self.bad_inputs |= {self._samples + int(at) for at in np.flatnonzero(~finite)}
        self._samples += len(finite)

    def first_bad_backward(self, parameters: set[str]) -> Optional[dict[str, str]]:
        """Where the backward pass went wrong first.

        Args:
            parameters: names of those whose gradient is not finite.
        """
        for name, finite in self._gradients.items():
            if not finite:
                what = "the gradient that comes back to its output is not finite"
                return {"name": name, "what": self._described(name, what)}
            own = [each for each in parameters if each.rpartition(".")[0] == name]
            if own:
                what = f"the gradient of its {own[0].rpartition('.')[2]} is not finite"
                return {"name": name, "what": self._described(name, what)}
        rest = sorted(parameters)
        return {"name": rest[0], "what": "its gradient is not finite"} if rest else None

    def output_norm(self, block: str) -> float:
        """L2 norm of the output of ``block``, or of the last layer in it; NaN if nothing ran."""
        inside = [name for name in self._squares if block_of(name) == block]
        name = block if block in self._squares else (inside[-1] if inside else None)
        return math.nan if name is None else math.sqrt(self._squares[name])

    def _watch(self, name: str) -> Any:
        def hook(_layer: Any, inputs: Any, output: Any) -> None:
            for tensor in _floats(output):
                with paddle.no_grad():
                    value = tensor.detach().astype("float32").numpy().astype(np.float64)
                self._squares[name] = self._squares.get(name, 0.0) + float(np.square(value).sum())
                if self.first_bad_forward is None and not np.isfinite(value).all():
                    self.first_bad_forward = {"name": name, "what": self._about(name, inputs)}
                if not tensor.stop_gradient:
                    tensor.register_hook(self._note_gradient(name))

        return hook

    def _note_gradient(self, name: str) -> Any:
        def hook(gradient: Tensor) -> None:
            finite = bool(paddle.isfinite(gradient.detach()).all().item())
            self._gradients[name] = self._gradients.get(name, True) and finite

        return hook

    def _about(self, name: str, inputs: Any) -> str:
        bad = any(
            not np.isfinite(tensor.detach().astype("float32").numpy()).all()
            for tensor in _floats(inputs)
        )
        what = "of an input that is not finite either" if bad else "of a finite input"
        return self._described(name, f"its output is not finite, {what}")

    def _described(self, name: str, what: str) -> str:
        return f"{type(self._layers[name]).__name__}: {what}"


def block_of(name: str) -> str:
    """The part of the model that a layer or parameter belongs to.

    >>> block_of("blocks.3.attn.qkv.weight"), block_of("head.weight")
    ('blocks.3', 'head')
    """
    first, *rest = name.split(".")
    return f"{first}.{rest[0]}" if rest and rest[0].isdigit() else first


def _floats(value: Any) -> Iterator[Tensor]:
    """The floating-point tensors in the arguments or the result of a layer."""
    if isinstance(value, Tensor):
        if "float" in str(value.dtype):
            yield value
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _floats(item)

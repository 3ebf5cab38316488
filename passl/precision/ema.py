"""An exponential moving average of the weights, in float32 whatever the model computes in.

    e <- e + (1 - d) (w - e)

after every ``every``-th optimizer update, of the float32 weights that the optimizer updates (the
masters, where the model holds half precision): in float16 a difference of 1e-4 of a weight is lost
and the average never moves.  Frozen weights and buffers are not averaged; where the average is used
or saved they are the model's own.

With ``warmup`` the decay of the update number ``n`` (from 0) is ``min(d, (1 + n) / (10 + n))``, so
that the first weights do not linger for thousands of steps.

Source: arXiv:1412.6980, section 7.2, without its bias correction; the warmup from TensorFlow's
``ExponentialMovingAverage(num_updates=...)``, which is PASSL's ``thres_steps``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Optional

import numpy as np
import paddle
from paddle import Tensor

from passl.errors import CheckpointError
from passl.optim.parallel import map_tensors

__all__ = ["WeightAverage", "decay_of_update"]


def decay_of_update(count: int, *, decay: float, warmup: bool) -> float:
    """The decay of update number ``count`` of the average, from 0."""
    return min(decay, (1.0 + count) / (10.0 + count)) if warmup else decay


class WeightAverage:
    """The average of a model's trainable weights.

    It begins as a copy of the weights: make it after all loading.

    Args:
        model: whose weights are replaced while the average is swapped in.
        weights: ``(structured name, float32 tensor)`` of what the optimizer updates.
        decay: ``d``.
        warmup: let the decay grow from 0.1 to ``decay``.
        every: optimizer updates from one update of the average to the next.
        eval_start_epoch: the average is evaluated in epochs after this one; None: never.

    Attributes:
        num_updates: updates of the average made.
        num_steps: optimizer updates seen.
    """

    def __init__(
        self,
        model: Any,
        weights: Sequence[tuple[str, Tensor]],
        *,
        decay: float = 0.9999,
        warmup: bool = True,
        every: int = 1,
        eval_start_epoch: Optional[int] = 0,
    ) -> None:
        self.decay, self.warmup, self.every = decay, warmup, every
        self.eval_start_epoch = eval_start_epoch
        self.num_updates = self.num_steps = 0
        self._model = model
        self._weights = dict(weights)
        self._sizes = [int(weight.size) for weight in self._weights.values()]
        self._params = dict(model.named_parameters())
        with paddle.no_grad():
            self._average = {name: weight.clone() for name, weight in self._weights.items()}
        self._unsettled: list[bool] = []

    def is_evaluated(self, epoch: int) -> bool:
        """Whether an evaluation in ``epoch`` (from 1) looks at the average too."""
        return self.eval_start_epoch is not None and epoch > self.eval_start_epoch

    def next_decay(self) -> float:
        """The decay of the next update."""
        return decay_of_update(self.num_updates, decay=self.decay, warmup=self.warmup)

    def update(self, accepted: Optional[Tensor] = None) -> None:
        """Take the weights of one optimizer update in; nothing waits for the device.

        Args:
            accepted: bool [] on the device; where it is false the average keeps every bit.  The
                update is counted all the same, until :meth:`settle` hears what it was.
        """
        self.num_steps += 1
        is_due = self.num_steps % self.every == 0
        if accepted is not None:
            self._unsettled.append(is_due)
        if not is_due:
            return
        with paddle.no_grad():
            # One number for all: the kernel would make a tensor of it for each.
            share = paddle.full([], 1.0 - self.next_decay(), dtype="float32")
            if accepted is not None:
                share = share * accepted.astype("float32")
        self.num_updates += 1
        pairs = [(self._average[name], weight) for name, weight in self._weights.items()]
        map_tensors(lambda pair: pair[0].lerp_(pair[1], share), pairs, self._sizes)

    def settle(self, applied: Sequence[bool]) -> None:
        """Take back the counts of the updates that ``accepted`` turned down.

        Args:
            applied: for each masked :meth:`update` since the last call, in their order.
        """
        for was_due, was_applied in zip(self._unsettled, applied):
            if not was_applied:
                self.num_steps -= 1
                self.num_updates -= int(was_due)
        del self._unsettled[: len(applied)]

    def follow(self, weights: Sequence[tuple[str, Tensor]]) -> None:
        """Average these tensors from now on: the same numbers, which training now updates here."""
        self._weights = dict(weights)

    def restart(self) -> None:
        """Begin anew with the weights as they are now."""
        self.num_updates = self.num_steps = 0
        with paddle.no_grad():
            for name, weight in self._weights.items():
                paddle.assign(weight, output=self._average[name])

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The model has the averaged weights inside, and its own again after, come what may."""
        with paddle.no_grad():
            own = {name: self._params[name].clone() for name in self._average}
        try:
            self._put(self._average)
            yield
        finally:
            self._put(own)

    def state_dict(self) -> dict[str, int]:
        """The counts."""
        return {"updates": self.num_updates, "steps": self.num_steps}

    def weights(self) -> dict[str, Tensor]:
        """All that the model needs, with its keys: averages, and its own tensors for the rest."""
        return {**self._model.state_dict(), **self.averages()}

    def averages(self) -> dict[str, Tensor]:
        """The averages alone, under the model's keys."""
        averages = {id(self._params[name]): value for name, value in self._average.items()}
        return {
            key: averages[id(tensor)]
            for key, tensor in self._model.state_dict().items()
            if id(tensor) in averages
        }

    def load(self, arrays: Mapping[str, np.ndarray], state: Mapping[str, int], source: str) -> None:
        """The inverse of :meth:`weights` and :meth:`state_dict`, bit for bit.

        Args:
            arrays: name -> float32 array.
            state: the counts.
            source: what messages call the file.

        Raises:
            CheckpointError: an averaged weight is missing or of another shape.  Nothing is changed
                then.
        """
        problems = [
            f"{name}: {'missing' if name not in arrays else list(arrays[name].shape)}, "
            f"here {list(average.shape)}"
            for name, average in self._average.items()
            if name not in arrays or list(arrays[name].shape) != list(average.shape)
        ]
        if problems:
            raise CheckpointError(
                f"{source}: the averaged weights do not fit this model: {'; '.join(problems[:6])}"
                + (f"; and {len(problems) - 6} more" if len(problems) > 6 else "")
            )
        for name, average in self._average.items():
            average.set_value(np.ascontiguousarray(arrays[name], dtype=np.float32))
        self.num_updates, self.num_steps = int(state["updates"]), int(state["steps"])

    def _put(self, values: Mapping[str, Tensor]) -> None:
        with paddle.no_grad():
            for name, value in values.items():
                param = self._params[name]
                paddle.assign(value.astype(param.dtype), output=param)

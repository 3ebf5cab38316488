"""What the optimizers share: masters, state under structured names, exact restoring."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Callable, ClassVar, Optional, Union

import numpy as np
import paddle

from passl.errors import CheckpointError
from passl.optim.groups import ParamGroup
from passl.optim.packed import Loose, Packed, pack
from passl.optim.parallel import map_tensors, on_cpu
from passl.registry import Runtime

__all__ = [
    "Optimizer",
    "ParamState",
    "chunks",
    "current_gradient",
    "round_into",
    "write_back",
]

_STEP = "__step__"

#: Masked updates are made on at most about this many numbers at a time: it bounds the memory of the
#: copies (64 MiB a tensor kind), and a chunk is still large enough to fill a device.
_CHUNK_NUMEL = 16 * 2**20


@dataclass
class ParamState:
    """One parameter and all that an optimizer remembers of it.

    Attributes:
        name: structured name.
        param: the model's tensor, of any floating-point dtype.
        master: float32 copy that is updated in its place; None if the parameter is float32.
        saves_master: the master is part of the optimizer's state; otherwise the run saves it as the
            weight that it is.
        slots: float32 tensors, zero at first; most are of the parameter's shape.
        num_updates: how often this parameter was updated.
    """

    name: str
    param: paddle.Tensor
    weight_decay: float
    lr_scale: float
    master: Optional[paddle.Tensor] = None
    saves_master: bool = False
    slots: dict[str, paddle.Tensor] = field(default_factory=dict)
    num_updates: int = 0

    @property
    def weights(self) -> paddle.Tensor:
        """The float32 tensor that the update works on."""
        return self.param if self.master is None else self.master

    @cached_property  # asked for twice a tensor and step
    def size(self) -> int:
        """Numbers in the parameter."""
        return int(self.param.size)


@dataclass
class _Part:
    """Some states, with what belongs to them in buffers.

    Attributes:
        states: in the order of the optimizer.
        written: all that an update writes, in float32: weights, masters, slots.
        rounded: masters, and the parameters of half precision that follow from them.
    """

    states: list[ParamState]
    written: list[Union[Packed, Loose]]
    rounded: list[tuple[Union[Packed, Loose], Union[Packed, Loose]]]

    @classmethod
    def of(cls, states: list[ParamState]) -> _Part:
        """Move the tensors of ``states`` into buffers."""
        kinds: dict[str, list[paddle.Tensor]] = {}
        halves: dict[str, list[paddle.Tensor]] = {}
        for state in states:
            kind = "weights" if state.master is None else f"masters of {state.param.dtype}"
            kinds.setdefault(kind, []).append(state.weights)
            if state.master is not None:
                halves.setdefault(kind, []).append(state.param)
            for slot, tensor in state.slots.items():
                kinds.setdefault(slot, []).append(tensor)
        written = {kind: pack(tensors) for kind, tensors in kinds.items()}
        rounded = [(written[kind], pack(tensors)) for kind, tensors in halves.items()]
        return cls(states, list(written.values()), rounded)

    @property
    def packs(self) -> list[Union[Packed, Loose]]:
        """All buffers."""
        return [*self.written, *(halves for _, halves in self.rounded)]


class Optimizer(ABC):
    """Updates the parameters of its groups; the learning rate comes with each step.

    A parameter whose gradient is None in a step is left alone: no update, no weight decay, and its
    own count of updates stands still.  A parameter of half precision is updated through a float32
    master: made from the parameter here, so build the optimizer after the weights are loaded, or
    given to :meth:`use_masters`.

    Args:
        groups: parameters with their weight decay and learning-rate factor.
    """

    #: Names of the tensors of the parameter's shape that are remembered for each parameter.
    slot_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, groups: Annotated[Sequence[ParamGroup], Runtime()]) -> None:
        self.groups = groups
        self.num_steps = 0
        self._unsettled: list[list[ParamState]] = []
        self._parts: list[_Part] = []
        with paddle.no_grad():
            self._states = [
                self._new_state(name, param, group)
                for group in groups
                for name, param in group.params
            ]

    @property
    def named_parameters(self) -> list[tuple[str, paddle.Tensor]]:
        """``(structured name, parameter)`` of all groups, what a gradient clip wants."""
        return [(state.name, state.param) for state in self._states]

    @property
    def named_weights(self) -> list[tuple[str, paddle.Tensor]]:
        """``(structured name, float32 tensor that is updated)``: masters where there are some."""
        return [(state.name, state.weights) for state in self._states]

    def use_masters(self, masters: Mapping[str, paddle.Tensor]) -> None:
        """Update float32 ``masters`` from now on, and round them into parameters that were cast.

        Args:
            masters: by structured name; those of parameters that are not here are passed over.
        """
        self._parts = []
        for state in self._states:
            if state.name in masters:
                state.master, state.saves_master = masters[state.name], False

    def step(self, lr: float, accepted: Optional[paddle.Tensor] = None) -> None:
        """One update with learning rate ``lr``; nothing waits for the device.

        Args:
            lr: learning rate.
            accepted: bool [] on the device; where it is false, weights and state keep every bit.
                The update is counted all the same, until :meth:`settle` hears what it was.
        """
        self.num_steps += 1
        due: list[tuple[ParamState, paddle.Tensor]] = []
        for state in self._states:
            grad = state.param.grad
            if grad is not None:
                state.num_updates += 1
                due.append((state, grad))
        with paddle.no_grad():
            if accepted is None:
                self._update(due, lr)
            else:
                self._unsettled.append([state for state, _ in due])
                self._update_if(accepted, due, lr)
            self._write_back([state for state, _ in due])

    def settle(self, applied: Sequence[bool]) -> None:
        """Take back the counts of the updates that ``accepted`` turned down.

        Args:
            applied: for each masked :meth:`step` since the last call, in their order.
        """
        for states, was_applied in zip(self._unsettled, applied):
            if not was_applied:
                self.num_steps -= 1
                for state in states:
                    state.num_updates -= 1
        del self._unsettled[: len(applied)]

    def clear_grad(self) -> None:
        """Drop all gradients (to None, not to zeros, so that an unused parameter stays unused)."""
        for state in self._states:
            state.param.clear_gradient(False)  # positional: Paddle ignores set_to_zero as a keyword

    def state_dict(self) -> dict[str, paddle.Tensor]:
        """All that :meth:`load_state_dict` needs, as live tensors (copy before the next step).

        Keys are ``<structured name>/<slot>``, with the slots of the optimizer, ``updates`` (int64
        scalar) and, for a parameter that was of half precision from the start, ``master``; and
        ``__step__``.
        """
        state: dict[str, paddle.Tensor] = {_STEP: paddle.to_tensor(self.num_steps, dtype="int64")}
        for entry in self._states:
            for slot, tensor in self._tensors(entry).items():
                state[f"{entry.name}/{slot}"] = tensor
            state[f"{entry.name}/updates"] = paddle.to_tensor(entry.num_updates, dtype="int64")
        return state

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore in place what :meth:`state_dict` gave; the next step is the same bit for bit.

        Masters in ``state`` are ignored for parameters that are float32 here: they equal the
        weights that the checkpoint holds.

        Raises:
            CheckpointError: anything is missing, of another shape, or not of this model.  Nothing
                is changed then.
        """
        self._check(state)
        with paddle.no_grad():
            for entry in self._states:
                for slot, tensor in self._tensors(entry).items():
                    value = np.asarray(state[f"{entry.name}/{slot}"], dtype=np.float32)
                    tensor.set_value(np.ascontiguousarray(value).reshape(tensor.shape))
                write_back(entry)
                entry.num_updates = int(np.asarray(state[f"{entry.name}/updates"]).item())
        self.num_steps = int(np.asarray(state[_STEP]).item())

    def slot_shapes(self, shape: Sequence[int]) -> dict[str, list[int]]:
        """Names and shapes of what is remembered for a parameter of ``shape``.

        Called by the constructor: an optimizer that overrides it sets what it reads before.
        """
        return {name: list(shape) for name in self.slot_names}

    @abstractmethod
    def _update(self, due: Sequence[tuple[ParamState, paddle.Tensor]], lr: float) -> None:
        """Update ``state.weights`` and ``state.slots`` in place with ``grad``, for each pair."""

    def _update_each(
        self,
        due: Sequence[tuple[ParamState, paddle.Tensor]],
        work: Callable[[ParamState, paddle.Tensor], None],
    ) -> None:
        """Call ``work`` with each state and its gradient in float32, on several threads."""

        def update(pair: tuple[ParamState, paddle.Tensor]) -> None:
            state, grad = pair
            work(state, current_gradient(grad))

        map_tensors(update, due, [state.size for state, _ in due])

    def _update_if(
        self,
        accepted: paddle.Tensor,
        due: Sequence[tuple[ParamState, paddle.Tensor]],
        lr: float,
    ) -> None:
        """:meth:`_update`, and what it wrote is put back where ``accepted`` is false.

        Putting back is exact whatever the update computes, and holds for every optimizer; masking
        its inputs is not: zero gradients still let moments and weights decay.
        """
        grads = {id(state): grad for state, grad in due}
        for part in self._packed():
            some = [(state, grads[id(state)]) for state in part.states if id(state) in grads]
            if some:
                self._update_part_if(accepted, part, some, lr)

    def _update_part_if(
        self,
        accepted: paddle.Tensor,
        part: _Part,
        due: Sequence[tuple[ParamState, paddle.Tensor]],
        lr: float,
    ) -> None:
        """:meth:`_update_if` of one part; its copies are gone before those of the next are made."""
        before = [tensors.copy() for tensors in part.written]
        self._update(due, lr)
        for tensors, copy in zip(part.written, before):
            tensors.keep_if(accepted, copy)

    def _write_back(self, states: Sequence[ParamState]) -> None:
        """Round the masters of ``states`` into their parameters."""
        states = [state for state in states if state.master is not None]
        if on_cpu() or not states:
            for state in states:
                write_back(state)
            return
        for part in self._packed():
            for masters, halves in part.rounded:
                halves.round(masters)

    def _packed(self) -> list[_Part]:
        """All states in parts, each in buffers of its own."""
        if not all(pack.is_whole for part in self._parts for pack in part.packs):
            self._parts = []
        if not self._parts:
            for chunk in chunks([(state, state.weights) for state in self._states]):
                self._parts.append(_Part.of([state for state, _ in chunk]))
        return self._parts

    def _new_state(self, name: str, param: paddle.Tensor, group: ParamGroup) -> ParamState:
        state = ParamState(name, param, group.weight_decay, group.lr_scale)
        if param.dtype != paddle.float32:
            state.master, state.saves_master = param.detach().astype("float32"), True
        for slot, shape in self.slot_shapes(param.shape).items():
            state.slots[slot] = paddle.zeros(shape, dtype="float32")
        return state

    def _tensors(self, entry: ParamState) -> dict[str, paddle.Tensor]:
        if entry.master is None or not entry.saves_master:
            return entry.slots
        return {**entry.slots, "master": entry.master}

    def _check(self, state: Mapping[str, np.ndarray]) -> None:
        shapes: dict[str, tuple[int, ...]] = {_STEP: ()}
        ignored = set()
        for entry in self._states:
            for slot, tensor in self._tensors(entry).items():
                shapes[f"{entry.name}/{slot}"] = tuple(tensor.shape)
            shapes[f"{entry.name}/updates"] = ()
            ignored.add(f"{entry.name}/master")
        problems = _key_problems(shapes, set(state), ignored)
        for key in shapes.keys() & set(state):
            found = tuple(np.shape(state[key]))
            # A scalar may come back from a file as one number or as an array of one.
            if found != shapes[key] and not (shapes[key] == () and found == (1,)):
                problems.append(f"{key} has shape {list(found)}, here {list(shapes[key])}")
        if problems:
            raise CheckpointError(
                f"the optimizer state does not fit {type(self).__name__} and this model: "
                + "; ".join(problems[:6])
                + (f"; and {len(problems) - 6} more differences" if len(problems) > 6 else "")
            )


def chunks(
    due: Sequence[tuple[ParamState, paddle.Tensor]],
) -> Iterator[list[tuple[ParamState, paddle.Tensor]]]:
    """Consecutive parts of ``due`` with at most 16 million numbers, or one tensor, each."""
    chunk: list[tuple[ParamState, paddle.Tensor]] = []
    filled = 0
    for state, grad in due:
        if chunk and filled + state.size > _CHUNK_NUMEL:
            yield chunk
            chunk, filled = [], 0
        chunk.append((state, grad))
        filled += state.size
    if chunk:
        yield chunk


def current_gradient(grad: paddle.Tensor) -> paddle.Tensor:
    """The gradient in float32."""
    return grad if grad.dtype == paddle.float32 else grad.astype("float32")


def write_back(entry: ParamState) -> None:
    """Round a master into the parameter it stands for; nothing to do without one."""
    if entry.master is not None:
        round_into(entry.param, entry.master)


def round_into(parameter: paddle.Tensor, master: paddle.Tensor) -> None:
    """Let a parameter be ``master``, rounded to the nearest number of its dtype."""
    paddle.assign(master.astype(parameter.dtype), output=parameter)


def _key_problems(
    wanted: Mapping[str, tuple[int, ...]], found: set[str], ignored: set[str]
) -> list[str]:
    missing = sorted(set(wanted) - found)
    unknown = sorted(found - set(wanted) - ignored)
    problems = []
    if missing and all(key.endswith("/master") for key in missing):
        return [
            "it was saved by a float32 run and holds no master weights for a run with "
            f"half-precision parameters ({missing[0]}, ...); continue with the precision it was "
            "saved with"
        ]
    if missing:
        near = difflib.get_close_matches(missing[0], unknown, n=1)
        hint = f" (nearest in the file: {near[0]})" if near else ""
        problems.append(f"missing entries ({len(missing)}): {', '.join(missing[:3])}{hint}")
    if unknown:
        problems.append(
            f"entries that belong to nothing ({len(unknown)}): {', '.join(unknown[:3])}"
        )
    return problems

"""Optimizer state in parts: each process keeps and updates its share of the parameters.

Stage 1 of ZeRO.  Gradients are summed on every rank as without it, so clipping sees the same norm;
then a rank updates the parameters it owns and sends them to the others, in float32: at level O2 the
masters, which every rank keeps and rounds into its own half weights.  An update of ours works on
one parameter at a time, so weights are equal bit for bit to those without sharding.  A checkpoint
holds the whole state and continues on any number of processes, sharded or not.

Source: Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward Training Trillion Parameter
Models", section 5.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Callable, Optional

import numpy as np
import paddle
from paddle import Tensor

from passl.distributed.talk import talking
from passl.distributed.world import World
from passl.errors import ConfigError
from passl.optim.base import Optimizer, round_into
from passl.optim.groups import ParamGroup

__all__ = ["ShardedOptimizer"]

_STEP = "__step__"
_BUFFER_NUMEL = 16 * 2**20


class ShardedOptimizer:
    """An optimizer whose state is dealt to the processes by whole parameters, evenly by size.

    Args:
        groups: all parameters, the same on every rank.
        build: makes the optimizer of the groups it is given.
        world: this process among all, two or more.
    """

    def __init__(
        self,
        groups: Sequence[ParamGroup],
        build: Callable[[list[ParamGroup]], Optimizer],
        world: World,
    ) -> None:
        self.groups, self._world = groups, world
        self._masters: dict[str, Tensor] = {}
        self._owner = _deal(groups, world.size)
        self._mine = build(
            [
                replace(group, params=[p for p in group.params if self._owner[p[0]] == world.rank])
                for group in groups
            ]
        )
        if not isinstance(self._mine, Optimizer):
            raise ConfigError(
                f"DistributedStrategy.sharding: {type(self._mine).__name__} is no subclass of "
                "passl.optim.base.Optimizer, so its state cannot be kept in parts; remove sharding"
            )
        self._whole: Optional[dict[str, Any]] = None

    @property
    def named_parameters(self) -> list[tuple[str, Tensor]]:
        """``(structured name, parameter)`` of all groups, those of other ranks included."""
        return [pair for group in self.groups for pair in group.params]

    @property
    def named_weights(self) -> list[tuple[str, Tensor]]:
        """``(structured name, float32 tensor)``: masters where there are some, on every rank."""
        return [(name, self._masters.get(name, each)) for name, each in self.named_parameters]

    @property
    def num_steps(self) -> int:
        """Updates done."""
        return self._mine.num_steps

    def use_masters(self, masters: Mapping[str, Tensor]) -> None:
        """As :meth:`Optimizer.use_masters`; every rank keeps those of the others as well."""
        self._masters = dict(masters)
        self._mine.use_masters(masters)

    def step(self, lr: float, accepted: Optional[Tensor] = None) -> None:
        """Update the parameters of this rank, and take those of the others from them.

        Args:
            lr, accepted: as of :meth:`Optimizer.step`; ``accepted`` is the same on all ranks.
        """
        self._whole = None
        self._mine.step(lr, accepted)
        with paddle.no_grad():
            for owner in range(self._world.size):
                owned = [p for name, p in self.named_weights if self._owner[name] == owner]
                self._share(owned, owner)
            for name, parameter in self.named_parameters:
                if name in self._masters and self._owner[name] != self._world.rank:
                    round_into(parameter, self._masters[name])

    def settle(self, applied: Sequence[bool]) -> None:
        """As :meth:`Optimizer.settle`."""
        self._whole = None
        self._mine.settle(applied)

    def clear_grad(self) -> None:
        """Drop all gradients."""
        for _, parameter in self.named_parameters:
            parameter.clear_gradient(False)

    def gather_state(self) -> None:
        """Bring the whole state to the main process; every rank takes part."""
        mine = self._mine.state_dict()
        whole: dict[str, Any] = {_STEP: np.asarray(mine[_STEP].numpy())}
        for name, parameter in self.named_parameters:
            for slot, shape in self._mine.slot_shapes(parameter.shape).items():
                key = f"{name}/{slot}"
                value = mine[key] if key in mine else paddle.zeros(shape)
                self._collect(key, value, self._owner[name], whole)
            key = f"{name}/updates"
            value = mine[key] if key in mine else paddle.to_tensor(0, dtype="int64")
            self._collect(key, value, self._owner[name], whole)
        self._whole = whole if self._world.is_main else {}

    def state_dict(self) -> dict[str, Any]:
        """The state of all ranks, as :meth:`Optimizer.state_dict` gives it, copied to the host.

        On the main process, after :meth:`gather_state`.
        """
        assert self._whole is not None, "gather_state() comes first, on all ranks"
        return self._whole

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore this rank's part of a whole state.

        Raises:
            CheckpointError: as :meth:`Optimizer.load_state_dict`.
        """
        others = {name for name, owner in self._owner.items() if owner != self._world.rank}
        self._mine.load_state_dict(
            {key: value for key, value in state.items() if key.rpartition("/")[0] not in others}
        )
        self._whole = None

    def _collect(self, key: str, value: Tensor, owner: int, whole: dict[str, Any]) -> None:
        with talking("optimizer state"):
            if value.ndim == 0:  # a copy: Paddle 2.6 broadcasts no scalars
                value = value.reshape([1])
                paddle.distributed.broadcast(value, src=owner)
                value = value.reshape([])
            else:
                paddle.distributed.broadcast(value, src=owner)
        if self._world.is_main:
            whole[key] = value.numpy()

    def _share(self, parameters: Sequence[Tensor], owner: int) -> None:
        for bucket in _buckets(parameters):
            flat = paddle.concat([parameter.flatten() for parameter in bucket])
            with talking("updated weights"):
                paddle.distributed.broadcast(flat, src=owner)
            if owner == self._world.rank:
                continue
            start = 0
            for parameter in bucket:
                end = start + int(np.prod(parameter.shape))
                paddle.assign(flat[start:end].reshape(parameter.shape), output=parameter)
                start = end


def _deal(groups: Sequence[ParamGroup], size: int) -> dict[str, int]:
    """The owner of each parameter: the biggest first, each to the rank with the least so far."""
    sizes = {name: int(np.prod(p.shape)) for group in groups for name, p in group.params}
    loads, owner = [0] * size, {}
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        owner[name] = loads.index(min(loads))
        loads[owner[name]] += sizes[name]
    return owner


def _buckets(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Of one dtype each, and of a limited size."""
    bucket: list[Tensor] = []
    filled = 0
    for parameter in parameters:
        numel = int(np.prod(parameter.shape))
        if bucket and (filled + numel > _BUFFER_NUMEL or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket, filled = [], 0
        bucket.append(parameter)
        filled += numel
    if bucket:
        yield bucket

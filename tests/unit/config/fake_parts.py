"""Components with fixed signatures, so that error texts here do not depend on the real ones.

Read through ``Global.imports`` and never executed by most tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Optional, Union

from passl.registry import (
    BATCH_TRANSFORMS,
    DATASETS,
    HOOKS,
    LOSSES,
    METRICS,
    MODELS,
    OPTIMIZERS,
    SCHEDULES,
    TRANSFORMS,
    Component,
    Range,
    Runtime,
)


@MODELS.register(aliases=("toy_net",))
class ToyNet:
    """A model."""

    def __init__(
        self,
        *,
        width: Annotated[int, Range(min=1)] = 8,
        class_num: Annotated[int, Range(min=0)] = 10,
        act: Literal["gelu", "relu"] = "gelu",
        drop_rate: Annotated[float, Range(min=0.0, max=1.0, max_open=True)] = 0.0,
        dims: tuple[int, int] = (1, 2),
        note: str = "",
        anything: Any = None,
    ) -> None: ...


MODELS.variant("ToyNet_wide", ToyNet, width=64)


@MODELS.register()
class SizedNet:
    """A model that takes images of one size."""

    def __init__(self, *, img_size: int = 32, class_num: int = 10) -> None: ...


@LOSSES.register()
class ToyLoss:
    """A loss."""

    def __init__(self, *, classes: Annotated[int, Runtime()], epsilon: float = 0.0) -> None: ...


@METRICS.register()
class ToyMetric:
    """A metric."""

    def __init__(self, *, topk: list[int] = [1]) -> None: ...  # noqa: B006


@OPTIMIZERS.register()
class ToyOpt:
    """An optimizer."""

    def __init__(
        self,
        *,
        groups: Annotated[Sequence[Any], Runtime()],
        betas: tuple[float, float] = (0.9, 0.999),
        eps: Annotated[float, Range(min=0.0)] = 1e-8,
        weight_decay: Annotated[float, Range(min=0.0)] = 0.0,
    ) -> None: ...


@SCHEDULES.register()
class ToySchedule:
    """A schedule."""

    def __init__(
        self,
        *,
        total_steps: Annotated[int, Runtime()],
        learning_rate: Annotated[float, Range(min=0.0)],
        unit: Literal["step", "epoch"] = "step",
    ) -> None: ...


@SCHEDULES.register()
class StepOnlySchedule:
    """A schedule that only knows steps."""

    def __init__(self, *, learning_rate: float, unit: Literal["step"] = "step") -> None: ...


@DATASETS.register()
class ToyData:
    """A data set."""

    def __init__(
        self,
        *,
        root: str,
        transform_ops: Annotated[Sequence[Any], Component("transforms")] = (),
    ) -> None: ...


@DATASETS.register()
class ClassyData:
    """A data set that is told its number of classes."""

    def __init__(self, *, class_num: Optional[int] = None) -> None: ...


@TRANSFORMS.register()
class ToyCrop:
    """A transform."""

    def __init__(
        self, *, size: Annotated[int, Range(min=1)], scale: Union[float, str] = 1.0
    ) -> None: ...


@TRANSFORMS.register()
class ToyFlip:
    """A transform without arguments."""

    def __init__(self) -> None: ...


@TRANSFORMS.register()
class ToyChoice:
    """A transform made of others."""

    def __init__(
        self,
        *,
        first: Annotated[Any, Component("transforms")],
        others: Annotated[Optional[Sequence[Any]], Component("transforms")] = None,
    ) -> None: ...


@BATCH_TRANSFORMS.register()
class ToyMix:
    """A batch transform."""

    def __init__(self, *, alpha: float = 1.0) -> None: ...


@HOOKS.register()
class ToyHook:
    """A hook."""

    def __init__(self, *, every: int = 1) -> None: ...


for _name in ("LoopMetric",):  # not visible without running the module

    @METRICS.register(_name)
    class _Loop:
        """A metric whose name only running the module shows."""

        def __init__(self, *, k: int = 1) -> None: ...

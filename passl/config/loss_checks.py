"""Checks of losses that concern the data as well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Callable, Optional

from passl.registry import BATCH_TRANSFORMS, LOSSES, MODELS

if TYPE_CHECKING:
    from passl.config.check import Checker
    from passl.config.config import Config
    from passl.registry import Registry

__all__ = ["check_losses"]


def check_losses(config: Config, checker: Checker, sound: Callable[..., bool]) -> None:
    """A threshold of BCELoss lies above what smoothing gives to the classes that are not there."""
    train = config.DataLoader.Train
    if train is None or not sound("Loss.Train", "DataLoader.Train.batch_transform", "Model"):
        return
    smoothing = max(map(_epsilon, _flat(train.batch_transform)), default=0.0)
    if not smoothing:
        return
    classes = _argument(MODELS, config.Model, "class_num") if config.Model else None
    floor = smoothing / classes if isinstance(classes, int) and classes > 0 else 0.0
    for position, term in enumerate(config.Loss.Train):
        if term.component.get("name") != "BCELoss":
            continue
        threshold = _argument(LOSSES, term.component, "target_threshold")
        if threshold is not None and (threshold == 0.0 or threshold < floor):
            checker.report(
                f"Loss.Train.{position}",
                f"BCELoss makes every target above {threshold:g} a 1, and with epsilon: "
                f"{smoothing:g} in DataLoader.Train.batch_transform that is every class of every "
                "image; write epsilon: 0.0 there, as DeiT III does, or target_threshold: null here",
            )


def _flat(items: Any) -> Iterator[Mapping[str, Any]]:
    """Batch transforms, and those that they choose from."""
    for item in items or ():
        if isinstance(item, Mapping):
            yield item
            yield from _flat(item.get("ops"))


def _epsilon(item: Mapping[str, Any]) -> float:
    value = _argument(BATCH_TRANSFORMS, item, "epsilon")
    return float(value) if isinstance(value, (int, float)) else 0.0


def _argument(registry: Registry, item: Mapping[str, Any], name: str) -> Optional[Any]:
    """What a component is given, or takes by default."""
    if name in item:
        return item[name]
    spec = registry.spec(str(item.get("name")))
    param = spec.param(name) if spec is not None else None
    return None if param is None or param.required else param.default

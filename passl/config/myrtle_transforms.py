"""myrtle-vision's transforms of a data config as ours, see :mod:`passl.config.myrtle`."""

from __future__ import annotations

from typing import Any

from passl.errors import ConfigError

__all__ = ["transforms"]


def transforms(ops: Any, where: str) -> list[dict[str, Any]]:
    """Their transforms in the order in which their code applies them, whatever the file's."""
    if not isinstance(ops, dict):
        raise ConfigError(f"{where}: expected a JSON object, found {ops!r}")
    unknown = sorted(set(ops) - set(_ORDER))
    if unknown:
        raise ConfigError(f"{where}: {unknown[0]} is not known; theirs are {', '.join(_ORDER)}")
    steps: list[dict[str, Any]] = []
    for name in _ORDER:
        if name not in ops:
            continue
        value = ops[name]
        if name == "RandomHorizontalFlip":
            steps.append({"RandFlipImage": {"flip_code": 1}})
        elif name == "Normalize":
            steps.append({"NormalizeImage": {**_mean_and_std(value, where), "order": ""}})
        else:
            steps.append({_ORDER[name]: {"size": value}})
    if "Normalize" not in ops:
        steps.append({"NormalizeImage": {"mean": [0.0], "std": [1.0], "order": ""}})
    return [*steps, {"ToCHWImage": None}]


#: Their transforms in their order -> ours.
_ORDER = {
    "Resize": "ResizeImage",
    "RandomResizedCrop": "RandomResizedCrop",
    "CenterCrop": "CenterCrop",
    "RandomHorizontalFlip": "RandFlipImage",
    "Normalize": "NormalizeImage",
}


def _mean_and_std(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, dict) and {"mean", "std"} <= set(value):
        return {"mean": value["mean"], "std": value["std"]}
    if isinstance(value, list) and len(value) == 2:
        return {"mean": value[0], "std": value[1]}
    raise ConfigError(f"{where}: Normalize: expected mean and std, found {value!r}")

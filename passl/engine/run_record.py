"""What a checkpoint remembers of its run, in ``state.json``: config, lengths, classes, versions."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import paddle

import passl
from passl.checkpoint.provenance import read_provenance
from passl.checkpoint.resolve import resolve_checkpoint
from passl.config import Config
from passl.data.class_names import known_names
from passl.data.loader import Loader
from passl.distributed.world import World
from passl.engine.plan import RunPlan
from passl.errors import CheckpointError
from passl.json_text import from_json

__all__ = [
    "classes_digest",
    "labels_digest",
    "learned_classes",
    "read_state",
    "record_beside",
    "run_record",
    "versions",
]


def read_state(folder: Path) -> dict[str, Any]:
    """The ``state.json`` of a verified checkpoint folder.

    Raises:
        CheckpointError: it is missing or unreadable.
    """
    path = folder / "state.json"
    try:
        record = from_json(path.read_text(encoding="utf-8"))
        if not _is_record(record):
            raise ValueError("it is not the record of a training run")
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error}); to start a new run from these weights without the "
            f"training state, use -o Global.output_dir=PATH Global.pretrained_model={folder}"
        ) from error
    return dict(record)


def _is_record(record: Any) -> bool:
    """Whether it has the parts that every version has written."""
    parts = ("state", "config", "plan")
    return (
        isinstance(record, dict)
        and all(isinstance(record.get(name), dict) for name in parts)
        and isinstance(record["config"].get("Model"), dict)
    )


def record_beside(weights: str) -> dict[str, Any]:
    """The ``state.json`` of the checkpoint that the weights belong to.

    Of averaged or converted weights it has what stayed true of them: names of classes and settings,
    and neither ``state`` nor ``plan``.  It is empty if there is none.

    Raises:
        CheckpointError: there are no weights, or it cannot be read.
    """
    resolved = resolve_checkpoint(weights)
    if resolved.state is not None:
        return read_state(resolved.state.parent)
    return dict(read_provenance(resolved).learned)


def run_record(config: Config, plan: RunPlan, loader: Loader, world: World) -> dict[str, Any]:
    """What a checkpoint remembers of its run beside the state: config, lengths, classes, versions.

    Args:
        config, plan: of the run.
        loader: of its training data.
        world: its processes.
    """
    return {
        "config": config.to_dict(),
        "plan": {
            "seed": plan.seed,
            "global_batch_size": plan.global_batch_size,
            "steps_per_epoch": plan.steps_per_epoch,
            "num_samples": loader.num_samples,
            "labels": labels_digest(loader.dataset),
            "classes": classes_digest(loader.dataset),
            "num_processes": world.size,
        },
        "classes": _class_names(config, loader.dataset),
        "versions": versions(),
    }


def learned_classes(record: Mapping[str, Any], class_num: Optional[int]) -> Optional[list[str]]:
    """The names of the classes that weights have learned, by label; None: unknown.

    Args:
        record: the ``state.json`` beside them; empty if there is none.
        class_num: classes of the model; names of another number are none of its own.
    """
    names = record.get("classes")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return names if names and class_num in (None, len(names)) else None


def _class_names(config: Config, dataset: Any) -> Optional[list[str]]:
    """Those of the training data, one a class of the model; None: it does not know them."""
    assert config.DataLoader.Train is not None  # the config check demands it of a run that trains
    names = known_names(dataset, config.DataLoader.Train.dataset)
    return names if names and config.Model.get("class_num") == len(names) else None


def labels_digest(dataset: Any) -> Optional[str]:
    """A digest of the labels of all samples, in their order; None if the data set has none.

    A folder of images whose class folders were renamed has as many samples as before, and its
    numbers mean other classes than the head has learnt.
    """
    labels = getattr(dataset, "labels", None)
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
        return None
    return _digest(np.ascontiguousarray(labels, dtype="<i8").data)


def classes_digest(dataset: Any) -> Optional[str]:
    """A digest of the names of the classes, by label; None if the data set does not know them."""
    classes = getattr(dataset, "classes", None)
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        return None
    return _digest(json.dumps(classes).encode())


def _digest(data: Union[bytes, memoryview]) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def versions() -> dict[str, str]:
    """Versions of what can change a number."""
    return {
        "passl": passl.__version__,
        "paddle": paddle.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
